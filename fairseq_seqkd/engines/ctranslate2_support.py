"""Whether CTranslate2 is installed, and what it supports on this machine."""

import ctypes
import re
from pathlib import Path
from typing import Optional

from fairseq_seqkd.engines import int8_support
from fairseq_seqkd.errors import Refusal, first_line

USE_FAIRSEQ = "use --engine fairseq"


def check_installed(compute_type: str, on_gpu: bool, instead: str = USE_FAIRSEQ) -> None:
    """Checks that CTranslate2 is installed and computes in a type on this machine.

    Args:
        compute_type: CTranslate2's name of the type.
        on_gpu: whether it is to compute on a GPU.
        instead: what to do otherwise, the end of an error message.

    Raises:
        Refusal: it is not installed, or cannot use the device or the type.
    """
    try:
        import ctranslate2
    except ImportError:
        raise Refusal(
            f"CTranslate2 is not installed: pip install 'fairseq_seqkd[ctranslate2]', or {instead}"
        ) from None
    device = "cuda" if on_gpu else "cpu"
    try:
        types = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as error:
        raise Refusal(
            f"CTranslate2 cannot use device {device} ({first_line(error)}); {instead}"
        ) from error
    if on_gpu:
        check_cublas(f"search with --cpu, or {instead}")
    if compute_type not in types:
        supported = ", ".join(sorted(types))
        raise Refusal(f"CTranslate2 cannot compute in {compute_type} here; use one of {supported}")
    if not on_gpu:
        int8_support.check(compute_type)


def check_cublas(instead: str) -> None:
    """Checks that the cuBLAS that CTranslate2 loads is installed.

    torch brings cuBLAS for its own version of CUDA only, and loads it when it is imported.

    Raises:
        Refusal: the library is missing, so that the first product would fail.
    """
    name = cublas_name()
    try:
        ctypes.CDLL(name)  # for None, this program itself
    except OSError:
        raise Refusal(
            f"CTranslate2 needs {name} on a GPU, and it is not installed (torch brings cuBLAS for "
            "its own version of CUDA only); install that version of cuBLAS in the library path, or "
            f"{instead}"
        ) from None


def cublas_name() -> Optional[str]:
    """Returns the name of the cuBLAS in CTranslate2's binary; None if there is none."""
    import ctranslate2

    libraries = Path(ctranslate2.__file__).parent.parent / "ctranslate2.libs"
    for file in libraries.glob("libctranslate2*"):
        match = re.search(rb"libcublas\.so\.\d+", file.read_bytes())
        if match:
            return match[0].decode()
    return None
