"""What is on disk: files that are whole or absent, fairseq's index format, the plan, the store,
manifests and text.
"""

import contextlib
import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.corpus import array_files, mmap_format
from fairseq_seqkd.corpus import detokenise as text
from fairseq_seqkd.corpus.atomic import whole_file, whole_folder
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.corpus.plan import Plan, make_plan, part_size
from fairseq_seqkd.errors import Refusal

SENTENCES = st.lists(st.lists(st.integers(4, 60_000), max_size=12), max_size=20)


# files.py


def test_a_file_that_fails_on_the_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"new, but")
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old" and [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_disk_error_is_one_sentence(tmp_path):
    with pytest.raises(Refusal, match="cannot be written"), whole_file(
        tmp_path / "absent" / "file"
    ):
        pass


def test_a_folder_takes_the_place_of_the_old_one_or_not_at_all(tmp_path):
    for content in ("one", "two"):
        with whole_folder(tmp_path / "view") as folder:
            (folder / "file").write_text(content)
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "view") as folder:
        (folder / "file").write_text("three")
        1 / 0  # noqa: B018
    assert (tmp_path / "view" / "file").read_text() == "two" and [
        f.name for f in tmp_path.iterdir()
    ] == ["view"]


def test_a_lock_is_held_by_one(tmp_path):
    with lock(tmp_path / "lock") as first, lock(tmp_path / "lock") as second:
        assert first and not second
    with lock(tmp_path / "lock") as again:
        assert again


# databin.py


@pytest.mark.trap(22)
@given(sentences=SENTENCES, vocabulary=st.sampled_from([60_001, 70_000]))
@settings(max_examples=25, deadline=None)
def test_the_writer_writes_fairseqs_bytes(tmp_path_factory, sentences, vocabulary):
    from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder, best_fitting_int_dtype

    folder = tmp_path_factory.mktemp("writer")
    builder = MMapIndexedDatasetBuilder(
        str(folder / "theirs.bin"), dtype=best_fitting_int_dtype(vocabulary)
    )
    with mmap_format.Writer(folder / "ours", mmap_format.token_dtype(vocabulary)) as writer:
        for sentence in sentences:
            builder.add_item(torch.tensor(sentence, dtype=torch.long))
        for start in range(0, len(sentences), 3):
            part = sentences[start : start + 3]
            writer.add(np.array([token for s in part for token in s]), [len(s) for s in part])
    builder.finalize(str(folder / "theirs.idx"))
    for ending in (".bin", ".idx"):
        assert (folder / f"ours{ending}").read_bytes() == (folder / f"theirs{ending}").read_bytes()


def test_a_split_that_is_not_there_is_named_with_those_that_are(tiny):
    with pytest.raises(Refusal, match="no split 'dev'.*test, train, valid"):
        Split(tiny, "dev", LanguagePair("de", "en"))


def test_a_split_is_found_in_either_direction(tiny):
    assert (
        Split(tiny, "train", LanguagePair("de", "en")).spelling
        == Split(tiny, "train", LanguagePair("en", "de")).spelling
        == "de-en"
    )


# plan.py


@pytest.mark.trap(19)
@given(
    lengths=st.lists(st.integers(1, 40), max_size=150),
    size=st.integers(1, 60),
    max_tokens=st.integers(1, 90),
    max_sentences=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_every_sentence_is_in_one_batch_of_its_part(lengths, size, max_tokens, max_sentences):
    plan, lengths, longest = (
        Plan(len(lengths), size, max_tokens, max_sentences),
        np.array(lengths, np.int32),
        30,
    )
    seen = []
    for part in range(plan.parts):
        first, last = plan.bounds(part)
        mine = lengths[first:last]
        for batch in plan.batches(part, mine, mine <= longest):
            assert 1 <= len(batch) <= max_sentences and first <= batch.min() and batch.max() < last
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= max_tokens
            seen += batch.tolist()
    assert sorted(seen) == np.flatnonzero(lengths <= longest).tolist()


def test_a_disk_that_fills_while_parts_are_joined_is_no_damaged_part(tmp_path, monkeypatch):
    """Whoever reads the sentence must not remove good parts."""

    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        flush = fileno = None

    part, nbest = tmp_path / "0.part", [Hypothesis(np.arange(4, 9), -1.0, -2.0, False)]
    Block.from_lists([nbest], np.dtype(np.uint16), False).write(part)
    monkeypatch.setattr(Path, "open", lambda self, *mode: contextlib.nullcontext(Full()))
    with pytest.raises(Refusal, match="cannot be written: No space left"):
        NBestStore.merge([part], tmp_path / NBestStore.NAME)


def test_a_part_that_another_worker_has_removed_is_a_refusal(tmp_path):
    """Where locks do not work it may have finished in between; `finish` then looks again."""
    with pytest.raises(Refusal, match="is missing"):
        NBestStore.merge([tmp_path / "absent.part"], tmp_path / NBestStore.NAME)


def test_sizes_of_parts():
    assert part_size(100) == 1024 and part_size(1_000_000) == 4096 and part_size(100_000) == 1563
    assert part_size(100_000, wanted=7) == 7
    assert make_plan(0).parts == 0 and make_plan(1025).parts == 2


# nbest_store.py

NBEST = st.lists(
    st.builds(
        Hypothesis,
        st.lists(st.integers(0, 65_000), max_size=6).map(
            lambda tokens: np.array(tokens, np.uint16)
        ),
        st.floats(-50, 0, width=32),
        st.floats(-50, 0, width=32),
        st.booleans(),
        st.floats(0, 100, width=32),
        st.floats(0, 100, width=32),
    ),
    max_size=4,
)


def plain(nbests):
    return [
        [
            (h.tokens.tolist(), h.score, h.log_prob, h.hit_limit, h.similarity, h.consensus)
            for h in nbest
        ]
        for nbest in nbests
    ]


@given(parts=st.lists(st.lists(NBEST, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_what_is_stored_comes_back(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("store")
    paths = [folder / f"{i}.part" for i in range(len(parts))]
    for path, nbests in zip(paths, parts):
        Block.from_lists(
            nbests, np.dtype(np.uint16), with_similarity=True, with_consensus=True
        ).write(path)
        block = Block.read(path)
        assert plain(block.nbest(i) for i in range(len(block))) == plain(nbests)
    NBestStore.merge(paths, folder / NBestStore.NAME)
    store, everything = NBestStore(folder), [nbest for part in parts for nbest in part]
    assert len(store) == len(everything) and store.has_similarity
    assert plain(store[i] for i in range(len(store))) == plain(everything)
    assert plain(b.nbest(i) for _, b in store.blocks() for i in range(len(b))) == plain(everything)
    with pytest.raises(IndexError):
        store[len(store)]


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_damaged_part_is_refused_or_fits_together(tmp_path_factory, position, flip, cut):
    folder = tmp_path_factory.mktemp("damaged")
    nbest = [Hypothesis(np.array([4, 5, 6], np.uint16), -1.0, -2.0, False, 50.0)] * 3
    path = folder / "0.part"
    Block.from_lists([nbest, nbest[:1], []], np.dtype(np.uint16), True).write(path)
    content = bytearray(path.read_bytes())
    position %= len(content)
    if cut:
        content = content[:position]
    else:
        content[position] ^= flip
    path.write_bytes(content)
    try:
        block = Block.read(path)
    except Refusal as refused:
        assert str(path) in refused.sentence
    else:
        plain(block.nbest(i) for i in range(len(block)))


def test_parts_with_other_arrays_are_not_merged(tmp_path):
    nbest = [Hypothesis(np.array([4], np.uint16), -1.0, -2.0, False, 50.0)]
    for i, with_similarity in enumerate((True, False)):
        Block.from_lists([nbest], np.dtype(np.uint16), with_similarity).write(
            tmp_path / f"{i}.part"
        )
    with pytest.raises(Refusal, match="other arrays"):
        NBestStore.merge([tmp_path / "0.part", tmp_path / "1.part"], tmp_path / NBestStore.NAME)
    assert not (tmp_path / NBestStore.NAME).exists()


def test_a_header_that_lies_is_refused(tmp_path):
    header = json.dumps(
        {"counts": {"dtype": "U16", "shape": [1 << 40], "data_offsets": [0, 1 << 41]}}
    ).encode()
    (tmp_path / "0.part").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(Refusal, match="damaged"):
        Block.read(tmp_path / "0.part")


# text.py


@pytest.fixture
def dictionary():
    from fairseq.data import Dictionary

    built = Dictionary()
    for symbol in ("\u2581the", "\u2581cat", "s", ".", "ho@@", "use"):
        built.add_symbol(symbol)
    return built


@pytest.mark.parametrize("post_process", [None, "sentencepiece", "@@ ", "subword_nmt"])
@pytest.mark.parametrize("tokens", [[4, 5, 6, 7, 2], [8, 9, 4], [], [2], [9, 8, 2]])
def test_text_is_fairseqs_text(dictionary, tokens, post_process):
    expected = dictionary.string(torch.tensor(tokens, dtype=torch.long), post_process)
    assert text.Detokeniser(dictionary, post_process)(tokens) == expected


def test_unknown_words_are_words(dictionary):
    assert text.Detokeniser(dictionary, "sentencepiece")([4, 3, 5]) == "the<unk> cat"
    sides = [
        text.Detokeniser(dictionary, unknown=word)
        for word in (text.UNKNOWN_IN_OUTPUT, text.UNKNOWN_IN_REFERENCE)
    ]
    assert sides[0]([3]) != sides[1]([3])  # or a metric would reward a word that nobody knows


def test_subwords_are_recognised_by_their_symbols(dictionary, tiny):
    from fairseq.data import Dictionary

    assert text.guess_post_process(dictionary) == "sentencepiece"
    assert text.guess_post_process(Dictionary.load(str(tiny / "dict.en.txt"))) == "@@ "
    assert text.guess_post_process(Dictionary.load(str(tiny / "dict.de.txt"))) is None


@pytest.mark.parametrize(
    "make",
    [np.asfortranarray, lambda a: a[:, :1], lambda a: a[::2], lambda a: a[:0]],
    ids=["F", "cut", "step", "none"],
)
def test_arrays_that_lie_otherwise_in_memory_are_written_as_they_are(make, tmp_path):
    array = make(np.arange(12, dtype=np.float16).reshape(4, 3))
    array_files.write(tmp_path / "file", {"x": array})
    assert np.array_equal(array_files.read(tmp_path / "file")["x"], array)
