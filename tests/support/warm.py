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
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

COMMANDS = ("fairseq-generate", "fairseq-preprocess", "fairseq-train", "seqkd")
SHIM = """#!{python} -SE
import sys
sys.path.insert(0, {here!r})
import warm
sys.exit(warm.ask({address!r}, {script!r}, sys.argv[1:]))
"""
_server = None


def run(script, arguments, env, timeout):
    """Runs a console script. Returns (exit code, what it printed); raises TimeoutExpired and kills it after `timeout` s."""
    reader, writer = os.pipe()
    pipe = os.fdopen(reader, encoding="utf-8", errors="replace")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked, pipe:
        with os.fdopen(writer, "wb"), Path(os.devnull).open("rb") as nothing:
            asked.connect(server().address)
            send(asked, script, arguments, env, [nothing.fileno(), writer, writer])
        pid = json.loads(asked.recv(1000))["pid"]
        printed = []
        thread = threading.Thread(target=lambda: printed.append(pipe.read()), daemon=True)
        thread.start()
        thread.join(timeout)
        late = thread.is_alive()
        if late:
            os.killpg(pid, signal.SIGKILL)
            thread.join()
        code = json.loads(asked.recv(1000))["code"]
    if late:
        raise subprocess.TimeoutExpired([script, *arguments], timeout, "".join(printed))
    return code, "".join(printed)


def shims(folder, scripts):
    """Fills a folder with fairseq-train and the like that start warm, for scripts that call them. Returns it for PATH."""
    for name in COMMANDS:
        facts = {
            "python": sys.executable,
            "here": str(Path(__file__).parent),
            "address": server().address,
        }
        (folder / name).write_text(SHIM.format(**facts, script=str(scripts / name)))
        (folder / name).chmod(0o755)
    return folder


def ask(address, script, arguments):
    """What a shim does: has the command run with this process's folder, environment, input and output. Returns its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        asked.connect(address)
        send(asked, script, arguments, dict(os.environ), [0, 1, 2])
        asked.recv(1000)
        return json.loads(asked.recv(1000))["code"]


def send(asked, script, arguments, env, streams):
    request = {"argv": [str(script), *arguments], "env": env, "cwd": str(Path.cwd())}
    socket.send_fds(asked, [json.dumps(request).encode()], streams)


def server():
    """The one of this process, started when it is first needed."""
    global _server
    if _server is None or _server.pid != os.getpid():
        _server = Server()
    return _server


class Server:
    """The process that has the imports; whoever connects to its address may ask for a command."""

    def __init__(self):
        self.pid = os.getpid()
        self.address = f"\0warm-{uuid.uuid4().hex}"  # Linux's kind that is no file, so that nobody has to remove it
        self.ours, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.address)
        listener.listen()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with theirs, listener:  # it ends when our end closes, with this process at the latest
            numbers = [listener.fileno(), theirs.fileno()]
            self.process = subprocess.Popen(
                [sys.executable, __file__, *map(str, numbers)], pass_fds=numbers, env=environment
            )
        atexit.register(self.close)

    def close(self):
        self.ours.close()
        self.process.wait()


def serve(listener, lifeline):
    """Forks a process for everyone who connects, until the lifeline is cut."""
    for module in (
        "fairseq_cli.generate",
        "fairseq_cli.preprocess",
        "fairseq_cli.train",
        "sacrebleu",
    ):
        importlib.import_module(module)

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in the terminal is for pytest, which then closes the lifeline
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # nobody waits for those that wait for the commands
    while lifeline not in select.select([listener, lifeline], [], [])[0]:
        asked, _ = listener.accept()
        if not os.fork():
            listener.close()
            lifeline.close()
            answer(asked)
        asked.close()


def answer(asked):
    """Runs the command that is asked for, says which process it is, waits for it, and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, fds, _, _ = socket.recv_fds(asked, 1 << 20, 3)
    pid = os.fork()
    if not pid:
        asked.close()
        become(**json.loads(message), streams=fds)
    for number in fds:
        os.close(number)
    asked.send(json.dumps({"pid": pid}).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # who asked has gone
        asked.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
    os._exit(0)


def become(argv, env, cwd, streams):
    """Turns the forked process into the command, and ends it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
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
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
