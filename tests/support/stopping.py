"""Makes a decode stop itself, as SIGSTOP does, in the middle of its work, however fast it is.

This module imports nothing but the standard library: processes load it as they start.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

PathLike = Union[str, Path]


def at_parts(folder: PathLike, parts: int, flag: Optional[PathLike] = None) -> None:
    """Makes this process stop once, before it names a part while there are `parts` of them.

    Args:
        folder: where parts are committed.
        parts: the number of parts that must be there.
        flag: a file without which the process does not stop.
    """
    stops: List[str] = []

    def hook(event: str, arguments: Tuple[Any, ...]) -> None:
        if stops or event != "os.rename" or not str(arguments[1]).endswith(".part"):
            return
        if flag and not Path(flag).exists():
            return
        if len(list(Path(folder).glob("*.part"))) >= parts:
            stops.append(event)
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)


def at_parts_code(folder: PathLike, parts: int, flag: Optional[PathLike] = None) -> str:
    """Returns Python code that calls `at_parts`, for processes that can import this module."""
    flag = flag and str(flag)
    return f"import stopping\nstopping.at_parts({str(folder)!r}, {parts}, {flag!r})\n"


def environment(
    hook: Path, folder: PathLike, parts: int, flag: Optional[PathLike] = None
) -> Dict[str, str]:
    """Returns a variable with which every Python process calls `at_parts` as it starts.

    Args:
        hook: a folder to make, for the code that Python runs at its start.
    """
    hook.mkdir()
    lines = ["import sys", f"sys.path.append({str(Path(__file__).parent)!r})"]
    code = "\n".join([*lines, at_parts_code(folder, parts, flag), "sys.path.pop()\n"])
    (hook / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(hook)}
