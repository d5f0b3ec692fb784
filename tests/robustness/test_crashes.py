"""Two hundred crashes: signals at random moments and I/O errors at random writes, then the same
command again, bit for bit.

Decoding, storing distributions, pruning, exporting and reporting. After a crash what is there under
a final name must be what an undisturbed run leaves, or absent; after the second run everything must
be.
"""

import json
import os
import random
import shutil
import signal
import time

import folders
import pytest
import toys
from commands import start_process
from measurements import result

pytestmark = pytest.mark.slow

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
ROUNDS = {"decode": 60, "distributions": 50, "prune": 40, "export": 20, "report": 30}
BESIDE = (".lock", "decoding.log")  # may differ between two runs


def begin(command, folder, fail=None):
    """Starts a command; the number of its writes comes to folder/writes when it ends by itself."""
    name, *words = command
    prepare = f"""
import failing_writes
failing_writes.FailingWrites({str(folder / "out")!r}, {fail}, {str(folder / "writes")!r}).install()
"""
    return start_process(name, *words, prepare=prepare)


@pytest.fixture(params=ROUNDS)
def action(request, tiny, teacher, tmp_path):
    """(rounds, command, whether a crash may leave part of it that a later run continues)."""
    out, name = tmp_path / "out", request.param
    out.mkdir()
    if name == "decode":
        command = ["fairseq-generate", *toys.decode_command(tiny, teacher, out / "distilled")]
    elif name == "distributions":
        command = [
            "fairseq-generate",
            *toys.decode_command(tiny, teacher, out / "stored", **toys.SCORING),
        ]
    elif name == "prune":
        command = ["seqkd", "prune", teacher, "--sparsity", "0.5", "-o", out / "pruned.pt"]
    elif name == "export":
        words = [
            "--to",
            "ctranslate2",
            "--data",
            tiny,
            "--no-subwords",
            "--force",
            "-o",
            out / "folder",
        ]
        command = ["seqkd", "export", teacher, *words]
    else:
        found = [
            result("Student"),
            result("Seq-KD", bleu_greedy=20.5),
            result("Seq-KD 80%", nonzero_params=200_000),
        ]
        (tmp_path / "results.json").write_text(json.dumps({"results": found}))
        outputs = [
            word for kind in ("md", "json", "html") for word in ("-o", out / f"report.{kind}")
        ]
        command = [
            "seqkd",
            "report",
            tmp_path / "results.json",
            *outputs,
            "--plot",
            out / "pruning.svg",
        ]
    return ROUNDS[name], [str(word) for word in command], name in ("decode", "distributions")


def contents(folder):
    """What is there under final names."""
    return {
        name: content
        for name, content in folders.tree(folder, BESIDE).items()
        if ".partial" not in name
    }


def test_crashes(action, tmp_path):
    rounds, command, continues = action
    rng = random.Random(rounds)
    begun = time.monotonic()
    undisturbed_run = begin(command, tmp_path)
    printed = undisturbed_run.communicate()
    assert undisturbed_run.returncode == 0, printed
    duration = time.monotonic() - begun
    undisturbed, writes = contents(tmp_path / "out"), int((tmp_path / "writes").read_text())
    assert undisturbed and writes
    crashed = 0
    for turn in range(rounds):
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
        crash = [*SIGNALS, "error"][turn % 4]
        fail = rng.randint(1, writes) if crash == "error" else None
        process = begin(command, tmp_path, fail)
        if crash != "error":
            time.sleep(rng.uniform(0, duration))
            if process.poll() is None:
                os.kill(process.pid, SIGNALS[crash])
        printed = process.communicate()
        code = process.returncode
        crashed += code != 0
        if crash == "error" and code == 0:  # the log of who worked when may lack a line
            assert contents(tmp_path / "out") == undisturbed, turn
        elif crash == "error":
            assert code == 1 and "Traceback" not in printed, (turn, printed[-2000:])
            assert printed.count("fairseq_seqkd: ") >= 1, (turn, printed[-2000:])
        after = contents(tmp_path / "out")
        if not continues:  # a file that has its name is whole
            assert all(after[name] == undisturbed[name] for name in after), (turn, crash)
        again = begin(command, tmp_path)
        printed = again.communicate()
        assert again.returncode == 0, (turn, crash, printed[-2000:])
        assert contents(tmp_path / "out") == undisturbed, (turn, crash)
    assert crashed > rounds / 2  # else the signals came too late to show anything
