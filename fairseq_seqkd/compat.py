"""All that depends on the versions of fairseq and torch, or on how fairseq's commands work inside.

Importing it registers the few types besides tensors that checkpoints of fairseq hold, so that torch
loads them with weights only. Without that, torch 2.6 and later load no checkpoint of fairseq.
Nothing here ever loads a pickle that may run code.
"""

import argparse
import contextlib
import pickle
import queue
import struct
import sys
import threading
import time
import zipfile
import zlib
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Dict, List, Optional, Tuple, Union

import numpy
import torch

from fairseq_seqkd.errors import Refusal

TRAINS = (str(Path("fairseq_cli", "train.py")),)
VALIDATES = tuple(str(Path("fairseq_cli", name)) for name in ("validate.py", "hydra_validate.py"))
SAVES = (str(Path("fairseq", "checkpoint_utils.py")),)
# zipfile raises any of these for an archive that is not whole.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    ValueError,
    RuntimeError,
    struct.error,
)


def _safe_types() -> List[Any]:
    """Returns argparse.Namespace, and NumPy's types that validation BLEU (--eval-bleu) leaves.

    NumPy 2 renamed its core; a checkpoint may have been written with either version.
    """
    core = (getattr(numpy, "_core", None) or numpy.core).multiarray
    functions = [
        (getattr(core, name), f"numpy.{module}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for module in ("core", "_core")
    ]
    dtypes = getattr(numpy, "dtypes", None)
    names = ("Int64DType", "Float64DType", "Int32DType", "Float32DType")
    types = [getattr(dtypes, name) for name in names if hasattr(dtypes, name)]
    return [argparse.Namespace, numpy.ndarray, numpy.dtype, *functions, *types]


if hasattr(torch.serialization, "add_safe_globals"):
    torch.serialization.add_safe_globals(_safe_types())


def loads_safely() -> bool:
    """Returns whether this torch can load with weights only.

    Before version 2.6 a file can run code in spite of `weights_only` (CVE-2025-32434).
    """
    return torch.__version__ >= "2.6"  # a TorchVersion, which compares versions


def check_torch() -> None:
    """Raises Refusal if this torch could load checkpoints only by running what is in them."""
    if not loads_safely():
        raise Refusal(
            f"torch {torch.__version__} cannot load checkpoints safely, with weights only; use "
            "torch 2.6 or later, which needs Python 3.11 or later here"
        )


def read_checkpoint(path: Union[str, Path]) -> Any:
    """Returns what a checkpoint file holds, on the CPU. Tensors are mapped instead of being read.

    Raises:
        Refusal: the file is missing or damaged, or would run code when loaded.
    """
    check_torch()
    try:
        # Only the zip format of torch 1.6 and later can be mapped; older checkpoints are read.
        is_archive = zipfile.is_zipfile(path)
        if is_archive and not is_whole(path):
            raise _damaged(path)
        return load_safely(path, path, mmap=is_archive)
    except FileNotFoundError:
        raise Refusal(f"the checkpoint {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise Refusal(
            f"{path} is a directory; name the checkpoint file in it, e.g. checkpoint_last.pt"
        ) from None
    except PermissionError:
        raise Refusal(f"the checkpoint {path} cannot be read; check its permissions") from None


def load_safely(
    source: Union[str, Path, BinaryIO], name: Union[str, Path], mmap: bool = False
) -> Any:
    """Loads with weights only.

    Args:
        source: a file, or its path.
        name: the file's name in an error.
        mmap: whether to map the tensors from the file.

    Raises:
        Refusal: the content is damaged, or would run code when loaded.
    """
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        if any(f"unsupported {kind}" in str(error).lower() for kind in ("global", "class")):
            raise Refusal(
                f"the checkpoint {name} is refused, because it holds objects that could run code "
                "when loaded; use one that was written by fairseq-train"
            ) from None
        raise _damaged(name) from error
    except Exception as error:  # torch reads any bytes as instructions, so anything can go wrong
        raise _damaged(name) from error


def _damaged(name: Union[str, Path]) -> Refusal:
    return Refusal(f"the checkpoint {name} is damaged or no checkpoint at all; copy it again")


def is_whole(archive: Union[str, Path]) -> bool:
    """Returns whether the bytes of an archive match its checksums.

    torch does not compare them when it maps a file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is None
    except ARCHIVE_ERRORS:
        return False


def versions(engine: str = "fairseq") -> Dict[str, str]:
    """Returns the versions of fairseq and torch, on which results depend.

    Args:
        engine: what searches. Another engine than fairseq is a third entry.

    Returns:
        E.g. {"fairseq": "ve-fairseq 0.12.3", "torch": "2.13.0+cpu", "ctranslate2": "4.8.5"}.
    """
    installed = {"fairseq": "unknown", "torch": str(torch.__version__)}
    for name in ("ve-fairseq", "fairseq-fixed", "fairseq"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed["fairseq"] = f"{name} {metadata.version(name)}"
            break
    if engine not in installed:
        installed[engine] = metadata.version(engine)
    return installed


def max_tokens_given() -> bool:
    """Returns whether the command line of this process holds --max-tokens.

    fairseq-generate fills in 12,000 tokens if neither --max-tokens nor --batch-size is given. It
    does so before it sets up the task, so the configuration does not show whether the user asked
    for 12,000.
    """
    return any(word.split("=")[0] == "--max-tokens" for word in sys.argv)


def is_training() -> bool:
    """Returns whether fairseq-train is running, and not a program that builds a criterion."""
    return _is_called_from(sys._getframe(), TRAINS)


def is_validating() -> bool:
    """Returns whether fairseq-validate is running. It builds the criterion as training had it."""
    return _is_called_from(sys._getframe(), VALIDATES)


def is_saving(frame: Optional[FrameType]) -> bool:
    """Returns whether a training writes its checkpoints in a frame.

    fairseq copies one file to another, e.g. checkpoint_last.pt, and does not rename the copy.
    """
    return _is_called_from(frame, SAVES, "save_checkpoint")


def _is_called_from(
    frame: Optional[FrameType], files: Tuple[str, ...], function: Optional[str] = None
) -> bool:
    """Returns whether a function (default: any) of one of the files has called a frame."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(files) and function in (None, frame.f_code.co_name):
            return True
        frame = frame.f_back
    return False


def stop_prefetching(seconds: float = 10) -> None:
    """Ends the threads in which fairseq reads batches ahead, at the end of the process.

    If one still runs when the interpreter ends, the process aborts with code 134 ("terminate called
    without an active exception") below the sentence that says what is wrong.

    Args:
        seconds: how long to wait for all of them.
    """
    iterators, until = sys.modules.get("fairseq.data.iterators"), time.monotonic() + seconds
    for thread in threading.enumerate():
        if iterators and isinstance(thread, iterators.BackgroundConsumer):
            thread._max_len = 0  # it ends after the batch at hand, once the queue has room for it
            while thread.is_alive() and time.monotonic() < until:
                with contextlib.suppress(queue.Empty):
                    thread._queue.get(timeout=0.05)
