"""Makes what costs seconds once a session: the toy data-bin, its teacher, and what it decodes.

The toy language has a split of 509 sentences to train on, and two of about 50.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
os.environ["OMP_NUM_THREADS"] = "1"  # the last bits of sums depend on the number of threads

import toys  # noqa: E402
import traps  # noqa: E402


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that `make` fills once, in whichever process of pytest-xdist comes first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    folder = factory.getbasetemp().parent / f"shared-{name}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / ".made").touch()
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker of the tests of fairseq's traps."""
    config.addinivalue_line("markers", traps.MARKER)


@pytest.hookimpl(tryfirst=True)  # before slow tests are deselected
def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Checks that the traps have tests. Puts the longest test first, not alone at the end."""
    traps.check(items, Path(__file__).parent)
    items.sort(key=lambda item: "quickstart_goes_from_text" not in item.name)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Gives `seqkd evaluate` a cache of this session, here and in the commands that it starts."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`shared(name, make)` returns the folder `name`, which `make` fills once in a session."""
    return functools.partial(once, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny(shared: Callable[..., Path]) -> Path:
    """A data-bin of the toy language, with separate dictionaries."""

    def make(folder: Path) -> None:
        script = Path(__file__).parent / "data" / "make_tiny.py"
        subprocess.run([sys.executable, script, folder / "text"], check=True)
        toys.binarise(folder / "text", folder / "bin")

    return shared("tiny", make) / "bin"


@pytest.fixture(scope="session")
def teacher(tiny: Path, shared: Callable[..., Path]) -> Path:
    """The checkpoint of a teacher that has learnt the toy language."""
    folder = shared("teacher", lambda folder: toys.train(tiny, folder, toys.TEACHER))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def second_teacher(tiny: Path, shared: Callable[..., Path]) -> Path:
    """The checkpoint of a weaker teacher with the same vocabulary, for ensembles."""
    options = {**toys.TEACHER, "dropout": None, "max-epoch": 4, "seed": 7}
    folder = shared("second-teacher", lambda folder: toys.train(tiny, folder, options))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def lstm_teacher(tiny: Path, shared: Callable[..., Path]) -> Path:
    """The checkpoint of a teacher of another architecture."""
    options = {**toys.LSTM, **toys.TEACHER, "dropout": None, "max-epoch": 8}
    folder = shared("lstm-teacher", lambda folder: toys.train(tiny, folder, options))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def distilled(tiny: Path, teacher: Path, shared: Callable[..., Path]) -> Path:
    """The finished directory of a decode by one process."""
    name = "distilled"
    return shared("decode", lambda folder: toys.decode(tiny, teacher, folder / name)) / name


@pytest.fixture(scope="session")
def distilled_valid(tiny: Path, teacher: Path, shared: Callable[..., Path]) -> Path:
    """The finished directory of a decode of the validation split, 53 sentences in four parts."""

    def make(folder: Path) -> None:
        toys.decode(tiny, teacher, folder / "distilled", gen_subset="valid", part_size=16)

    return shared("decode-valid", make) / "distilled"


@pytest.fixture(scope="session")
def whole(tiny: Path, teacher: Path, shared: Callable[..., Path]) -> Path:
    """The teacher's distributions on the training set: every symbol, in full precision."""

    def make(folder: Path) -> None:
        options = {"topk": toys.EVERYTHING, "store_dtype": "float32"}
        toys.score(tiny, teacher, folder / "distributions", **options)

    return shared("whole", make) / "distributions"
