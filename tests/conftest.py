"""Fixtures that cost seconds and are made once: the tiny data-bin, its teacher, and the teacher's decode of it."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import helpers  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data-bin of the toy language, made by fairseq-preprocess, with separate dictionaries."""
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([sys.executable, helpers.ROOT / "tests/data/make_tiny.py", folder / "text"], check=True)
    text = {split: folder / "text" / split for split in ("train", "valid", "test")}
    options = {"source-lang": "de", "target-lang": "en", "destdir": folder / "bin", "workers": 1}
    prefixes = {"trainpref": text["train"], "validpref": text["valid"], "testpref": text["test"]}
    helpers.command("fairseq-preprocess", *helpers.flags(options, prefixes))
    return folder / "bin"


@pytest.fixture(scope="session")
def teacher(tiny, tmp_path_factory):
    """The checkpoint of a teacher that has learnt the toy language, trained with fairseq's own criterion."""
    folder = tmp_path_factory.mktemp("teacher")
    helpers.train(tiny, folder, criterion="cross_entropy", max_epoch=30, dropout=0.1, disable_validation=True)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def distilled(tiny, teacher, tmp_path_factory):
    """The finished directory of an undisturbed decode by one process."""
    folder = tmp_path_factory.mktemp("decode") / "distilled"
    helpers.decode(tiny, teacher, folder)
    return folder


@pytest.fixture(scope="session")
def whole(tiny, teacher, tmp_path_factory):
    """The teacher's whole distributions on the toy training set, in full precision: what the live teacher says."""
    folder = tmp_path_factory.mktemp("whole") / "D"
    helpers.score(tiny, teacher, folder, topk=helpers.EVERYTHING, store_dtype="float32")
    return folder
