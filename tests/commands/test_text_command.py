"""`seqkd text`: what it writes against a detokenisation by hand, that every row is a line, and what
it refuses.
"""

import re
import shutil
import tracemalloc

import manifests
import numpy as np
import pytest
import toys
from commands import run_here
from fairseq.data import Dictionary, data_utils

from fairseq_seqkd import cli
from fairseq_seqkd.corpus import export_text as parallel_text
from fairseq_seqkd.corpus import mmap_format
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.errors import Refusal

TRAIN = 509  # sentences of the tiny training split


def text(*args):
    return cli.main(["text", *map(str, args)])


def lines(path):
    """The lines of a file as a tool of Unix counts them: only a newline ends one."""
    content = path.read_bytes().decode()
    assert content.endswith("\n")
    return content[:-1].split("\n")


def symbols(folder, lang):
    """The dictionary's symbols as its file says: four specials first."""
    listed = (folder / f"dict.{lang}.txt").read_text().splitlines()
    return ["<s>", "<pad>", "</s>", "<unk>", *(line.split(" ")[0] for line in listed)]


def by_hand(ids, names):
    """Words of "@@" subwords, joined with a regular expression."""
    return re.sub("@@( |$)", "", " ".join(names[i] for i in ids if i > 2))


def side(folder, split, lang):
    dataset = data_utils.load_indexed_dataset(str(folder / f"{split}.de-en.{lang}"), None, "mmap")
    return [dataset[i].tolist() for i in range(len(dataset))]


@pytest.fixture
def copied(distilled, tmp_path):
    """A distilled directory that a test may change."""
    shutil.copytree(distilled, tmp_path / "distilled")
    return tmp_path / "distilled"


def change_manifest(folder, **more):
    content = manifests.read(folder)
    manifests.write(folder, {**content, **more})


def rewrite(folder, name, content):
    """Replaces a file of a view, and what the manifest says of it."""
    (folder / name).write_bytes(content)
    files = dict(manifests.read(folder)["files"])
    files[name] = {"bytes": len(content), "sha256": sha256(folder / name)}
    change_manifest(folder, files=files)


@pytest.mark.parametrize("view", ["seq_kd", "seq_inter"])
def test_lines_are_the_store_detokenised_by_hand(distilled, tiny, tmp_path, capsys, view):
    assert text(distilled, "--view", view, "-o", tmp_path / "train") == 0
    printed = capsys.readouterr()
    assert (
        f"{TRAIN} lines each | {manifests.read(distilled)['signature']}" in printed.out
        and printed.err == ""
    )
    source, target = symbols(tiny, "de"), symbols(tiny, "en")
    assert lines(tmp_path / "train.de") == [
        by_hand(ids, source) for ids in side(tiny, "train", "de")
    ]
    store, expected = NBestStore(distilled), []
    for nbest in (store[i] for i in range(TRAIN)):
        best = 0 if view == "seq_kd" else int(np.argmax([h.similarity for h in nbest]))
        expected.append(by_hand(nbest[best].tokens.tolist(), target))
    assert lines(tmp_path / "train.en") == expected and not any("@@" in line for line in expected)
    # The view's own folder, moved away from the directory, says the same.
    shutil.copytree(distilled / view, tmp_path / "moved")
    text(tmp_path / "moved", "-o", tmp_path / "again")
    assert (tmp_path / "again.en").read_bytes() == (tmp_path / "train.en").read_bytes()


def test_another_split_is_gold(distilled, tiny, tmp_path):
    text(distilled, "--split", "valid", "-o", tmp_path / "valid")
    for lang in ("de", "en"):
        expected = [by_hand(ids, symbols(tiny, lang)) for ids in side(tiny, "valid", lang)]
        assert lines(tmp_path / f"valid.{lang}") == expected and len(expected) == 53


def test_a_student_with_a_vocabulary_of_its_own_is_preprocessed_and_trained(distilled, tmp_path):
    """Letters of the source, whole words of the target: no dictionary of the teacher's."""
    for split in ("train", "valid"):
        text(distilled, "--split", split, "-o", tmp_path / split)
        letters = [" ".join(line.replace(" ", "_")) for line in lines(tmp_path / f"{split}.de")]
        (tmp_path / f"{split}.de").write_text("".join(f"{line}\n" for line in letters))
    prefixes = {
        "source-lang": "de",
        "target-lang": "en",
        "trainpref": tmp_path / "train",
        "validpref": tmp_path / "valid",
    }
    run_here("fairseq-preprocess", *toys.flags(prefixes, destdir=tmp_path / "bin", workers=1))
    assert (
        len(side(tmp_path / "bin", "train", "de"))
        == len(side(tmp_path / "bin", "train", "en"))
        == TRAIN
    )
    dictionary = Dictionary.load(str(tmp_path / "bin" / "dict.en.txt"))
    words = [dictionary.string(ids) for ids in side(tmp_path / "bin", "train", "en")]
    assert words == lines(tmp_path / "train.en")
    toys.train(
        tmp_path / "bin",
        tmp_path / "student",
        criterion="label_smoothed_cross_entropy",
        max_update=2,
    )
    assert (tmp_path / "student" / "checkpoint_last.pt").is_file()


def test_post_process_none_and_bpe_names(distilled, tiny, tmp_path):
    target = symbols(tiny, "en")
    plain = [
        " ".join(target[i] for i in ids if i > 2)
        for ids in side(distilled / "seq_kd", "train", "en")
    ]
    text(distilled, "-o", tmp_path / "plain", "--post-process", "none")
    assert lines(tmp_path / "plain.en") == plain
    text(
        distilled, "-o", tmp_path / "letters", "--bpe", "characters"
    )  # fairseq's: spaces away, U+2581 is one
    assert lines(tmp_path / "letters.en") == [line.replace(" ", "") for line in plain]


def test_options_of_a_bpe_reach_fairseqs_registry(distilled, tmp_path, monkeypatch):
    from fairseq.data import encoders

    seen = []
    monkeypatch.setattr(
        encoders, "build_bpe", lambda options: seen.append(options.sentencepiece_model)
    )
    monkeypatch.setattr(
        encoders,
        "build_tokenizer",
        lambda options: seen.append((options.target_lang, options.moses_no_escape)),
    )
    more = [
        "--bpe",
        "sentencepiece",
        "--sentencepiece-model",
        "m.model",
        "--tokenizer",
        "moses",
        "--moses-no-escape",
    ]
    text(distilled, "-o", tmp_path / "a", *more)
    assert seen == [
        "m.model",
        ("de", True),
        "m.model",
        ("en", True),
    ]  # each side in its own language
    seen.clear()
    text(distilled, "-o", tmp_path / "b", *more, "--target-lang", "eng")
    assert seen[1::2] == [("de", True), ("eng", True)]


def test_what_similarity_was_measured_with_is_not_forgotten(copied, tmp_path):
    settings = manifests.read(copied)["settings"]
    settings["similarity"] = {
        **settings["similarity"],
        "post_process": None,
        "tokenizer_undone": "space",
    }
    change_manifest(copied, settings=settings)
    with pytest.raises(Refusal, match="decoded with --tokenizer space"):
        text(copied, "-o", tmp_path / "a")
    text(copied, "-o", tmp_path / "a", "--tokenizer", "none")
    assert any("@@" in line for line in lines(tmp_path / "a.en"))  # nothing was joined then
    text(copied, "-o", tmp_path / "b", "--tokenizer", "space", "--post-process", "@@ ")
    assert not any("@@" in line for line in lines(tmp_path / "b.en"))


def test_unknown_words_empty_lines_and_line_breaks_are_counted(copied, tmp_path, capsys):
    view = copied / "seq_kd"
    breaks = ["a\x85b", "c\u2028d", "e\x0bf"]
    (view / "dict.en.txt").write_text(
        "".join(f"{symbol} 1\n" for symbol in breaks), encoding="utf-8"
    )
    rewrite(view, "dict.en.txt", (view / "dict.en.txt").read_bytes())
    with mmap_format.Writer(view / "train.de-en.en", np.uint16) as writer:
        writer.add([4, 5, 6, 2, 3, 4, 3, 2, 2], [4, 4, 1])
        writer.add([2] * (TRAIN - 3), [1] * (TRAIN - 3))
    for ending in (".bin", ".idx"):
        rewrite(view, f"train.de-en.en{ending}", (view / f"train.de-en.en{ending}").read_bytes())
    text(view, "-o", tmp_path / "x")
    assert lines(tmp_path / "x.en")[:3] == ["a b c d e f", "<unk> a b <unk>", ""]
    assert (
        len((tmp_path / "x.en").read_text().splitlines()) == len(lines(tmp_path / "x.de")) == TRAIN
    )
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/x.en: 2 unknown words are written as <unk>",
        f"{tmp_path}/x.en: in 2 sentences a line break is written as a space",
        f"{tmp_path}/x.en: {TRAIN - 2} lines are empty",
    ]


def test_no_character_ends_a_line_but_newline():
    every = "".join(map(chr, range(0xD800)))
    assert len(every.translate(parallel_text.LINE_BREAKS).splitlines()) == 1
    assert len(every.translate(parallel_text.LINE_BREAKS)) == len(every)


class Endless:
    """n sentences of three ids, made when asked for."""

    def __init__(self, n, broken_at=None):
        self.n, self.broken_at = n, broken_at

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        import torch

        return torch.tensor([4, 999 if row == self.broken_at else 5, 2])


def sides(n, **more):
    dictionary = Dictionary()
    for word in ("hello", "world"):
        dictionary.add_symbol(word)
    return [
        parallel_text.Side(data, dictionary, lambda ids: "hello", "x.bin")
        for data in (Endless(n), Endless(n, **more))
    ]


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    peaks = []
    for n in (1000, 20_000):
        pair = sides(n)
        tracemalloc.start()
        assert parallel_text.write(pair, (tmp_path / "a", tmp_path / "b")) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A list of anything takes 8 bytes a sentence, kept lines more than 50; other threads of this
    # process may take some kilobytes.
    assert peaks[1] - peaks[0] < 5 * 19_000
    assert len(lines(tmp_path / "b")) == 20_000


def test_files_are_whole_together_or_the_old_ones_stay(tmp_path):
    parallel_text.write(sides(3), (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(Refusal, match="damaged at sentence 7"):
        parallel_text.write(sides(10, broken_at=7), (tmp_path / "a", tmp_path / "b"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]
    assert len(lines(tmp_path / "a")) == len(lines(tmp_path / "b")) == 3


@pytest.mark.parametrize(
    "change, args, sentence",
    [
        (lambda d: change_manifest(d, complete=False), [], "is not finished"),
        (lambda d: (d / "manifest.json").unlink(), [], "has no manifest.json"),
        (lambda d: shutil.rmtree(d), [], "does not exist"),
        (
            lambda d: None,
            ["--view", "seq_best"],
            "has no view 'seq_best'; it has: seq_inter, seq_kd",
        ),
        (lambda d: None, ["--split", "dev"], "no split 'dev'"),
        (
            lambda d: (d / "seq_kd" / "train.de-en.en.bin").unlink(),
            [],
            "missing or has another size",
        ),
        (lambda d: (d / "seq_kd" / "dict.en.txt").unlink(), [], "missing or has another size"),
        (lambda d: None, ["--bpe", "typo"], "fairseq has no --bpe typo"),
        (
            lambda d: None,
            ["--bpe", "sentencepiece", "--sentencepiece-model", "none.model"],
            "cannot be set up",
        ),
        (
            lambda d: None,
            ["--sentencepiece-model", "m"],
            "unknown options: --sentencepiece-model m",
        ),
        (lambda d: None, ["-o", "nowhere/train"], "its folder does not exist"),
        (lambda d: None, ["-o", "../out/"], "name a PREFIX in it"),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_is_written(
    copied, tmp_path, monkeypatch, change, args, sentence
):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    change(copied)
    with pytest.raises(Refusal, match=re.escape(sentence)):
        text(copied, "-o", "train", *args)
    assert not list((tmp_path / "out").iterdir())


def test_damaged_bytes_are_refused(copied, tmp_path):
    file = copied / "seq_kd" / "train.de-en.en.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(Refusal, match="its hash is not the manifest's"):
        text(copied, "-o", tmp_path / "train")


def test_a_view_is_that_view(distilled, tmp_path):
    with pytest.raises(Refusal, match="is the view seq_kd, not seq_inter"):
        text(distilled / "seq_kd", "--view", "seq_inter", "-o", tmp_path / "train")


def test_files_that_are_there_are_kept_unless_forced(distilled, tmp_path):
    (tmp_path / "train.en").write_text("gold\n")
    with pytest.raises(Refusal, match="exists; name another PREFIX"):
        text(distilled, "-o", tmp_path / "train")
    assert (tmp_path / "train.en").read_text() == "gold\n" and not (tmp_path / "train.de").exists()
    text(distilled, "-o", tmp_path / "train", "--force")
    assert len(lines(tmp_path / "train.en")) == TRAIN
