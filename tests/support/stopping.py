"""A decode that stops by itself, as SIGSTOP does, in the middle of its work: however fast the machine, a test finds it there.

Imports nothing that is not Python's own: processes load it as they start.
"""

import os
import signal
import sys
from pathlib import Path


def at_parts(folder, parts, flag=None):
    """Makes this process stop, once, before it gives a part its name while so many are there and `flag`, if given, is."""
    stopped = []

    def hook(event, arguments):
        if (
            stopped
            or event != "os.rename"
            or not str(arguments[1]).endswith(".part")
            or (flag and not Path(flag).exists())
        ):
            return
        if len(list(Path(folder).glob("*.part"))) >= parts:
            stopped.append(event)
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)


def environment(hook, folder, parts, flag=None):
    """Writes what makes every Python process do the above into the folder `hook`; returns the variable that it takes."""
    hook.mkdir()
    here = str(Path(__file__).parent)
    lines = ["import sys", f"sys.path.append({here!r})", "import stopping", "sys.path.pop()"]
    lines += [f"stopping.at_parts({str(folder)!r}, {parts}, {flag and str(flag)!r})", ""]
    (hook / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(hook)}
