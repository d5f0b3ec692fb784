"""Views: their rows, the splits beside them, and memory that does not grow with the corpus."""

import tracemalloc

import numpy as np
import pytest

from fairseq_seqkd.corpus import manifest, mmap_format, views
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection import choose

PART = 1000


def make_gold(folder, sentences):
    """A gold data-bin of random ids, written a part at a time."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for lang in ("de", "en"):
        (folder / f"dict.{lang}.txt").write_text("".join(f"w{i} 1\n" for i in range(96)))
        with mmap_format.Writer(folder / f"train.de-en.{lang}", np.uint16) as writer:
            for _ in range(0, sentences, PART):
                sizes = rng.integers(2, 9, PART)
                writer.add(rng.integers(4, 100, sizes.sum()), sizes)
    return Split(folder, "train", LanguagePair("de", "en"))


def make_parts(folder, sentences, nbest=3):
    """Makes parts of random hypotheses; sentence 5 of each has none. Returns their paths."""
    folder.mkdir()
    rng, paths = np.random.default_rng(2), []
    for part in range(sentences // PART):
        counts = np.full(PART, nbest, np.uint16)
        counts[5] = 0
        total = int(counts.sum())
        lengths = rng.integers(0, 9, total).astype(np.int32)
        floats = {
            key: rng.random(total, np.float32) for key in ("scores", "log_probs", "similarity")
        }
        tokens = rng.integers(4, 100, lengths.sum()).astype(np.uint16)
        arrays = {
            "counts": counts,
            "lengths": lengths,
            "tokens": tokens,
            "hit_limit": np.zeros(total, np.uint8),
            **floats,
        }
        paths.append(folder / f"{part:06d}.part")
        Block(**arrays).write(paths[-1])
    return paths


def finish(folder, sentences):
    """Peak memory, in bytes, of making the store and both views from parts."""
    folder.mkdir()
    gold, parts = make_gold(folder / "bin", sentences), make_parts(folder / "parts", sentences)
    tracemalloc.start()
    NBestStore.merge(parts, folder / NBestStore.NAME)
    store = NBestStore(folder)
    choosers = {manifest.SEQ_KD: choose.mode, manifest.SEQ_INTER: choose.nearest_to_gold}
    choices = []
    for view, ranks_of in choosers.items():
        ranks = np.full(len(store), -1, np.int32)
        for first, block in store.blocks():
            ranks[first : first + len(block)] = ranks_of(block)
        rows = int((ranks >= 0).sum())
        content = manifest.ViewManifest(
            view=view,
            signature="",
            split="train",
            source_lang="de",
            target_lang="en",
            rows=rows,
            left_out=len(store) - rows,
        )
        choices.append(views.Choice(content, ranks))
    views.build(folder, choices, store, gold, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_corpus_but_for_a_few_bytes_a_sentence(tmp_path):
    small, large = finish(tmp_path / "small", 5 * PART), finish(tmp_path / "large", 40 * PART)
    assert (large - small) / (35 * PART) < 30
    assert views.check_view(tmp_path / "large" / "seq_kd", "seq_kd").left_out == 40
    rows = np.load(tmp_path / "large" / "seq_kd" / views.ROWS)
    assert len(rows) == 40 * (PART - 1) and not (rows % PART == 5).any()


def test_valid_and_test_go_with_a_view_however_their_pair_is_spelled(tmp_path):
    """fairseq reads valid.en-de.* for de-en as well as valid.de-en.*."""
    gold = make_gold(tmp_path / "bin", PART)
    for name in (
        "valid.en-de.de.bin",
        "valid.en-de.en.bin",
        "test.de-en.de.idx",
        "valid.de-fr.de.bin",
        "more.de-en.de.bin",
    ):
        (gold.folder / name).touch()
    (tmp_path / "out").mkdir()
    views.copy_gold(gold, tmp_path / "out")
    names = {
        "dict.de.txt",
        "dict.en.txt",
        "valid.en-de.de.bin",
        "valid.en-de.en.bin",
        "test.de-en.de.idx",
    }
    assert {file.name for file in (tmp_path / "out").iterdir()} == names


def test_rows_of_a_view_are_golds_sources_and_the_chosen_hypotheses(tmp_path):
    finish(tmp_path / "x", PART)
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    def side(folder, lang):
        return MMapIndexedDataset(str(tmp_path / "x" / folder / f"train.de-en.{lang}"))

    store, rows = (
        NBestStore(tmp_path / "x"),
        np.load(tmp_path / "x" / "seq_inter" / views.ROWS),
    )
    gold, source, target = side("bin", "de"), side("seq_inter", "de"), side("seq_inter", "en")
    assert len(source) == len(target) == len(rows) == PART - 1
    for row, sentence in enumerate(rows.tolist()):
        assert source[row].tolist() == gold[sentence].tolist()
        best = max(store[sentence], key=lambda h: h.similarity)
        assert target[row].tolist() == [*best.tokens.tolist(), 2]


def test_views_appear_together_or_not_at_all(tmp_path, monkeypatch):
    """Gold that changes while the last view is copied leaves no view."""
    copy_gold, copied = views.copy_gold, []

    def change_gold(gold, out):
        assert gold.hashes  # computed before, as a decode does when it begins
        copied.append(out)
        if len(copied) == 2:
            (gold.folder / "dict.en.txt").write_text("other 1\n")
        copy_gold(gold, out)

    monkeypatch.setattr(views, "copy_gold", change_gold)
    with pytest.raises(Refusal, match="has changed since"):
        finish(tmp_path / "x", PART)
    assert len(copied) == 2 and not list((tmp_path / "x").glob("*seq_*"))


def test_all_views_are_written_in_one_pass_over_the_store(tmp_path, monkeypatch):
    blocks, passes = NBestStore.blocks, []
    monkeypatch.setattr(NBestStore, "blocks", lambda self: passes.append(1) or blocks(self))
    finish(tmp_path / "x", PART)
    assert len(passes) == 2 + 1  # `finish` makes two to choose
