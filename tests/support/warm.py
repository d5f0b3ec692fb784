"""Starts commands as processes forked from one that has imported torch, fairseq and sacrebleu.

The imports take four seconds. The process is otherwise as a shell starts it, with its own
arguments, environment, working folder, output and exit code. This package is not imported, so
--user-dir finds and registers the plugin as ever.
"""

import atexit
import contextlib
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Dict, List, NoReturn, Optional, Union

COMMANDS = ("fairseq-generate", "fairseq-preprocess", "fairseq-train", "seqkd")
SHIM = """#!{python} -SE
import sys
sys.path.insert(0, {here!r})
import warm
sys.exit(warm.ask({address!r}, {script!r}, sys.argv[1:]))
"""
_server: Optional["Server"] = None


class Process:
    """A command that was started, much like a subprocess.Popen; its output and errors are in
    `stdout`.

    Args:
        script: the console script.
        arguments: its arguments.
        env: its environment.
        prepare: Python code that runs in the process before the script.
    """

    def __init__(
        self, script: Path, arguments: List[str], env: Dict[str, str], prepare: str = ""
    ) -> None:
        self.args = [str(script), *arguments]
        self.returncode: Optional[int] = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        self.stdout = os.fdopen(reader, encoding="utf-8", errors="replace")
        with os.fdopen(writer, "wb"), Path(os.devnull).open("rb") as nothing:
            self._socket.connect(server().address)
            send(self._socket, script, arguments, env, [nothing.fileno(), writer, writer], prepare)
        self.pid: int = json.loads(self._socket.recv(1000))["pid"]

    def poll(self) -> Optional[int]:
        """Returns the exit code, negative for a signal, or None while the process runs."""
        if self.returncode is None and select.select([self._socket], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Waits for the end. Returns the exit code, negative for a signal."""
        if self.returncode is None:
            self.returncode = json.loads(self._socket.recv(1000))["code"]
            self._socket.close()
        return self.returncode

    def communicate(self, timeout: float = 240) -> str:
        """Waits for the end. Returns what was printed since the last reading.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds; the process is then killed.
        """
        printed: List[str] = []
        thread = threading.Thread(target=lambda: printed.append(self.stdout.read()), daemon=True)
        thread.start()
        thread.join(timeout)
        late = thread.is_alive()
        if late:
            os.killpg(self.pid, signal.SIGKILL)
            thread.join()
        self.stdout.close()
        self.wait()
        if late:
            raise subprocess.TimeoutExpired(self.args, timeout, "".join(printed))
        return "".join(printed)

    def kill(self) -> None:
        """Kills the process if it runs, and waits for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


def shims(folder: Path, scripts: Path) -> Path:
    """Fills a folder, for PATH, with commands of fairseq and seqkd that start quickly.

    Args:
        folder: the folder.
        scripts: where the console scripts are.
    """
    for name in COMMANDS:
        values = {
            "python": sys.executable,
            "here": str(Path(__file__).parent),
            "address": server().address,
        }
        (folder / name).write_text(SHIM.format(**values, script=str(scripts / name)))
        (folder / name).chmod(0o755)
    return folder


def ask(address: str, script: str, arguments: List[str]) -> int:
    """Has a command run with the folder, environment and streams of this process, a shim.

    Returns:
        Its exit code.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        send(connection, script, arguments, dict(os.environ), [0, 1, 2])
        connection.recv(1000)
        return json.loads(connection.recv(1000))["code"]


def send(
    connection: socket.socket,
    script: Union[str, Path],
    arguments: List[str],
    env: Dict[str, str],
    streams: List[int],
    prepare: str = "",
) -> None:
    """Sends the server what it is to run, with the file descriptors of input, output, errors."""
    request = {
        "argv": [str(script), *arguments],
        "env": env,
        "cwd": str(Path.cwd()),
        "prepare": prepare,
    }
    socket.send_fds(connection, [json.dumps(request).encode()], streams)


def server() -> "Server":
    """Returns the server of this process, which starts when it is first needed."""
    global _server
    if _server is None or _server.pid != os.getpid():
        _server = Server()
    return _server


class Server:
    """The process that has the imports. Whoever connects to its address may ask for a command."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # An abstract address of Linux is no file, so nobody has to remove it.
        self.address = f"\0warm-{uuid.uuid4().hex}"
        # The server ends when our end of the lifeline closes, with this process at the latest.
        self._lifeline, far_end = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.address)
        listener.listen()
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        with far_end, listener:
            numbers = [listener.fileno(), far_end.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, numbers)],
                pass_fds=numbers,
                env={**os.environ, **fixed},
            )
        atexit.register(self.close)

    def close(self) -> None:
        """Ends the server."""
        self._lifeline.close()
        self._process.wait()


def serve(listener: socket.socket, lifeline: socket.socket) -> None:
    """Forks a process for everyone who connects, until the lifeline closes."""
    for module in (
        "fairseq_cli.generate",
        "fairseq_cli.preprocess",
        "fairseq_cli.train",
        "sacrebleu",
    ):
        importlib.import_module(module)
    # Ctrl-C in the terminal is for pytest, which then closes the lifeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody waits for the processes that wait for commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while lifeline not in select.select([listener, lifeline], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            lifeline.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Runs the command that is asked for; sends the id of its process, then its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    pid = os.fork()
    if not pid:
        connection.close()
        become(**json.loads(message), streams=streams)
    for number in streams:
        os.close(number)
    connection.send(json.dumps({"pid": pid}).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        connection.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
    os._exit(0)


def become(
    argv: List[str], env: Dict[str, str], cwd: str, prepare: str, streams: List[int]
) -> NoReturn:
    """Turns this process into the command, and ends it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    reset_log(Path(argv[0]).name)
    code = 1
    try:
        exec(prepare, {})
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(BrokenPipeError):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # without the second that torch's end takes


def reset_log(name: str) -> None:
    """Leaves the log as a command finds it when nothing is imported.

    fairseq-train, its like and seqkd set the form of the log before other modules of fairseq do.
    fairseq-generate does not, and `serve` imports it first, too.
    """
    if name == "fairseq-generate":
        return
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    sys.modules.pop(name.replace("fairseq-", "fairseq_cli."), None)


if __name__ == "__main__":
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
