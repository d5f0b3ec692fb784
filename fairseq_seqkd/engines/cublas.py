"""Whether the cuBLAS that CTranslate2 loads on a GPU is there: torch brings that of its own version of CUDA alone."""

import ctypes
import re
from pathlib import Path

from fairseq_seqkd.errors import Refusal


def check(instead):
    """Refuses a GPU on which CTranslate2's first product would fail. Where torch has been imported, what it brings is there."""
    name = wanted()
    try:
        ctypes.CDLL(name)  # of None this program itself
    except OSError:
        raise Refusal(
            f"CTranslate2 needs {name} on a GPU, which is not here (torch brings cuBLAS of its own version of CUDA alone); "
            f"install that version of cuBLAS where the system finds it, or {instead}"
        ) from None


def wanted():
    """The name of the library that the installed CTranslate2 loads, as it stands in its binary; None where it names none."""
    import ctranslate2

    for file in (Path(ctranslate2.__file__).parent.parent / "ctranslate2.libs").glob(
        "libctranslate2*"
    ):
        found = re.search(rb"libcublas\.so\.\d+", file.read_bytes())
        if found:
            return found[0].decode()
    return None
