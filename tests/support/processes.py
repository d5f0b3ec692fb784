"""Looks at processes that a test has started, and sends them signals."""

import os
import signal
import time
from pathlib import Path
from typing import Callable, Dict

import warm


def exists(pid: int) -> bool:
    """Returns whether there is such a process, even one that ended and was not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def status(pid: int) -> Dict[str, str]:
    """Returns the fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def is_stopped(pid: int) -> bool:
    """Returns whether a process waits for SIGCONT."""
    try:
        return exists(pid) and status(pid)["State"].startswith("T")
    except (FileNotFoundError, ProcessLookupError):  # it ended in between
        return False


def is_running(pid: int) -> bool:
    """Returns whether a process has not ended. It need not be a child of this one."""
    try:
        return exists(pid) and not status(pid)["State"].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):  # it ended in between
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until a condition holds; the test fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def resume(process: warm.Process, *signals: int, to: Callable[[int, int], None] = os.kill) -> str:
    """Sends signals to a stopped process, lets it go on to its end, and returns what it printed.

    Args:
        to: os.killpg sends them to the processes that it has started, too.
    """
    for number in (*signals, signal.SIGCONT):
        to(process.pid, number)
    return process.communicate()
