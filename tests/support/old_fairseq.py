"""What works with the official fairseq 0.12.2 on Python 3.10, on data that were distilled
elsewhere: recipes/compat.sh py310.

No module of the ordinary tests: SEQKD_TOY names a folder with bin/, teacher/, distilled/ and
distributions/.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY, PLUGIN = (
    Path(os.environ["SEQKD_TOY"]),
    Path(__file__).resolve().parents[2] / "fairseq_seqkd",
)
LAYERS = {"layers": 1, "embed-dim": 32, "ffn-embed-dim": 64, "attention-heads": 2}
TRAIN = [
    "--arch",
    "transformer",
    "--optimizer",
    "adam",
    "--lr",
    "0.005",
    "--max-tokens",
    "1000",
    "--seed",
    "1",
    "--cpu",
]
TRAIN += [
    "--required-batch-size-multiple",
    "1",
    "--num-workers",
    "0",
    "--no-epoch-checkpoints",
    "--max-epoch",
    "2",
]
TRAIN += [
    word
    for s in ("encoder", "decoder")
    for name, value in LAYERS.items()
    for word in (f"--{s}-{name}", str(value))
]


def run(name, *words):
    command = [str(Path(sys.executable).parent / name), *map(str, words), "--user-dir", str(PLUGIN)]
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    "more", [[], ["--teacher-distributions", TOY / "distributions"]], ids=["plain", "stored"]
)
def test_students_learn_from_what_was_distilled_elsewhere(tmp_path, more):
    import fairseq

    assert fairseq.__version__ == "0.12.2"
    done = run(
        "fairseq-train",
        TOY / "distilled" / "seq_kd",
        *TRAIN,
        "--criterion",
        "seq_kd",
        "--save-dir",
        tmp_path,
        *more,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "checkpoint_last.pt").is_file() and ("kd_loss" in done.stdout) == bool(more)


@pytest.mark.parametrize("view", ["seq_inter", "bin"])
def test_another_kind_of_data_is_refused(tmp_path, view):
    data = TOY / "bin" if view == "bin" else TOY / "distilled" / view
    done = run("fairseq-train", data, *TRAIN, "--criterion", "seq_kd", "--save-dir", tmp_path)
    assert (
        done.returncode == 1 and "fairseq_seqkd: " in done.stdout and "Traceback" not in done.stdout
    )


def test_a_checkpoint_is_refused_because_it_cannot_be_loaded_safely(tmp_path):
    words = [
        "--task",
        "teacher_decoding",
        "--path",
        TOY / "teacher" / "checkpoint_last.pt",
        "--gen-subset",
        "train",
    ]
    done = run(
        "fairseq-generate",
        TOY / "bin",
        *words,
        "--beam",
        4,
        "--nbest",
        4,
        "--distill-dir",
        tmp_path / "d",
        "--cpu",
    )
    assert done.returncode == 1 and "cannot load checkpoints safely" in done.stdout, done.stdout[
        -2000:
    ]
    assert "Traceback" not in done.stdout and not (tmp_path / "d").exists()
