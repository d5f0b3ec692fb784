"""Bad inputs, a row each: what is given, the part of the one sentence that it gets, and the exit
code. Then odd inputs that are no bad ones, which must work.

The commands run in this process, as the console scripts run them. A refusal leaves every file and
folder around as it was.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import folders
import manifests
import numpy as np
import pytest
import toys
from commands import environment_with, refusal, run_here
from composing import compose_quickly
from fairseq import options as fairseq_options
from fairseq.data.data_utils import load_indexed_dataset
from fairseq.dataclass import utils as fairseq_utils
from similarity import sentence_bleu

import fairseq_seqkd
from fairseq_seqkd.corpus import views
from fairseq_seqkd.corpus.databin import load_dictionary
from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE, Detokeniser
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.distribution_store import DistributionStore
from fairseq_seqkd.corpus.mmap_format import HEADER
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.decoding.distribution_recorder import DistributionRecorder
from fairseq_seqkd.decoding.nbest_recorder import NBestRecorder

fairseq_seqkd.register()

STORE = DistributionStore.NAME


def test_a_configuration_is_the_one_that_hydra_composes(at):
    for more in (
        {},
        {
            "beam": 7,
            "lenpen": 1.5,
            "similarity": "chrf",
            "filter_copy": 0.5,
            "path": "it's a 'path'=x",
        },
    ):
        args = fairseq_options.parse_args_and_arch(
            fairseq_options.get_generation_parser(), [str(word) for word in at.decode(**more)[1:]]
        )
        expected = fairseq_utils.convert_namespace_to_omegaconf(args)
        with compose_quickly():
            assert fairseq_utils.convert_namespace_to_omegaconf(args) == expected


def run(name, *words):
    return run_here(name, *words, check=False)


def around(folder):
    """{path: bytes of a file, where a link leads, None for a folder} of everything in a folder."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        link = path.is_symlink()
        found[str(path.relative_to(folder))] = (
            str(path.readlink()) if link else path.read_bytes() if path.is_file() else None
        )
    return found


# What becomes of a file: bytes -> bytes, or None where it is removed.


def half(content):
    return content[: len(content) // 2]


def nothing(content):
    return b""


def absent(content):
    return None


def flipped(at, bit=1):
    """One bit of the byte at this place is another; a place may be a share of the file, as 0.5."""

    def change(content):
        place = int(at * len(content)) if isinstance(at, float) else at
        return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]

    return change


def becomes(*pair):
    """The first occurrence of some bytes is replaced; with one argument all of the file is."""

    def change(content):
        if len(pair) == 1:
            return pair[0]
        assert pair[0] in content
        return content.replace(*pair, 1)

    return change


def reordered(content):
    return b"".join(reversed(content.splitlines(keepends=True)))


SIZE_OF_SENTENCE_3 = HEADER.size + 4 * 3


class Place:
    """Where a row puts its files (`here`, empty at first), and the words of the commands that it
    runs there.
    """

    def __init__(self, here, **made):
        self.here, self.made = here, made

    def __truediv__(self, name):
        return self.here / name

    def broken(self, what, file, change):
        """A copy of one of the fixtures of which a file has changed."""
        folder = shutil.copytree(self.made[what], self.here / what)
        content = change((folder / file).read_bytes())
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
        return folder

    def file(self, name, content=b""):
        (self.here / name).write_bytes(content)
        return self.here / name

    def folder(self, name):
        (self.here / name).mkdir(parents=True)
        return self.here / name

    def link(self, name, target):
        (self.here / name).symlink_to(target)
        return self.here / name

    def teacher(self, change):
        """The teacher's file with other bytes."""
        return self.file("teacher.pt", change(self.made["teacher"].read_bytes()))

    def changed(self, change):
        """A checkpoint like the teacher's, of which the state has changed."""
        return folders.changed(self.made["teacher"], self.here / "changed.pt", change)

    def with_gold(self, kind, name):
        """A directory like the one made, in whose view seq_kd the valid split's gold stands as
        another one.
        """
        found = shutil.copytree(self.made[kind], self.here / kind)
        for file in self.made["tiny"].glob("valid.*"):
            shutil.copy(file, found / "seq_kd" / file.name.replace("valid", name))
        return found

    def decode(self, data=None, teacher=None, out=None, **more):
        paths = [
            data or self.made["tiny"],
            teacher or self.made["teacher"],
            out or self.here / "out",
        ]
        return [
            "fairseq-generate",
            *toys.decode_command(*paths, **{"gen_subset": "valid", "part_size": 16, **more}),
        ]

    def score(self, *args, **more):
        return self.decode(*args, **{**toys.SCORING, **more})

    def train(self, data=None, **more):
        (self.here / "student").mkdir(exist_ok=True)  # fairseq makes it before anybody is asked
        words = toys.train_command(
            data or self.made["tiny"], self.here / "student", max_update=1, **more
        )
        return ["fairseq-train", *words]

    def word_kd(self, teacher=None, data=None, **more):
        return self.train(
            data, criterion="word_kd", teacher_path=teacher or self.made["teacher"], **more
        )

    def stored(self, change, file=STORE):
        return self.train(
            criterion="word_kd", teacher_distributions=self.broken("whole", file, change)
        )

    def evaluate(self, teacher=None, data=None, *words):
        return [
            "seqkd",
            "evaluate",
            teacher or self.made["teacher"],
            "--data",
            data or self.made["tiny"],
            "--cpu",
            *words,
        ]

    def prune(self, checkpoint=None, *words, sparsity=0.5):
        words = words or ("-o", self.here / "pruned.pt")
        return [
            "seqkd",
            "prune",
            checkpoint or self.made["teacher"],
            "--sparsity",
            sparsity,
            *words,
        ]

    def select(self, folder=None, *words):
        folder = folder or self.made["distilled"]
        return [
            "seqkd",
            "select",
            folder,
            "--data",
            self.made["tiny"],
            "-o",
            self.here / "new",
            *words,
        ]

    def text(self, folder=None, *words):
        return ["seqkd", "text", folder or self.made["distilled"], "-o", self.here / "text", *words]

    def seqkd(self, *words):
        return ["seqkd", *words]


@pytest.fixture(scope="module")
def begun(tiny, teacher, tmp_path_factory):
    """A decode of the validation split of which all parts are there, and nothing is made of them
    yet.
    """
    out = tmp_path_factory.mktemp("begun") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distilled, "finish", lambda self, build: False)
        place = Place(out.parent, tiny=tiny, teacher=teacher)
        assert run(*place.decode(out=out)).returncode == 0
    assert len(list((out / "parts").glob("*.part"))) == 4
    return out


@pytest.fixture(autouse=True)
def no_mecab(monkeypatch):
    """As where sacrebleu's extras are not installed."""
    monkeypatch.setitem(sys.modules, "MeCab", None)


@pytest.fixture
def at(tiny, teacher, distilled, whole, begun, tmp_path):
    """The row's Place. What it is made from stays as it is."""
    made = {
        "tiny": tiny,
        "teacher": teacher,
        "distilled": distilled,
        "whole": whole,
        "begun": begun,
    }
    (tmp_path / "here").mkdir()
    before = {name: facts(path) for name, path in made.items()}
    yield Place(tmp_path / "here", **made)
    assert {name: facts(path) for name, path in made.items()} == before


def facts(path):
    files = [path, *sorted(path.rglob("*"))]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def lacking_targets(at):
    folder = shutil.copytree(at.made["tiny"], at / "tiny")
    for ending in ("bin", "idx"):
        (folder / f"valid.de-en.en.{ending}").unlink()
    return folder


def misaligned(at):
    folder = shutil.copytree(at.made["tiny"], at / "tiny")
    for ending in ("bin", "idx"):
        shutil.copy(folder / f"test.de-en.en.{ending}", folder / f"valid.de-en.en.{ending}")
    return folder


def not_binarised(at):
    folder = at.folder("bin")
    for lang in ("de", "en"):
        shutil.copy(at.made["tiny"] / f"dict.{lang}.txt", folder)
        (folder / f"valid.de-en.{lang}").write_text("rot Haus\n")
    return folder


class Code:
    """An object that a checkpoint must not hold."""

    def __reduce__(self):
        return (os.system, ("exit 1",))


def reversed_languages(state):
    state["cfg"]["task"].update(source_lang="en", target_lang="de")


def from_embeddings(state):
    state["cfg"]["model"].encoder_embed_path = "absent.txt"


def six_positions(state):
    state["cfg"]["model"].max_source_positions = state["cfg"]["task"]["max_source_positions"] = 6


def no_number(state):
    state["model"]["decoder.embed_tokens.weight"][5] = float("nan")


def compressed_file(at, change):
    """A compressed file of which the bytes have changed."""
    path = at / "student.compressed"
    assert run("seqkd", "compress", at.made["teacher"], "-o", path).returncode == 0
    path.write_bytes(change(path.read_bytes()))
    return path


LONG_AGO = (
    b'{"results": [{"name": "A", "data_sha256": "another", "settings": {"split": "test", '
    b'"max_len_a": 1.2, "max_len_b": 10}}]}'
)

# fmt: off
ROWS = [  # (what is given, the words of the command, part of the sentence, exit code)
    # Options of a decode.
    ("--max-len-b below 0", lambda at: at.decode(max_len_b=-1), "leave no room for a translation",
     1),
    ("--max-len-a below 0", lambda at: at.decode(max_len_a=-0.5),
     "leave no room for a translation", 1),
    ("no length at all", lambda at: at.decode(max_len_b=0),
     "--max-len-a 0.0 and --max-len-b 0 leave no room", 1),
    ("--min-len above the limit", lambda at: at.decode(min_len=31),
     "leave no room for a translation of --min-len 31", 1),
    ("--lenpen nan", lambda at: at.decode(lenpen="nan"), "--lenpen is nan", 1),
    ("--lenpen inf", lambda at: at.decode(lenpen="inf"), "--lenpen is inf", 1),
    ("--temperature nan", lambda at: at.decode(temperature="nan"),
     "--temperature is nan, it must be positive", 1),
    ("--temperature inf", lambda at: at.decode(temperature="inf"),
     "--temperature is inf, it must be positive", 1),
    ("--beam 0", lambda at: at.decode(beam=0, nbest=0),
     "--nbest 0 and --beam 0 must be at least 1", 1),
    ("--nbest below 0", lambda at: at.decode(nbest=-1),
     "--nbest -1 and --beam 4 must be at least 1", 1),
    ("groups that do not divide the beam", lambda at: at.decode(diverse_beam_groups=3),
     "cannot be divided into", 1),
    ("--sampling-topk without --sampling", lambda at: at.decode(sampling_topk=5),
     "--sampling-topk requires --sampling", 1),
    ("--bf16 in a decode", lambda at: at.decode(bf16=True),
     "--bf16 and --amp have no effect in fairseq-generate", 1),
    ("--truncate-source", lambda at: at.decode(truncate_source=True), "change the sources", 1),
    ("--required-seq-len-multiple", lambda at: at.decode(required_seq_len_multiple=8),
     "moves the length limit of a search", 1),
    ("--prefix-size without targets", lambda at: at.decode(lacking_targets(at), prefix_size=1),
     "--prefix-size needs", 1),
    ("--score-reference without targets", lambda at: at.score(lacking_targets(at)),
     "--score-reference needs the targets", 1),
    ("--compute-type of fairseq", lambda at: at.decode(compute_type="int8"),
     "--compute-type is for --engine ctranslate2", 1),
    ("an ensemble in ctranslate2", lambda at:
     at.decode(teacher=f"{at.made['teacher']}:{at.made['teacher']}",
     engine="ctranslate2"), "with one model, not with an ensemble", 1),
    ("what ctranslate2 has not", lambda at: at.decode(engine="ctranslate2", no_repeat_ngram_size=2),
     "does not support --no-repeat-ngram-size", 1),
    ("a tokenizer of chrF", lambda at: at.decode(similarity="chrf", similarity_tokenizer="char"),
     "chrf takes none", 1),
    ("a tokenizer that is not installed", lambda at: at.decode(similarity_tokenizer="ja-mecab"),
     "pip install 'sacrebleu[ja]'",
     1),
    ("--filter-copy above 1", lambda at: at.decode(filter_copy=1.5),
     "--filter-copy is 1.5, it must be a share", 1),
    ("--filter-repeats 1", lambda at: at.decode(filter_repeats=1),
     "--filter-repeats is 1, it must be at least 2", 1),
    ("--filter-score above 0", lambda at: at.decode(filter_score=0.5),
     "--filter-score is 0.5, it must be a log-prob", 1),
    ("--filter-length-ratio nan", lambda at: at.decode(filter_length_ratio="nan"),
     "--filter-length-ratio is nan", 1),
    ("--topk below 0", lambda at: at.score(topk=-1), "--topk is -1, it must be at least 1", 1),
    ("--store-dtype of a search", lambda at: at.decode(store_dtype="float32"),
     "--store-dtype is for --score-reference", 1),
    ("a language of a teacher of one pair", lambda at: at.decode(teacher_target_lang="eng"),
     "are for multilingual teachers", 1),
    ("--model-overrides of half a dictionary", lambda at: at.decode(model_overrides="{"),
     "is no Python dictionary", 1),
    ("--post-process that fairseq has not", lambda at: at.decode(post_process="bpe"),
     "--post-process is 'bpe', which fairseq",
     1),
    ("two splits at once", lambda at: at.decode(gen_subset="train,valid"),
     "there is no split 'train,valid'", 1),
    ("two data directories", lambda at: at.decode(f"{at.made['tiny']}:{at.made['tiny']}"),
     "name one data directory", 1),
    # Gold data.
    ("no data directory", lambda at: at.decode(at / "absent"), "does not exist", 1),
    ("a file for a data directory", lambda at: at.decode(at.file("bin")), "does not exist", 1),
    ("an empty data directory", lambda at: at.decode(at.folder("bin")), "holds no binarised text",
     1),
    ("text that is not binarised", lambda at: at.decode(not_binarised(at)), "is not binarised", 1),
    ("half an index", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.idx", half)),
     "are damaged, or not of one", 1),
    ("less than an index's header", lambda at: at.decode(at.broken("tiny", "valid.de-en.en.idx",
     lambda content: content[:20])),
     "are damaged, or not of one split", 1),
    ("an empty index", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.idx", nothing)),
     "no index of fairseq's mmap", 1),
    ("a bit of an index's sizes", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.idx",
     flipped(SIZE_OF_SENTENCE_3))),
     "are damaged, or not of one split", 1),
    ("a bit of an index's addresses", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.idx",
     flipped(0.9))),
     "are damaged, or not of one split", 1),
    ("a bit of an index's version", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.idx",
     flipped(9))),
     "are damaged, or not of one split", 1),
    ("no index of the targets", lambda at: at.decode(at.broken("tiny", "valid.de-en.en.idx",
     absent)), "is missing, although", 1),
    ("no targets to an index", lambda at: at.decode(at.broken("tiny", "valid.de-en.en.bin",
     absent)), "is missing, although", 1),
    ("half the tokens", lambda at: at.decode(at.broken("tiny", "valid.de-en.en.bin", half)),
     "are damaged, or not of one", 1),
    ("no tokens", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.bin", nothing)),
     "is empty", 1),
    ("a token more", lambda at: at.score(at.broken("tiny", "valid.de-en.de.bin", lambda content:
     content + b"\4\0")),
     "are damaged, or not of one split", 1),
    ("a token that is no symbol", lambda at: at.decode(at.broken("tiny", "valid.de-en.de.bin",
     flipped(1, 128))),
     "ids that are no symbols of its dictionary", 1),
    ("a target that is no symbol", lambda at: at.evaluate(None, at.broken("tiny",
     "test.de-en.en.bin", flipped(1, 128))),
     "ids that are no symbols of its dictionary", 1),
    ("targets of another split", lambda at: at.decode(misaligned(at)),
     "more sentences on one side than on the other", 1),
    ("half an index to train on", lambda at: at.train(at.broken("tiny", "train.de-en.de.idx",
     half), criterion="word_kd",
     teacher_distributions=at.made["whole"]), "are damaged, or not of one split", 1),
    ("half an index beside a live teacher", lambda at: at.word_kd(data=at.broken("tiny",
     "train.de-en.de.idx", half)),
     "are damaged, or not of one split", 1),
    # Dictionaries.
    ("no dictionary", lambda at: at.decode(at.broken("tiny", "dict.de.txt", absent)),
     "dict.de.txt is missing", 1),
    ("an empty dictionary", lambda at: at.decode(at.broken("tiny", "dict.de.txt", nothing)),
     "the data's dictionary has 4", 1),
    ("a dictionary without counts", lambda at: at.decode(at.broken("tiny", "dict.en.txt",
     becomes(b"tree\n"))),
     "is damaged (Incorrect dictionary format", 1),
    ("a symbol twice", lambda at: at.decode(at.broken("tiny", "dict.de.txt", lambda content:
     content + b"Haus 1\n")),
     "is damaged (Duplicate word found", 1),
    ("a dictionary that is no UTF-8", lambda at: at.decode(at.broken("tiny", "dict.de.txt",
     becomes(b"Haus", b"H\xe4us"))),
     "is damaged (Incorrect encoding", 1),
    ("the same to evaluate on", lambda at: at.evaluate(None, at.broken("tiny", "dict.de.txt",
     becomes(b"Haus", b"H\xe4us"))),
     "is damaged (Incorrect encoding", 1),
    ("half a dictionary to evaluate on", lambda at: at.evaluate(None, at.broken("tiny",
     "dict.en.txt", half)), "is damaged", 1),
    ("a dictionary in another order, searched", lambda at: at.decode(at.broken("tiny",
     "dict.en.txt", reordered)), "symbol 4", 1),
    ("a dictionary in another order, scored", lambda at: at.score(at.broken("tiny", "dict.de.txt",
     reordered)), "symbol 4 is", 1),
    ("a dictionary in another order, trained", lambda at: at.word_kd(data=at.broken("tiny",
     "dict.de.txt", reordered)),
     "symbol 4 is", 1),
    ("a dictionary in another order, evaluated", lambda at: at.evaluate(None, at.broken("tiny",
     "dict.en.txt", reordered)),
     "symbol 4 is", 1),
    ("the gold split of a view", lambda at: at.train(at.made["distilled"] / "seq_kd",
     criterion="seq_kd", train_subset="valid"),
     "--train-subset is valid, but the teacher's translations", 1),
    ("a view the wrong way round", lambda at: at.train(at.made["distilled"] / "seq_inter",
     criterion="seq_inter",
     source_lang="en", target_lang="de"),
         "are de-en, but this training is for en-de; pass --source-lang de", 1),
    ("gold beside a view's targets", lambda at: at.train(at.with_gold("distilled",
     "train1") / "seq_kd", criterion="seq_kd"),
     "also holds 'train1', which is not from the teacher", 1),
    ("a temperature without a teacher", lambda at: at.train(at.made["distilled"] / "seq_kd",
     criterion="seq_kd", temperature=2),
     "--temperature 2.0 softens a teacher's distributions; pass one", 1),
    ("no split to train on under a live teacher", lambda at: at.train(train_subset="absent",
     criterion="word_kd",
     teacher_path=at.made["teacher"]), "there is no split 'absent'", 1),
    ("a dictionary in another order, stored teacher", lambda at: at.train(at.broken("tiny",
     "dict.en.txt", reordered),
     criterion="word_kd", teacher_distributions=at.made["whole"]), "other dictionaries", 1),
    ("a dictionary in another order, selected", lambda at: at.seqkd("select", at.made["distilled"],
     "--data",
     at.broken("tiny", "dict.en.txt", reordered), "-o", at / "new"), "is not the data-bin", 1),
    # Checkpoints.
    ("an empty teacher", lambda at: at.decode(teacher=at.teacher(nothing)),
     "is damaged or no checkpoint", 1),
    ("half a teacher", lambda at: at.word_kd(at.teacher(half)), "is damaged or no checkpoint", 1),
    ("a bit of a teacher's weights", lambda at: at.decode(teacher=at.teacher(flipped(0.7))),
     "is damaged or no checkpoint", 1),
    ("a bit of them to train with", lambda at: at.word_kd(at.teacher(flipped(0.7))),
     "is damaged or no checkpoint", 1),
    ("a bit of them to prune", lambda at: at.prune(at.teacher(flipped(0.7))),
     "is damaged or no checkpoint", 1),
    ("a bit of a teacher's structure", lambda at: at.evaluate(at.teacher(flipped(0.01))),
     "is damaged or no checkpoint", 1),
    ("text for a teacher", lambda at: at.decode(teacher=at.file("teacher.pt", b"weights\n")),
     "is damaged or no checkpoint", 1),
    ("a folder for a teacher", lambda at: at.decode(teacher=at.folder("teacher.pt")),
     "is a directory; name the checkpoint", 1),
    ("a checkpoint that carries code", lambda at: at.decode(teacher=at.changed(lambda state:
     state.update(extra_state=Code()))),
     "could run code when loaded", 1),
    ("a checkpoint without a model", lambda at: at.prune(at.changed(lambda state:
     state.pop("model"))), "holds no model", 1),
    ("a weight that is no number", lambda at: at.decode(teacher=at.changed(no_number)),
     "no better than guessing", 1),
    ("a teacher of the other direction", lambda at:
     at.decode(teacher=at.changed(reversed_languages)), "translates en-de", 1),
    ("the same to train with", lambda at: at.word_kd(at.changed(reversed_languages)),
     "translates en-de, the data are de-en", 1),
    ("the same to score with", lambda at: at.score(teacher=at.changed(reversed_languages)),
     "translates en-de, the data are", 1),
    ("sources beyond its positions", lambda at: at.word_kd(at.changed(six_positions)),
     "--max-source-positions 6", 1),
    ("the same to evaluate", lambda at: at.evaluate(at.changed(six_positions)), "source tokens", 1),
    ("embeddings that a teacher began with", lambda at:
     at.decode(teacher=at.changed(from_embeddings)),
     "was initialised with embeddings from absent.txt, which no longer exists", 1),
    ("one teacher of two is not there", lambda at:
     at.decode(teacher=f"{at.made['teacher']}:{at / 'b.pt'}"), "does not exist", 1),
    # Manifests.
    ("half a manifest", lambda at: at.text(at.broken("distilled", "manifest.json", half)),
     "manifest.json is damaged", 1),
    ("an empty manifest", lambda at: at.select(at.broken("distilled", "manifest.json", nothing)),
     "manifest.json is damaged", 1),
    ("a manifest that is no UTF-8", lambda at: at.text(at.broken("distilled", "manifest.json",
     becomes(b"beam", b"b\xe4m"))),
     "manifest.json cannot be read", 1),
    ("a bit of a manifest's braces", lambda at: at.seqkd("inspect", at.broken("distilled",
     "manifest.json", flipped(0))),
     "manifest.json is damaged", 1),
    ("a bit of a manifest's key", lambda at: at.seqkd("inspect", at.broken("distilled",
     "manifest.json",
     becomes(b'"settings"', b'"rettings"'))),
         "manifest.json is damaged (Object missing required field `settings`", 1),
    ("a bit of a manifest's plan", lambda at: at.select(at.broken("distilled", "manifest.json",
     becomes(b'"max_sentences"', b'"max_sendences"'))),
         "is damaged (Object missing required field `max_sentences` - at `$.settings.plan`)", 1),
    ("a bit of a manifest's search", lambda at: at.select(at.broken("distilled", "manifest.json",
     becomes(b'"lenpen": 1', b'"lenpen": 3'))), "is damaged (its signature is not its settings')",
         1),
    ("a bit of a manifest's engine", lambda at: at.select(at.broken("distilled", "manifest.json",
     becomes(b'"precision"', b'"pracision"'))),
         "is damaged (Object missing required field `precision` - at `$.settings.engine`)", 1),
    ("a bit of a manifest's parts", lambda at: at.seqkd("decode", "--workers", 1, at.made["tiny"],
     "--distill-dir",
     at.broken("begun", "manifest.json", becomes(b'"part_size"', b'"part_size!'))),
         "manifest.json is damaged", 1),
    ("a bit of a manifest's parts' name", lambda at: at.seqkd("decode", "--workers", 1,
     at.made["tiny"], "--distill-dir",
     at.broken("begun", "manifest.json", becomes(b'"part_size"', b'"part_sise"'))),
         "missing required field `part_size` - at `$.settings.plan`", 1),
    ("a bit of a manifest's language", lambda at: at.seqkd("inspect", at.broken("distilled",
     "manifest.json",
     becomes(b'"target_lang"', b'"target_lung"'))),
         "is damaged (Object missing required field `target_lang` - at `$.settings.data`)", 1),
    ("a bit of a manifest's similarity", lambda at: at.text(at.broken("distilled", "manifest.json",
     becomes(b'"post_process"', b'"post_qrocess"'))),
         "missing required field `post_process` - at `$.settings.similarity`)", 1),
    ("a bit of a manifest of distributions", lambda at: at.stored(becomes(b'"vocabulary"',
     b'"vocabulari"'), "manifest.json"),
     "missing required field `vocabulary` - at `$.settings.scoring`)", 1),
    ("a bit of a manifest's kind", lambda at: at.text(at.broken("distilled", "manifest.json",
     becomes(b'"distilled"', b'"dystilled"'))),
         "is damaged (Invalid value 'dystilled' - at `$.kind`)", 1),
    ("a bit of the data's hash", lambda at: at.select(at.broken("distilled", "manifest.json",
     becomes(b'"target_sha256": "', b'"target_sha256": "0'))), "is not the data-bin", 1),
    ("a manifest of another format", lambda at: at.text(at.broken("distilled", "manifest.json",
     becomes(b"fairseq_seqkd/1", b"fairseq_seqkd/9"))), "is not a manifest of format", 1),
    ("half a view's manifest", lambda at: at.train(at.broken("distilled", "seq_kd/manifest.json",
     half) / "seq_kd",
     criterion="seq_kd"), "manifest.json is damaged", 1),
    ("a view's manifest without its languages", lambda at: at.text(at.broken("distilled",
     "seq_kd/manifest.json",
     becomes(b'"source_lang"', b'"source_lung"'))),
         "is damaged (Object missing required field `source_lang`)", 1),
    ("a directory that is not finished", lambda at: at.text(at.made["begun"]), "is not finished",
     1),
    ("a manifest of the store of other sentences", lambda at: at.stored(becomes(b'"tokens": ',
     b'"tokens": 1'), "manifest.json"),
     "is not the file that its manifest describes", 1),
    # Views.
    ("gold under seq_kd", lambda at: at.train(criterion="seq_kd"),
     "holds no teacher's translations", 1),
    ("seq_kd under seq_inter", lambda at: at.train(at.made["distilled"] / "seq_kd",
     criterion="seq_inter"), "holds seq_kd", 1),
    ("a bit of a view's targets", lambda at: at.train(at.broken("distilled",
     "seq_kd/train.de-en.en.bin", flipped(0.5))
     / "seq_kd", criterion="seq_kd"), "its hash is not the manifest's", 1),
    ("a bit of a view's sources", lambda at: at.text(at.broken("distilled",
     "seq_kd/train.de-en.de.bin", flipped(0.5))),
     "its hash is not the manifest's", 1),
    ("a bit of a view's dictionary", lambda at: at.text(at.broken("distilled",
     "seq_kd/dict.en.txt", flipped(0.5))),
     "its hash is not the manifest's", 1),
    ("half a view's targets", lambda at: at.train(at.broken("distilled",
     "seq_inter/train.de-en.en.bin", half) / "seq_inter",
     criterion="seq_inter"), "is missing or has another size", 1),
    ("a view that is a file", lambda at: at.text(at.file("view")), "does not exist", 1),
    # Stores.
    ("half the n-best lists", lambda at: at.select(at.broken("distilled", NBestStore.NAME, half)),
     "is damaged", 1),
    ("a bit of the n-best lists' header", lambda at: at.select(at.broken("distilled",
     NBestStore.NAME, flipped(0, 128))),
     "is damaged", 1),
    ("a bit of the n-best lists", lambda at: at.select(at.broken("distilled", NBestStore.NAME,
     flipped(0.5))),
     "its hash is not the manifest's", 1),
    ("no n-best lists", lambda at: at.decode(at.made["tiny"], out=at.broken("distilled",
     NBestStore.NAME, absent),
     gen_subset="train", part_size=64),
         "says that it is complete, but hypotheses.safetensors is missing", 1),
    ("half of the distributions", lambda at: at.stored(half), "is damaged", 1),
    ("empty distributions", lambda at: at.stored(nothing), "is damaged", 1),
    ("no distributions", lambda at: at.stored(absent), "there is no", 1),
    ("a bit of the distributions' header", lambda at: at.stored(flipped(0, 128)), "is damaged", 1),
    ("a bit of the distributions", lambda at: at.stored(flipped(0.5)),
     "its hash is not the manifest's", 1),
    ("n-best lists for distributions", lambda at: at.stored(lambda _:
     (at.made["distilled"] / NBestStore.NAME).read_bytes()),
     "is not a store of distributions", 1),
    # Files of the other commands.
    ("half a compressed file", lambda at: at.seqkd("restore", compressed_file(at, half), "-o",
     at / "x.pt"), "is damaged, or no file of this version", 1),
    ("an empty compressed file", lambda at: at.seqkd("restore", at.file("a.compressed"), "-o",
     at / "x.pt"), "is damaged, or no file of this version", 1),
    ("a bit of a compressed file's header", lambda at: at.seqkd("restore", compressed_file(at,
     flipped(0, 128)), "-o", at / "x.pt"),
     "is damaged, or no file of this version", 1),
    ("a bit of a compressed file", lambda at: at.seqkd("restore", compressed_file(at,
     flipped(0.9)), "-o", at / "x.pt"),
     "is damaged, or no file of this version", 1),
    ("empty results", lambda at: at.seqkd("report", at.file("r.json")), "is not JSON", 1),
    ("results that are a list", lambda at: at.seqkd("report", at.file("r.json", b"[]")),
     "holds no results", 1),
    ("results that are no UTF-8", lambda at: at.seqkd("report", at.file("r.json",
     b'{"results": "\xff"}')), "is not JSON", 1),
    ("results of other data", lambda at: at.evaluate(None, None, "-o", at.file("r.json",
     LONG_AGO)), "measured on other data", 1),
    ("half the results", lambda at: at.evaluate(None, None, "-o", at.file("r.json",
     half(LONG_AGO))), "is not JSON", 1),
    ("text that is no UTF-8 to compare on", lambda at: at.seqkd("export", at.made["teacher"],
     "--check",
     at.file("text", b"rot H\xe4us\n"), "-o", at / "x"), "is not UTF-8 text", 1),
    ("half a deployed folder's settings", lambda at: at.seqkd("translate", at.file("seqkd.json",
     b'{"format": 1').parent),
     "seqkd.json is damaged", 1),
    # Options of the other commands.
    ("evaluate --max-len-b below 0", lambda at: at.evaluate(None, None, "--max-len-b", -1),
     "leave no room", 1),
    ("evaluate on a split without targets", lambda at: at.evaluate(None, lacking_targets(at),
     "--split", "valid"), "no en", 1),
    ("--sparsity 0", lambda at: at.prune(sparsity=0), "--sparsity is 0.0", 1),
    ("--sparsity 1", lambda at: at.prune(sparsity=1), "--sparsity is 1.0", 1),
    ("--sparsity nan", lambda at: at.prune(sparsity="nan"), "--sparsity is nan", 1),
    ("--exclude of everything", lambda at: at.prune(None, "-o", at / "x.pt", "--exclude", "*"),
     "no matrix left to prune", 1),
    ("bench --rounds 0", lambda at: at.seqkd("bench", "a.pt", "--data", "bin", "--rounds", 0),
     "--rounds is 0", 1),
    ("bench --beams 1,1", lambda at: at.seqkd("bench", "a.pt", "--data", "bin", "--beams", "1,1"),
     "--beams is '1,1'", 1),
    ("bench of one name", lambda at: at.seqkd("bench", "A=a.pt", "A=b.pt", "--data", "bin"),
     "two models are named A", 1),
    ("bench of an engine that is none", lambda at: at.seqkd("bench", at.made["teacher"], "--data",
     "bin", "--engines", "marian"),
     "'marian' is none of", 1),
    ("export --beam 0", lambda at: at.seqkd("export", at.made["teacher"], "--beam", 0, "-o",
     at / "x"), "--beam is 0", 1),
    ("translate --threads 0", lambda at: at.seqkd("translate", at.here, "--threads", 0),
     "--threads is 0", 1),
    ("translate with a folder of others", lambda at: at.seqkd("translate", at.here),
     "was not written by `seqkd export`", 1),
    ("bench of an engine twice", lambda at: at.seqkd("bench", "a.pt", "--data", "bin", "--engines",
     "fairseq,fairseq"),
     "names an engine twice", 1),
    ("inspect --ids of a raised figure", lambda at: at.seqkd("inspect", at.made["distilled"],
     "--ids", "²"), "--ids is '²'", 1),
    ("inspect --ids of words", lambda at: at.seqkd("inspect", at.made["distilled"], "--ids",
     "one"), "--ids is 'one'", 1),
    ("inspect --ids beyond the last", lambda at: at.seqkd("inspect", at.made["distilled"], "--ids",
     "509"), "no sentence 509", 1),
    ("inspect --differ 0", lambda at: at.seqkd("inspect", at.made["distilled"], "--differ", 0),
     "--differ is 0", 1),
    ("select --nbest 5 of 4", lambda at: at.select(None, "--nbest", 5),
     "--nbest is 5, it must be between 1 and 4", 1),
    ("report of what is not there", lambda at: at.seqkd("report", at / "absent.json"),
     "absent.json; `seqkd evaluate` and", 1),
    ("text over a file", lambda at: at.text(None, "-o", at.file("train.en").with_suffix("")),
     "exists; name another PREFIX", 1),
    # Where things go.
    ("a file for --distill-dir", lambda at: at.decode(out=at.file("out", b"years of work")),
     "cannot be used", 1),
    ("--distill-dir below a file", lambda at: at.decode(out=at.file("file") / "out"),
     "cannot be used", 1),
    ("--distill-dir a link to nowhere", lambda at: at.decode(out=at.link("out", at / "absent")),
     "cannot be used", 1),
    ("--distill-dir in a loop of links", lambda at: at.decode(out=at.link("out",
     at / "out") / "in"), "cannot be read", 1),
    ("--distill-dir a manifest that is a folder", lambda at:
     at.decode(out=at.folder("out/manifest.json").parent),
     "manifest.json cannot be read", 1),
    ("--distill-dir the data-bin", lambda at: at.decode(out=shutil.copytree(at.made["tiny"],
     at / "bin")), "name a new or", 1),
    ("--distill-dir a view", lambda at:
     at.decode(out=shutil.copytree(at.made["distilled"] / "seq_kd", at / "v")),
     "holds something else (view)", 1),
    ("--distill-dir distributions", lambda at: at.decode(out=shutil.copytree(at.made["whole"],
     at / "D"), gen_subset="train"),
     "holds something else (distributions)", 1),
    ("select into what is read", lambda at: at.select(None, "-o", at.made["distilled"]),
     "are the same directory", 1),
    ("a folder for -o", lambda at: at.prune(None, "-o", at.here), "is a directory; name a file", 1),
    ("-o in a folder that is not there", lambda at: at.seqkd("compress", at.made["teacher"], "-o",
     at / "a" / "b"), "make it", 1),
    ("-o below a file", lambda at: at.text(None, "-o", at.file("file") / "train"),
     "its folder does not exist", 1),
    ("a file for --cache", lambda at: at.evaluate(None, None, "--cache", at.file("cache")),
     "name another folder with --cache", 1),
    ("export over a folder of others", lambda at: at.seqkd("export", at.made["teacher"],
     "--no-subwords", "-o", at.folder("x")),
     "`seqkd export` did not write it", 1),
    ("decode --workers 0", lambda at: at.seqkd("decode", "--workers", 0, at.made["tiny"],
     "--distill-dir", at / "out"),
     "--workers is 0", 1),
]
# fmt: on


@pytest.mark.parametrize(
    "words, sentence, code", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_it_is_refused_in_one_sentence_and_nothing_is_touched(at, words, sentence, code):
    command = words(at)
    before = around(at.here)
    done = run(*command)
    said = refusal(done)
    assert sentence in said and done.returncode == code
    assert said.isprintable() and len(said) < 700
    assert around(at.here) == before


def test_no_two_rows_have_one_name():
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 60


# Parts: those that are cut are done again, others stop the run, and name the file.


def one_longer(content):
    """A part whose first hypothesis says that it is a token longer, or shorter, than it is."""
    from safetensors.numpy import load, save

    arrays = load(content)
    arrays["lengths"][0] ^= 1
    return save(arrays)


@pytest.mark.parametrize(
    "change",
    [half, nothing, flipped(0, 128), flipped(9), absent],
    ids=["half", "nothing", "length", "header", "absent"],
)
def test_a_part_that_is_cut_is_done_again(at, distilled_valid, change):
    out = at.broken("begun", "parts/000002.part", change)
    assert run(*at.decode(out=out)).returncode == 0
    assert folders.tree(out) == folders.tree(distilled_valid)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (one_longer, "its arrays do not fit together"),
        (flipped(0.9), "its checksum is another"),
        (
            lambda content: content.replace(b'"scores"', b'"scored"'),
            "is not a part of an n-best store",
        ),
    ],
)
def test_a_part_that_is_damaged_otherwise_stops_the_run_until_it_is_removed(
    at, distilled_valid, change, sentence
):
    out = at.broken("begun", "parts/000002.part", change)
    before = folders.tree(out)
    said = refusal(run(*at.decode(out=out)))
    assert sentence in said and str(out / "parts" / "000002.part") in said
    assert folders.tree(out) == before
    (out / "parts" / "000002.part").unlink()
    assert run(*at.decode(out=out)).returncode == 0
    assert folders.tree(out) == folders.tree(distilled_valid)


# Disks that are full, read-only, or gone. What is finished is whole, and the same command goes on.


@contextlib.contextmanager
def full_disk(size):
    """No file grows beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = [  # (what is written, the words of the command, bytes that fit, what is there in the end)
    ("n-best lists", lambda at: at.decode(), 3000, "out"),
    ("distributions", lambda at: at.score(topk=8), 3000, "out"),
    ("other views", lambda at: at.select(), 20_000, "new"),
    ("text", lambda at: at.text(), 5000, "text.de"),
    ("a pruned checkpoint", lambda at: at.prune(), 50_000, "pruned.pt"),
    (
        "a compressed file",
        lambda at: at.seqkd("compress", at.made["teacher"], "-o", at / "a.compressed"),
        50_000,
        "a.compressed",
    ),
    (
        "a restored checkpoint",
        lambda at: at.seqkd("restore", compressed_file(at, bytes), "-o", at / "a.pt"),
        50_000,
        "a.pt",
    ),
]


@pytest.mark.parametrize(
    "words, size, made", [row[1:] for row in FULL], ids=[row[0] for row in FULL]
)
def test_a_full_disk_leaves_nothing_by_halves_and_the_command_goes_on(at, words, size, made):
    command = words(at)
    with full_disk(size):
        done = run(*command)
    said = refusal(done)
    assert "cannot be written: File too large" in said and done.returncode == 1
    assert not (at / made).is_file() and not list(at.here.rglob("*.partial"))
    assert run(*command).returncode == 0 and (at / made).exists()
    if made == "new":
        assert folders.tree(at / made) == folders.tree(at.made["distilled"])


def test_a_full_disk_under_a_decode_changes_no_byte(at, distilled_valid):
    with full_disk(3000):
        assert run(*at.decode()).returncode == 1
    assert run(*at.decode()).returncode == 0
    assert folders.tree(at / "out") == folders.tree(distilled_valid)


@pytest.mark.parametrize(
    "out, code, said",
    [("/dev/full", 1, ["standard output cannot be written: No space left"]), (None, 0, [])],
)
def test_standard_output_is_full_or_nobody_reads_it(distilled, out, code, said):
    command = [sys.executable, "-m", "fairseq_seqkd", "inspect", str(distilled / "seq_kd")]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody, Path(out or os.devnull).open("wb") as file:
        stdout = file if out else nobody
        done = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment_with()
        )
    lines = done.stderr.splitlines()
    assert done.returncode == code and len(lines) == len(said)
    assert all(
        line.startswith("fairseq_seqkd: ") and sentence in line
        for line, sentence in zip(lines, said)
    )


@pytest.fixture
def read_only(tmp_path):
    """A folder in which nobody may write, not even root."""
    folder = tmp_path / "read only"
    folder.mkdir()
    mounted = os.geteuid() == 0
    if (
        mounted
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("root may write everywhere, and a disk cannot be mounted here")
    folder.chmod(0o500) if not mounted else None
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)
    else:
        folder.chmod(0o700)


READ_ONLY = [
    ("n-best lists", lambda at, folder: at.decode(out=folder / "out"), "cannot be used"),
    ("n-best lists in the folder itself", lambda at, folder: at.decode(out=folder), "cannot be"),
    (
        "other views",
        lambda at, folder: at.seqkd(*at.select()[1:5], "-o", folder / "new"),
        "cannot be used",
    ),
    ("text", lambda at, folder: at.text(None, "-o", folder / "train"), "cannot be written"),
    (
        "a pruned checkpoint",
        lambda at, folder: at.prune(None, "-o", folder / "a.pt"),
        "cannot be written",
    ),
    (
        "results",
        lambda at, folder: at.evaluate(None, None, "-o", folder / "results.json"),
        "cannot be written",
    ),
    (
        "a cache",
        lambda at, folder: at.evaluate(None, None, "--cache", folder / "cache"),
        "cannot be written",
    ),
]


@pytest.mark.parametrize(
    "words, sentence", [row[1:] for row in READ_ONLY], ids=[row[0] for row in READ_ONLY]
)
def test_a_folder_that_is_read_only(at, read_only, words, sentence):
    done = run(*words(at, read_only))
    said = refusal(done)
    assert (
        sentence in said
        and ("Read-only" in said or "Permission denied" in said)
        and done.returncode == 1
    )
    assert not around(at.here)


def test_a_directory_that_vanishes_stops_the_run_and_it_begins_anew(
    at, distilled_valid, monkeypatch
):
    begin_part, begun = NBestRecorder.begin_part, []

    def vanish(self, first):
        begun.append(first)
        if len(begun) == 2:
            shutil.rmtree(at / "out")
        begin_part(self, first)

    monkeypatch.setattr(NBestRecorder, "begin_part", vanish)
    done = run(*at.decode())
    assert "out" in refusal(done) and done.returncode == 1
    assert run(*at.decode()).returncode == 0
    assert folders.tree(at / "out") == folders.tree(distilled_valid)


def test_data_that_vanish_stop_the_run_before_a_view_is_there(at, distilled_valid, monkeypatch):
    data = shutil.copytree(at.made["tiny"], at / "tiny")
    begin_part = NBestRecorder.begin_part
    monkeypatch.setattr(
        NBestRecorder,
        "begin_part",
        lambda self, first: (shutil.rmtree(data, True), begin_part(self, first)),
    )
    done = run(*at.decode(data))
    assert "is missing by now; put it back" in refusal(done) and done.returncode == 1
    assert not list((at / "out").glob("seq_*")) and not manifests.read(at / "out")["complete"]
    monkeypatch.undo()
    shutil.copytree(at.made["tiny"], data)
    assert run(*at.decode(data)).returncode == 0
    assert folders.tree(at / "out") == folders.tree(distilled_valid)


@pytest.mark.parametrize(
    "when", ["while it is decoded", "while it is scored", "while it is copied"]
)
def test_gold_that_is_binarised_anew_meanwhile_is_in_no_view(at, monkeypatch, when):
    """Its targets would be of one dictionary, and the dictionary that lies beside them another."""
    data = shutil.copytree(at.made["tiny"], at / "tiny")

    def binarised_anew():
        file = data / "dict.de.txt"
        lines = at.made["tiny"].joinpath(file.name).read_text().splitlines(keepends=True)
        file.write_text("".join([lines[1], lines[0], *lines[2:]]))

    where, method = {
        "while it is decoded": (NBestRecorder, "begin_part"),
        "while it is scored": (DistributionRecorder, "begin_part"),
        "while it is copied": (views, "copy_gold"),
    }[when]
    before = getattr(where, method)
    monkeypatch.setattr(where, method, lambda *args: (binarised_anew(), before(*args)))
    done = run(*(at.score if when == "while it is scored" else at.decode)(data))
    assert (
        f"tiny has changed since {at / 'out'} was begun" in refusal(done) and done.returncode == 1
    )
    assert not list((at / "out").glob("seq_*")) and not manifests.read(at / "out")["complete"]


# Places that are odd and no bad ones: the same bytes are there in the end.


def linked_data(at):
    return at.decode(at.link("bin", at.made["tiny"]), at.link("teacher.pt", at.made["teacher"]))


def windows_dictionary(at):
    """Its bytes are others, and so is its hash; its symbols are not."""
    data = at.broken("tiny", "dict.de.txt", lambda content: content.replace(b"\n", b"\r\n"))
    return at.decode(data)


PLACES = [
    ("links to data and teacher", linked_data, "out"),
    (
        "a link to an empty folder",
        lambda at: at.decode(out=at.link("out", at.folder("elsewhere"))),
        "elsewhere",
    ),
    (
        "spaces and quotes",
        lambda at: at.decode(out=at / 'it\'s "new" $HOME `x` *'),
        'it\'s "new" $HOME `x` *',
    ),
    ("folders to be made", lambda at: at.decode(out=at / "a" / "b" / "c"), "a/b/c"),
    ("a slash in the end", lambda at: at.decode(out=f"{at / 'out'}/"), "out"),
    (
        "other scripts",
        lambda at: at.decode(out=at / "مخرجات ผลลัพธ์ 出力 🎓"),
        "مخرجات ผลลัพธ์ 出力 🎓",
    ),
    ("a new line", lambda at: at.decode(out=at / "two\nlines"), "two\nlines"),
    ("a hidden file beside", lambda at: at.decode(out=at.file(".keep").parent), "."),
]


@pytest.mark.parametrize("words, made", [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_an_odd_place_holds_what_any_other_does(at, distilled_valid, words, made):
    assert run(*words(at)).returncode == 0
    found = folders.tree(at / made, ignore=(".lock", ".keep", "decoding.log"))
    assert found == folders.tree(distilled_valid)


def test_a_dictionary_with_windows_line_ends_has_the_same_symbols(at, distilled_valid):
    assert run(*windows_dictionary(at)).returncode == 0
    ours, theirs = folders.tree(at / "out"), folders.tree(distilled_valid)
    assert ours[NBestStore.NAME] == theirs[NBestStore.NAME]
    assert ours["seq_kd/valid.de-en.en.bin"] == theirs["seq_kd/valid.de-en.en.bin"]
    assert (
        manifests.read(at / "out")["settings"]["data"]
        != manifests.read(distilled_valid)["settings"]["data"]
    )


def test_a_view_that_is_a_link_is_read_and_not_followed_for_writing(at):
    """Its text goes where it is told to; the folder that the link leads to stays as it is."""
    view = at.link("view", at.made["distilled"] / "seq_kd")
    assert run(*at.text(view)).returncode == 0
    assert run(*at.text(view, "-o", at / "a 'quoted' name")).returncode == 0
    assert (at / "a 'quoted' name.en").read_bytes() == (at / "text.en").read_bytes()


# Text that is odd and no bad one. The toy teacher has learnt a little of all of it.

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one picture of five characters
# What it is: (lines of the sources, of the targets, {reason: sentences that the manifest lists}).
ODD = {
    "empty lines": (["", "rot Haus", ""], ["", "", "red ."], {}),
    "only unknown words": (["qqq", "qqq zzz qqq"], ["zzz .", "zzz"], {}),
    "a source of 10,000 tokens": (
        ["rot Haus", "rot " * 10_000, "Haus"],
        ["red .", "red .", "."],
        {"source_too_long": [1]},
    ),
    "a target of 10,000 tokens": (["rot Haus", "Haus"], ["red " * 10_000, "red ."], {}),
    "Arabic": (
        ["\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 .", "\u0627\u0644\u0628\u064a\u062a"],
        ["red .", "\u0628\u064a\u062a ."],
        {},
    ),
    "marks of direction": (
        ["\u200f\u05e9\u05dc\u05d5\u05dd\u200e 1", "\u202bab\u202c"],
        ["\u2067a\u2069 .", "red ."],
        {},
    ),
    "Thai": (
        ["\u0e1a\u0e49\u0e32\u0e19\u0e2a\u0e35\u0e41\u0e14\u0e07", "\u0e19\u0e49\u0e33"],
        ["\u0e19\u0e49\u0e33 .", "red ."],
        {},
    ),
    "Japanese": (
        ["\u8d64\u3044\u5bb6\u3002", "\u5bb6\u3000\u5bb6"],
        ["\u8d64\u3044\u5bb6\u3002", "red ."],
        {},
    ),
    "emoji": (
        [f"{FAMILY} \U0001f1ef\U0001f1f5", "\U0001f44d\U0001f3fd rot"],
        [f"{FAMILY} .", "\U0001f44d\U0001f3fd ."],
        {},
    ),
    "accents of their own": (["e\u0301te\u0301", "\xe9t\xe9"], ["e\u0301 .", "\xe9 ."], {}),
    "Windows line ends": (["rot Haus\r", "rot\r"], ["red .\r", "red\r"], {}),
    "a byte order mark": (["\ufeffrot Haus", "rot"], ["\ufeffred .", "red ."], {}),
    "other spaces": (
        ["rot\xa0Haus\u2003rot\tHaus ", " rot\u2028Haus"],
        ["red\x85.", "\u3000red ."],
        {},
    ),
    "quotes and escapes": (
        ["\"rot\" 'Haus' \\ %s {} $x", "&quot; <b>"],
        ['\\n "red" .', "`red` ."],
        {},
    ),
    "names of special symbols": (["<unk> rot", "rot @-@ ##Haus"], ["<unk> .", "red ."], {}),
}


def written(path, lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def lines_of(path):
    return path.read_bytes().decode().split("\n")[:-1]


def plain(line):
    """A line as it comes back: a space between words, and unknown ones marked."""
    words = [word if word not in ("qqq", "zzz") else "<unk>" for word in line.split()]
    return " ".join(words)


def sentences(kind):
    """The ids of a kind's sentences in the split of all kinds, one kind after the other."""
    kinds_of_text = list(ODD)
    first = sum(len(ODD[before][0]) for before in kinds_of_text[: kinds_of_text.index(kind)])
    return range(first, first + len(ODD[kind][0]))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with the decode (out/), the distributions (D/), the text of the views and of gold,
    of all kinds of odd text.
    """
    home = tmp_path_factory.mktemp("odd")
    known = [
        pair
        for kind in ODD
        if "10,000" not in kind and "unknown" not in kind
        for pair in zip(*ODD[kind][:2])
    ]
    for side, lang in enumerate(("xx", "ja")):
        written(
            home / f"train.{lang}",
            [pair[side] for pair in [*known, ("<unk> rot", "<unk> red .")] * 8],
        )
        written(home / f"valid.{lang}", [line for kind in ODD.values() for line in kind[side]])
    prefixes = {
        "trainpref": home / "train",
        "validpref": home / "valid",
        "testpref": home / "valid",
        "destdir": home / "bin",
    }
    done = run(
        "fairseq-preprocess",
        *toys.flags({"source-lang": "xx", "target-lang": "ja", "workers": 1, **prefixes}),
    )
    assert done.returncode == 0, done.stdout
    toys.train(home / "bin", home, criterion="cross_entropy", max_epoch=12, disable_validation=True)
    place, teacher = Place(home), home / "checkpoint_last.pt"
    for command in (
        place.decode(home / "bin", teacher, beam=3, nbest=3, max_len_b=8, part_size=7),
        place.score(home / "bin", teacher, home / "D", topk=4, part_size=7),
        *(
            place.text(home / "out", "--view", view, "-o", home / view)
            for view in ("seq_kd", "seq_inter")
        ),
        place.text(home / "out", "--split", "test", "-o", home / "gold"),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout
    return home


@pytest.mark.parametrize("kind", ODD)
def test_odd_text_is_decoded_and_comes_back(odd, kind):
    (sources, targets, reasons), ids = ODD[kind], sentences(kind)
    content, store = manifests.read(odd / "out"), NBestStore(odd / "out")
    assert content["complete"] and content["sentences"] == len(store) == sum(
        len(lines) for lines, _, _ in ODD.values()
    )
    too_long = content["listed"]["source_too_long"]
    assert [i - ids[0] for i in too_long if i in ids] == reasons.get("source_too_long", [])
    assert content["counts"]["source_too_long"] == len(too_long)
    assert [len(store[i]) for i in ids] == [0 if i in too_long else 3 for i in ids]
    kept, rows = (
        [i for i in ids if i not in too_long],
        np.load(odd / "out" / "seq_kd" / "rows.npy").tolist(),
    )
    dictionary = load_dictionary(odd / "bin" / "dict.ja.txt")
    for view, best in (
        ("seq_kd", lambda nbest: 0),
        ("seq_inter", lambda nbest: np.argmax([h.similarity for h in nbest])),
    ):
        assert manifests.read(odd / "out" / view)["rows"] == len(rows) == len(store) - len(too_long)
        found = {lang: lines_of(odd / f"{view}.{lang}") for lang in ("xx", "ja")}
        assert [found["xx"][rows.index(i)] for i in kept] == [
            plain(sources[i - ids[0]]) for i in kept
        ]
        expected = [
            " ".join(dictionary[token] for token in store[i][best(store[i])].tokens) for i in kept
        ]
        assert [found["ja"][rows.index(i)] for i in kept] == expected
    output, reference = (
        Detokeniser(dictionary, unknown=of) for of in (UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE)
    )
    gold = load_indexed_dataset(str(odd / "bin" / "valid.xx-ja.ja"), None, "mmap")
    for i in kept:  # Japanese is compared by characters
        expected = [sentence_bleu(output(h.tokens), reference(gold[i]), "char") for h in store[i]]
        assert [h.similarity for h in store[i]] == pytest.approx(expected, abs=1e-3)
    for lang, lines in (("xx", sources), ("ja", targets)):
        assert lines_of(odd / f"gold.{lang}")[ids.start : ids.stop] == [*map(plain, lines)]


def test_odd_targets_are_scored(odd):
    """As many tokens as they have words, each with its EOS; what is longer than the teacher's
    positions is listed.
    """
    content, store = manifests.read(odd / "D"), DistributionStore(odd / "D")
    words = [[len(line.split()) for kind in ODD.values() for line in kind[side]] for side in (0, 1)]
    too_long = [i for i, pair in enumerate(zip(*words)) if max(pair) > 1023]
    assert content["complete"] and content["listed"]["too_long"] == too_long and len(too_long) == 2
    tokens = sum(n + 1 for i, n in enumerate(words[1]) if i not in too_long)
    assert (
        content["counts"] == {"too_long": 2, "tokens": tokens} and len(store) == len(words[0]) - 2
    )
    assert (
        store.tokens_stored == tokens
        and np.isfinite(np.asarray(store.per_token.target_log_probs, np.float32)).all()
    )
