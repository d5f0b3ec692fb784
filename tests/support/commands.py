"""Runs the commands of fairseq and of seqkd: in this process, or each in a process of its own.

`run_here` is the quick way, for what a command prints, writes and refuses. `run_process` and
`start_process` are for signals, kills, exit codes and environments.
"""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import warm

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "fairseq_seqkd"
BIN = Path(sys.executable).parent

TIMEOUT = 240  # seconds
LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"  # fairseq's


def environment_with(**variables: str) -> Dict[str, str]:
    """Returns the environment of a command: one thread, no GPU, no buffer, and `variables`."""
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **fixed, **variables}


def run_here(name: str, *words: Any, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Runs a console script in this process.

    Args:
        name: "seqkd", or a command of fairseq such as "fairseq-train".
        words: its arguments.
        check: whether the test fails if the exit code is not 0.

    Returns:
        The exit code, and standard output and standard error together as `stdout`.
    """
    printed, main = io.StringIO(), _main(name)
    with contextlib.ExitStack() as changes:
        for change in (_restored(), _log_to(printed), _arguments(name, words)):
            changes.enter_context(change)
        changes.enter_context(contextlib.redirect_stdout(printed))
        changes.enter_context(contextlib.redirect_stderr(printed))
        code = _exit_code(main)
    result = subprocess.CompletedProcess([name, *map(str, words)], code, printed.getvalue())
    return _checked(result, check)


def run_process(
    name: str, *words: Any, check: bool = True, timeout: float = TIMEOUT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a console script in a process of its own.

    Args:
        name: any script beside the Python of the tests.
        words: its arguments.
        check: whether the test fails if the exit code is not 0.
        timeout: seconds after which the process is killed, and TimeoutExpired raised.
        variables: additions to its environment.
    """
    process = start_process(name, *words, **variables)
    result = subprocess.CompletedProcess(
        [name, *map(str, words)], stdout=process.communicate(timeout), returncode=process.wait()
    )
    return _checked(result, check)


def start_process(name: str, *words: Any, prepare: str = "", **variables: str) -> warm.Process:
    """Starts a console script in a process of its own, the leader of a session.

    Args:
        name: any script beside the Python of the tests.
        words: its arguments.
        prepare: Python code that runs in the process first; it can import modules of this folder.
        variables: additions to its environment.
    """
    return warm.Process(BIN / name, [*map(str, words)], environment_with(**variables), prepare)


def run_python(*words: Any, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs a new Python, for what a program imports. Standard error is apart, in `stderr`."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment_with(**variables),
    )


def heed_interrupts() -> None:
    """Has a new process heed Ctrl-C, which background jobs of a shell do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup


def refusal(result: "subprocess.CompletedProcess[str]") -> str:
    """Returns the one sentence with which a command refused; the test fails if there is none."""
    assert result.returncode != 0, result.stdout[-2000:]
    assert "Traceback" not in result.stdout, result.stdout[-4000:]
    lines = result.stdout.splitlines()
    sentences = [line for line in lines if line.startswith("fairseq_seqkd: ")]
    assert len(sentences) == 1, result.stdout[-2000:]
    return sentences[0]


def _checked(
    result: "subprocess.CompletedProcess[str]", check: bool
) -> "subprocess.CompletedProcess[str]":
    if check and result.returncode:
        name = result.args[0]
        raise AssertionError(f"{name} ended with {result.returncode}:\n{result.stdout[-4000:]}")
    return result


def _main(name: str) -> Callable[[], Any]:
    """Imports the function that a console script calls."""
    import fairseq_seqkd

    fairseq_seqkd.register()
    if name == "seqkd":
        from fairseq_seqkd import cli

        return lambda: cli.main(sys.argv[1:])
    module = f"fairseq_cli.{name[len('fairseq-') :]}"
    return __import__(module, fromlist=["cli_main"]).cli_main


def _exit_code(main: Callable[[], Any]) -> int:
    """Calls the function of a console script. Returns the exit code that its process would have."""
    try:
        value = main()
        return value if isinstance(value, int) else 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1


@contextlib.contextmanager
def _arguments(name: str, words: Tuple[Any, ...]) -> Iterator[None]:
    before, sys.argv = sys.argv, [name, *map(str, words)]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _log_to(stream: io.StringIO) -> Iterator[None]:
    """Sends the log to a stream, in place of where it went when fairseq was imported."""
    root, handlers, level = logging.root, logging.root.handlers[:], logging.root.level
    of_training = logging.getLogger("fairseq_cli.train")  # --log-file adds a handler to it
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(LOG_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    of_pytest = [kept for kept in handlers if type(kept) is not logging.StreamHandler]
    root.handlers[:] = [*of_pytest, handler]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        of_training.handlers.clear()


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restores what a command changes in its process; has configurations composed quickly."""
    import torch
    from composing import compose_quickly
    from fairseq import checkpoint_utils

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in signals}
    threads = torch.get_num_threads()
    try:
        with compose_quickly():
            yield
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        vars(checkpoint_utils.save_checkpoint).pop("best", None)  # fairseq keeps it there
