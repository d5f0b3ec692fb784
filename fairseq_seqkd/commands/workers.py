"""The processes of ``seqkd decode``: started with a log each, watched, and stopped together."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, Optional, Protocol

from fairseq_seqkd.errors import Refusal

PATIENCE = 20  # seconds that a worker has to end cleanly; a batch on a slow machine takes less
PAUSE = 0.1  # seconds between two checks


class Job(Protocol):
    """What workers are started for."""

    @property
    def logs(self) -> Path:
        """The folder of the log files, worker-<rank>.log."""

    def command(self, rank: int) -> List[str]:
        """Returns the command line of a worker."""

    def environment(self, rank: int) -> Dict[str, str]:
        """Returns the environment variables of a worker."""


class Worker:
    """One process, which appends its output to a log file.

    It has a session of its own, so a terminal's Ctrl-C does not reach it: the process that
    started it decides when it ends.

    Args:
        rank: the number of the worker among those of one decode.
        command: its command line.
        environment: its environment variables.
        log: its log file.

    Raises:
        OSError: the log cannot be opened, or the process cannot be started.
    """

    def __init__(
        self, rank: int, command: List[str], environment: Dict[str, str], log: Path
    ) -> None:
        self.rank = rank
        self.log = log
        with log.open("ab") as file:
            self.log_start = file.tell()  # earlier runs wrote what is before
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> Optional[int]:
        """The exit code, negative for a signal; None while the process runs."""
        return self.process.poll()

    def send(self, number: int) -> None:
        """Sends a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def log_lines(self) -> List[str]:
        """Returns the lines that this process has written, without empty ones."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()]

    def refusal(self) -> Optional[str]:
        """Returns the sentence with which the process refused to work, or None."""
        if self.exit_code == 1:
            marker, prefix = "fairseq_seqkd: ", ""
        elif self.exit_code == 2:  # argparse
            marker, prefix = ".py: error: ", "fairseq-generate: "
        else:
            return None
        sentences = [line.split(marker, 1)[1] for line in self.log_lines() if marker in line]
        return prefix + sentences[-1] if sentences else None

    def describe_end(self) -> str:
        """Returns how the process ended, as the end of a sentence that begins with its name."""
        code = self.exit_code or 0
        if code < 0:
            return f"was killed ({signal.Signals(-code).name})"
        last = self.log_lines()[-1:]
        return f"ended with code {code}" + "".join(f" ({line.strip()})" for line in last)


class StopRequests:
    """Counts Ctrl-C, SIGTERM and the closing of the terminal, instead of ending the process.

    An exception raised by a signal handler could strike between the start of a worker and our
    keeping of it. Children inherit ignored signals: with this handler set, they receive SIGINT
    even if a shell started this process in the background, where SIGINT is ignored.
    """

    def __init__(self) -> None:
        self.count = 0
        self._handlers: Dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
            numbers.append(signal.SIGHUP)
        self._handlers = {number: signal.signal(number, self._add) for number in numbers}
        return self

    def _add(self, number: int, frame: Optional[FrameType]) -> None:
        self.count += 1

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class WorkerPool:
    """Starts workers. When the block ends, it stops those that still run.

    Args:
        job: what the workers are started for.
        requests: requests to stop; a new one ends the waiting for clean ends.
    """

    def __init__(self, job: Job, requests: StopRequests) -> None:
        self.job = job
        self.requests = requests
        self.workers: List[Worker] = []

    def start(self, rank: int) -> Worker:
        """Starts a worker.

        Raises:
            Refusal: the log cannot be written, or the process cannot be started.
        """
        logs = self.job.logs
        command, environment = self.job.command(rank), self.job.environment(rank)
        try:
            logs.mkdir(parents=True, exist_ok=True)
            worker = Worker(rank, command, environment, logs / f"worker-{rank}.log")
        except OSError as error:
            raise Refusal(
                f"worker {rank} cannot be started with its log in {logs}: {error.strerror or error}"
            ) from error
        self.workers.append(worker)
        return worker

    def running(self) -> List[Worker]:
        """Returns the workers that have not ended."""
        return [worker for worker in self.workers if worker.exit_code is None]

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        """Interrupts the running workers, and kills those that do not end by themselves."""
        for worker in self.running():
            worker.send(signal.SIGINT)
        requests, end = self.requests.count, time.monotonic() + PATIENCE
        while self.running() and time.monotonic() < end and self.requests.count == requests:
            time.sleep(PAUSE)
        for worker in self.running():
            worker.send(signal.SIGKILL)
            worker.process.wait()
