"""Data-bins: language pairs, the hashes of a split, and the splits that fairseq-train joins."""

import numpy as np
import pytest

from fairseq_seqkd.corpus.databin import LanguagePair, Split, further_splits, training_splits
from fairseq_seqkd.corpus.mmap_format import Writer
from fairseq_seqkd.errors import Refusal

PAIR = LanguagePair("de", "en")


def write_side(folder, name, tokens=(5, 2), sentences=3):
    with Writer(folder / name, np.uint16) as writer:
        for _ in range(sentences):
            writer.add(np.array(tokens), [len(tokens)])


@pytest.fixture
def data(tmp_path):
    for language in PAIR:
        (tmp_path / f"dict.{language}.txt").write_text("a 1\nb 1\n")
        write_side(tmp_path, f"train.de-en.{language}")
    return tmp_path


def test_a_language_pair_is_printed_as_in_the_names_of_files():
    assert str(PAIR) == f"{PAIR}" == "de-en" and PAIR.spellings == ("de-en", "en-de")


def test_a_split_is_hashed_once_and_a_change_shows_when_it_is_checked(data):
    split = Split(data, "train", PAIR)
    before = split.hashes
    split.check_unchanged("out")
    (data / "dict.en.txt").write_text("b 1\na 1\n")
    assert split.hashes is before and split.has_hashes(before)
    with pytest.raises(Refusal, match="has changed since out was begun"):
        split.check_unchanged("out")
    assert not Split(data, "train", PAIR).has_hashes(before)


@pytest.mark.parametrize("side", ["source", "target"])
def test_each_side_has_a_hash_of_its_own(data, side):
    before = Split(data, "train", PAIR).hashes
    write_side(data, f"train.de-en.{getattr(PAIR, side)}", tokens=(4, 2))
    after = Split(data, "train", PAIR).hashes
    changed = [name for name in before._fields if getattr(before, name) != getattr(after, name)]
    assert changed == [f"{side}_sha256"]


def test_data_that_are_gone_are_missing_rather_than_changed(data):
    split = Split(data, "train", PAIR)
    assert split.hashes
    (data / "train.de-en.de.bin").unlink()
    with pytest.raises(Refusal, match="train.de-en.de.bin is missing by now"):
        split.check_unchanged("out")


def test_a_split_without_targets_has_no_hash_of_them(data):
    for file in data.glob("train.de-en.en.*"):
        file.unlink()
    split = Split(data, "train", PAIR)
    assert split.has("de") and not split.has("en") and split.hashes.target_sha256 is None
    split.check_unchanged("out")


def test_sides_of_different_lengths_are_refused(data):
    write_side(data, "train.de-en.en", sentences=4)
    with pytest.raises(Refusal, match="more sentences on one side"):
        Split(data, "train", PAIR)


def test_further_splits_are_counted_until_one_is_missing(data):
    for name in ("train1.de-en", "train2.en-de", "train4.de-en"):
        for language in PAIR:
            write_side(data, f"{name}.{language}")
    assert further_splits(data, "train", PAIR) == ["train1", "train2"]
    splits = training_splits(data, "train", PAIR)
    assert [split.name for split in splits] == ["train", "train1", "train2"]
    assert splits[2].spelling == "en-de"


def test_ids_beyond_a_dictionary_are_refused(data):
    split = Split(data, "train", PAIR)
    split.check_symbols((6, 6))
    with pytest.raises(Refusal, match="no symbols of its dictionary, which has 5"):
        split.check_symbols((6, 5))
