"""Processes that `seqkd decode` starts and stops: each in a session of its own, its output in a log, none left behind."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from fairseq_seqkd.errors import Refusal

PATIENCE = 20  # seconds that a worker has to end cleanly: a batch on a slow machine is shorter
PAUSE = 0.1  # seconds between two looks


class Worker:
    """One process. Its log is added to; what this run wrote begins at `begins`.

    A session of its own keeps a terminal's Ctrl-C away from it: who started it decides when it ends, and says so once.
    """

    def __init__(self, rank, command, environment, log):
        self.rank, self.log = rank, Path(log)
        with self.log.open("ab") as file:
            self.begins = file.tell()
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def code(self):
        """Its exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def said(self):
        """The lines that this run wrote."""
        with self.log.open("rb") as file:
            file.seek(self.begins)
            return [
                line for line in file.read().decode(errors="replace").splitlines() if line.strip()
            ]

    def refusal(self):
        """The sentence with which it refused to work, or None where it did not."""
        if self.code not in (1, 2):
            return None
        mark, name = (
            ("fairseq_seqkd: ", "") if self.code == 1 else (".py: error: ", "fairseq-generate: ")
        )  # 2: argparse
        found = [line.split(mark, 1)[1] for line in self.said() if mark in line]
        return name + found[-1] if found else None

    def end(self):
        """How it ended, in words."""
        if self.code < 0:
            return f"was killed ({signal.Signals(-self.code).name})"
        last = self.said()[-1:]
        return f"ended with code {self.code}" + "".join(f" ({line.strip()})" for line in last)


class Workers:
    """Starts workers and, when the block ends in whatever way, stops those that still run.

    Args:
        command, environment: (rank) -> of that worker.
        logs: folder of worker-<rank>.log; requests: a list that grows when somebody asks to stop (see `requests_to_stop`).
    """

    def __init__(self, command, environment, logs, requests):
        self.command, self.environment, self.logs, self.requests = (
            command,
            environment,
            Path(logs),
            requests,
        )
        self.started = []

    def start(self, rank):
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            worker = Worker(
                rank, self.command(rank), self.environment(rank), self.logs / f"worker-{rank}.log"
            )
        except OSError as error:
            raise Refusal(
                f"worker {rank} cannot be started with its log in {self.logs}: {error.strerror or error}"
            ) from error
        self.started.append(worker)
        return worker

    def running(self):
        return [worker for worker in self.started if worker.code is None]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Asks with SIGINT, upon which a worker ends with its files whole; who does not listen, or is asked again, is killed."""
        for worker in self.running():
            worker.signal(signal.SIGINT)
        asked, until = len(self.requests), time.monotonic() + PATIENCE
        while self.running() and time.monotonic() < until and len(self.requests) == asked:
            time.sleep(PAUSE)
        for worker in self.running():
            worker.signal(signal.SIGKILL)
            worker.process.wait()


@contextlib.contextmanager
def requests_to_stop():
    """Yields a list that grows with every Ctrl-C, SIGTERM or closed terminal, instead of ending the process.

    A handler that raised could strike between the start of a worker and our knowing of it. And a process that hears
    signals gives its children ears too, even where a shell started it deaf in the background.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    requests = []
    before = {
        number: signal.signal(number, lambda number, frame: requests.append(number))
        for number in numbers
    }
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
