#!/usr/bin/env python3
"""Make teacher.pt, the trained teacher that tests/robustness/test_recorded_bytes.py decodes with.

The teacher is trained as the `teacher` fixture of the tests is, on the corpus of make_tiny.py.
What depends on the machine that trained it is then taken out: folders, times and the optimizer's
state. The weights are kept in float16. A teacher that another processor trains has other bytes,
so record the hashes again after making it:

    python make_teacher.py teacher.pt
    SEQKD_RECORD=1 python -m pytest ../robustness/test_recorded_bytes.py
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "support"))

import toys  # noqa: E402

DATA = "data-bin"  # where the checkpoint says that its training data were
SAVE_DIR = "checkpoints"


def train(folder: Path) -> Path:
    """Train the teacher in a folder and return its checkpoint."""
    text = folder / "text"
    subprocess.run([sys.executable, Path(__file__).with_name("make_tiny.py"), text], check=True)
    toys.binarise(text, folder / "bin")
    languages = {"source-lang": "de", "target-lang": "en"}
    toys.train(folder / "bin", folder / "trained", toys.TEACHER, languages)
    return folder / "trained" / "checkpoint_last.pt"


def neutral(state: dict) -> dict:
    """Return a checkpoint's state without folders, times, meters and the optimizer's state."""
    configuration = state["cfg"]
    configuration["common"]["user_dir"] = None
    configuration["checkpoint"]["save_dir"] = SAVE_DIR
    configuration["task"]["data"] = DATA
    model = configuration["model"]
    model.user_dir, model.save_dir, model.data = None, SAVE_DIR, DATA
    configuration["common"]["plasma_path"] = model.plasma_path = "plasma"
    kept = {key: state["extra_state"][key] for key in ("train_iterator", "val_loss")}
    return {
        **state,
        "model": {name: tensor.half() for name, tensor in state["model"].items()},
        "extra_state": kept,
        "last_optimizer_state": None,
    }


def main(out: Path) -> None:
    """Train a teacher and write its checkpoint to a file."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = train(Path(folder))
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(checkpoint, weights_only=True)
        with out.open("wb") as file:  # given a path, torch would store the file's name
            torch.save(neutral(state), file)
        if folder.encode() in out.read_bytes() or str(TESTS.parent).encode() in out.read_bytes():
            raise SystemExit(f"{out} names a folder of this machine")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
