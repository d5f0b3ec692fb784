"""Fixtures that cost seconds and are made once: the tiny data-bin, its teacher, and the teacher's decode of it."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

import helpers  # noqa: E402


def once(tmp_path_factory, name, make):
    """A folder that is made once, by whichever of pytest-xdist's processes comes first. Args: make: folder -> None."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tmp_path_factory.mktemp(name)
        make(folder)
        return folder
    folder = tmp_path_factory.getbasetemp().parent / f"shared-{name}"
    with (folder.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / ".made").touch()
    return folder


def pytest_collection_modifyitems(items):
    """The longest test first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: "quickstart_goes_from_text" not in item.name)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache of this run's own for `seqkd evaluate`, in this process and in the commands that it starts."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data-bin of the toy language, made by fairseq-preprocess, with separate dictionaries."""

    def make(folder):
        subprocess.run(
            [sys.executable, helpers.ROOT / "tests/data/make_tiny.py", folder / "text"], check=True
        )
        text = {split: folder / "text" / split for split in ("train", "valid", "test")}
        options = {
            "source-lang": "de",
            "target-lang": "en",
            "destdir": folder / "bin",
            "workers": 1,
        }
        prefixes = {
            "trainpref": text["train"],
            "validpref": text["valid"],
            "testpref": text["test"],
        }
        helpers.command("fairseq-preprocess", *helpers.flags(options, prefixes))

    return once(tmp_path_factory, "tiny", make) / "bin"


@pytest.fixture(scope="session")
def teacher(tiny, tmp_path_factory):
    """The checkpoint of a teacher that has learnt the toy language, trained with fairseq's own criterion."""
    options = {
        "criterion": "cross_entropy",
        "max-epoch": 30,
        "dropout": 0.1,
        "disable-validation": True,
    }
    return (
        once(tmp_path_factory, "teacher", lambda folder: helpers.train(tiny, folder, options))
        / "checkpoint_last.pt"
    )


@pytest.fixture(scope="session")
def distilled(tiny, teacher, tmp_path_factory):
    """The finished directory of an undisturbed decode by one process."""
    return (
        once(
            tmp_path_factory,
            "decode",
            lambda folder: helpers.decode(tiny, teacher, folder / "distilled"),
        )
        / "distilled"
    )


@pytest.fixture(scope="session")
def whole(tiny, teacher, tmp_path_factory):
    """The teacher's whole distributions on the toy training set, in full precision: what the live teacher says."""
    options = {"topk": helpers.EVERYTHING, "store_dtype": "float32"}
    return (
        once(
            tmp_path_factory,
            "whole",
            lambda folder: helpers.score(tiny, teacher, folder / "D", **options),
        )
        / "D"
    )
