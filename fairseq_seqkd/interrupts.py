"""Ctrl-C in fairseq's commands: one sentence instead of a traceback, and exit code 130."""

import os
import signal
import threading
from types import FrameType
from typing import Callable, Optional

PATIENCE = 0.1  # seconds until an interrupt that came too early is tried again


def end_with(
    sentence: str,
    before: Optional[Callable[[], None]] = None,
    busy: Optional[Callable[[Optional[FrameType]], bool]] = None,
    speaks: bool = True,
) -> None:
    """Has Ctrl-C end this process with a sentence, unless another handler is installed.

    Processes that are forked from this one, e.g. torch's readers of batches, end as Python would
    have it.

    Args:
        sentence: what is safe now, and what to do.
        before: called first.
        busy: whether what runs in a frame must be finished before the process ends.
        speaks: False for all but one of several processes that Ctrl-C reaches together.
    """
    owner = os.getpid()

    def stop(signum: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == owner and busy and busy(frame):
            threading.Timer(PATIENCE, os.kill, (owner, signal.SIGINT)).start()
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if os.getpid() != owner:
            raise KeyboardInterrupt
        if before:
            before()
        if speaks:
            print(f"fairseq_seqkd: interrupted; {sentence}", flush=True)
        raise SystemExit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
