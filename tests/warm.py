"""Commands that start warm: processes forked from one that has imported torch, fairseq and sacrebleu already.

A fairseq command spends four seconds on imports, and the tests run some two hundred of them. `run` gives a command a
process of its own, as a shell does: its own arguments, environment, working folder, output and exit code; only the
imports are there. This package is not among them, so the plugin is found and registered by --user-dir as ever.
"""

import atexit
import contextlib
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

_server = None


def run(script, arguments, env, timeout):
    """Runs a console script. Returns (exit code, what it printed); raises TimeoutExpired and kills it after `timeout` s."""
    global _server
    if _server is None or _server.pid != os.getpid():
        _server = Server()
    return _server.run(script, arguments, env, timeout)


class Server:
    """The process that has the imports, and the socket to it."""

    def __init__(self):
        self.pid = os.getpid()
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        with theirs:  # it ends when our end closes, with this process at the latest
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment
            )
        atexit.register(self.close)

    def run(self, script, arguments, env, timeout):
        request = json.dumps({"argv": [str(script), *arguments], "env": env, "cwd": str(Path.cwd())}).encode()
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb"):
            socket.send_fds(self.ours, [request], [writer])
        pid = json.loads(self.ours.recv(1000))["pid"]
        printed = []
        with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
            thread = threading.Thread(target=lambda: printed.append(pipe.read()), daemon=True)
            thread.start()
            thread.join(timeout)
            late = thread.is_alive()
            if late:
                os.killpg(pid, signal.SIGKILL)
                thread.join()
            code = json.loads(self.ours.recv(1000))["code"]
        if late:
            raise subprocess.TimeoutExpired([script, *arguments], timeout, "".join(printed))
        return code, "".join(printed)

    def close(self):
        self.ours.close()
        self.process.wait()


def serve(requests):
    """Forks a process for every request, one at a time, until the other end is closed."""
    for module in ("fairseq_cli.generate", "fairseq_cli.preprocess", "fairseq_cli.train", "sacrebleu"):
        importlib.import_module(module)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for pytest, which then closes the socket
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 1 << 20, 1)
        if not message:
            return
        pid = os.fork()
        if not pid:
            requests.close()
            become(**json.loads(message), output=fds[0])
        os.close(fds[0])
        requests.send(json.dumps({"pid": pid}).encode())
        _, status = os.waitpid(pid, 0)
        requests.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())


def become(argv, env, cwd, output):
    """Turns the forked process into the command, and ends it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    log_as_cold(Path(argv[0]).name)
    code = 1
    try:
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(BrokenPipeError):
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # without taking torch down, which takes a second


def log_as_cold(name):
    """Leaves the log as the command would find it. fairseq-train and its like, and seqkd, set its form before other modules of
    fairseq do; fairseq-generate does not, and comes first in `serve` too."""
    if name == "fairseq-generate":
        return
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    sys.modules.pop(name.replace("fairseq-", "fairseq_cli."), None)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
