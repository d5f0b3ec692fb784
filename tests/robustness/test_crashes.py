"""Two hundred crashes: signals at random moments and I/O errors at random writes, then the same command again, bit for bit.

Decoding, storing distributions, pruning, exporting and reporting. After a crash what is there under a final name must be what
an undisturbed run leaves, or absent; after the second run everything must be.
"""

import builtins
import errno
import io
import json
import os
import random
import shutil
import signal
import time

import fairseq_cli.generate  # noqa: F401  (loaded once, before the forks)
import helpers
import pytest
from measurements import result

import fairseq_seqkd
from fairseq_seqkd import cli

fairseq_seqkd.register()
pytestmark = pytest.mark.slow

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
ROUNDS = {"decode": 60, "distributions": 50, "prune": 40, "export": 20, "report": 30}
BESIDE = (".lock", "decoding.log")  # may differ between two runs


class Writes:
    """Counts the writes to files under a folder, of this process, and fails the n-th."""

    def __init__(self, folder, fail=None):
        self.folder, self.fail, self.count = str(folder), fail, 0

    def step(self):
        self.count += 1
        if self.count == self.fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def install(self):
        really, sendfile, self_ = io.open, os.sendfile, self

        def opened(file, mode="r", *args, **more):
            made = really(file, mode, *args, **more)
            if (
                not isinstance(file, int)
                and str(file).startswith(self_.folder)
                and set(mode) & set("wax+")
            ):
                write = made.write

                def counted(content):
                    self_.step()
                    return write(content)

                try:
                    made.write = counted
                except (
                    AttributeError
                ):  # a buffered writer lets its methods be replaced in a class of its own only
                    made = Counted(made, self_)
            return made

        def sent(*args):
            self_.step()
            return sendfile(*args)

        io.open = builtins.open = opened
        os.sendfile = sent


class Counted:
    """A file whose writes are counted."""

    def __init__(self, file, writes):
        self._file, self._writes = file, writes

    def write(self, content):
        self._writes.step()
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __iter__(self):
        return iter(self._file)


def begin(command, folder, fail=None):
    """Runs a command in a fork, its output in folder/said and the number of its writes in folder/writes."""

    def run():
        writes = Writes(folder / "out", fail)
        writes.install()
        name, *words = command
        try:
            return cli.main(words) if name == "seqkd" else helpers.generate(words)
        finally:
            os.write(
                os.open(folder / "writes", os.O_WRONLY | os.O_CREAT), str(writes.count).encode()
            )

    return helpers.fork(run, folder / "said")


@pytest.fixture(params=ROUNDS)
def action(request, tiny, teacher, tmp_path):
    """(rounds, command, whether a crash may leave part of it that a later run continues)."""
    out, name = tmp_path / "out", request.param
    out.mkdir()
    if name == "decode":
        command = ["fairseq-generate", *helpers.decode_command(tiny, teacher, out / "distilled")]
    elif name == "distributions":
        command = [
            "fairseq-generate",
            *helpers.decode_command(tiny, teacher, out / "stored", **helpers.SCORING),
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
        for name, content in helpers.tree(folder, BESIDE).items()
        if ".partial" not in name
    }


def test_crashes(action, tmp_path):
    rounds, command, continues = action
    rng = random.Random(rounds)
    begun = time.monotonic()
    assert helpers.wait(begin(command, tmp_path)) == 0, (tmp_path / "said").read_text()
    duration = time.monotonic() - begun
    undisturbed, writes = contents(tmp_path / "out"), int((tmp_path / "writes").read_text())
    assert undisturbed and writes
    crashed = 0
    for turn in range(rounds):
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
        how = [*SIGNALS, "error"][turn % 4]
        child = begin(command, tmp_path, fail=rng.randint(1, writes) if how == "error" else None)
        if how != "error":
            time.sleep(rng.uniform(0, duration))
            os.kill(child, SIGNALS[how])
        code = helpers.wait(child)
        said = (
            (tmp_path / "said").read_text(errors="replace") if (tmp_path / "said").exists() else ""
        )
        crashed += code != 0
        if how == "error" and code == 0:  # the log of who worked when may lack a line
            assert contents(tmp_path / "out") == undisturbed, turn
        elif how == "error":
            assert code == 1 and "Traceback" not in said and said.count("fairseq_seqkd: ") >= 1, (
                turn,
                code,
                said[-2000:],
            )
        found = contents(tmp_path / "out")
        if not continues:  # a file that has its name is whole
            assert all(found[name] == undisturbed[name] for name in found), (turn, how)
        code = helpers.wait(begin(command, tmp_path))
        assert code == 0, (turn, how, (tmp_path / "said").read_text()[-2000:])
        assert contents(tmp_path / "out") == undisturbed, (turn, how)
    assert crashed > rounds / 2  # else the signals came too late to show anything
