"""Helpers of the benchmarks: watched processes of one thread, and the name of the machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def flags(options):
    """{"cpu": True, "beam": 5, "topk": None} -> ["--cpu", "--beam", "5"]."""
    found = []
    for key, value in options.items():
        if value is True:
            found.append(f"--{key}")
        elif value is not None:
            found += [f"--{key}", str(value)]
    return found


class Tail:
    """The lines that a growing file has gained since the last look."""

    def __init__(self, path):
        self.file, self.rest = path.open(errors="replace"), ""

    def lines(self):
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        return lines


def watched(commands, folder, seen):
    """Run commands side by side and wait for all; `seen(time, line)` gets every printed line.

    Returns the largest resident memory of one of them, in bytes.
    """
    outputs = [folder / f"{i}.out" for i in range(len(commands))]
    running = [
        subprocess.Popen(command, stdout=out.open("w"), stderr=subprocess.STDOUT, env=environment())
        for command, out in zip(commands, outputs)
    ]
    tails, ended, largest = [Tail(out) for out in outputs], {}, 0
    while len(ended) < len(running):
        time.sleep(0.005)
        for process in running:
            if process.pid not in ended:
                found, status, usage = os.wait4(process.pid, os.WNOHANG)
                if found:
                    ended[process.pid] = os.waitstatus_to_exitcode(status)
                    process.returncode = ended[
                        process.pid
                    ]  # it is gone: Popen must not wait for it
                    largest = max(largest, usage.ru_maxrss * 1024)
        now = time.monotonic()
        for tail in tails:
            for line in tail.lines():
                seen(now, line)
    for process, out in zip(running, outputs):
        if ended[process.pid]:
            failed(commands[0], out.read_text(errors="replace"))
    return largest


def failed(command, output):
    raise SystemExit(
        f"{Path(sys.argv[0]).stem}: {' '.join(map(str, command))} failed:\n{output[-2000:]}"
    )


def check_paths(*paths):
    for path in paths:
        if not Path(path).exists():
            raise SystemExit(
                f"{Path(sys.argv[0]).stem}: {path} does not exist; "
                "run recipes/quickstart.sh first, or name DATA_BIN TEACHER"
            )


def machine(*packages):
    """Processor, cores, versions and date, to be printed with the figures.

    Args:
        packages: names of further packages whose versions matter.
    """
    from importlib.metadata import version

    from fairseq_seqkd import compat

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next(
            (line.split(":")[1].strip() for line in lines if "model name" in line), ""
        ),
        "cores": os.cpu_count(),
        **compat.versions(),
        **{package: version(package) for package in packages},
        "date": time.strftime("%Y-%m-%d"),
    }
