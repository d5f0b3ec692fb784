"""Ctrl-C in fairseq's commands: one sentence that says what is safe, instead of a traceback, and exit code 130."""

import os
import signal
import threading

PATIENCE = 0.1  # seconds between two looks at what must not be cut short


def end_with(sentence, before=None, busy=None, speaks=True):
    """From now on Ctrl-C ends this process with a sentence, unless something else listens for it already.

    Args: before: what is called first. busy: frame -> whether what runs there must come to its end before. speaks: False for
    one of several processes that Ctrl-C reaches at once.

    Processes that are forked from this one, such as torch's, which read batches, end as Python would have it.
    """
    owner = os.getpid()

    def stop(signum, frame):
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
