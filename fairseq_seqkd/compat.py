"""The only file that knows that fairseq and torch have versions, and what fairseq's commands do on the inside.

Importing it registers the few types that fairseq's checkpoints hold besides tensors, so that torch loads them with
weights only. Without that, no checkpoint of fairseq loads under torch 2.6 or later. Nothing here ever loads a pickle
that may carry code.
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

import numpy
import torch

from fairseq_seqkd.errors import Refusal

TRAINS = (str(Path("fairseq_cli", "train.py")),)
VALIDATES = tuple(str(Path("fairseq_cli", name)) for name in ("validate.py", "hydra_validate.py"))
SAVES = (str(Path("fairseq", "checkpoint_utils.py")),)


def _safe_types():
    """argparse.Namespace, and the NumPy types that validation BLEU (`--eval-bleu`) leaves in a checkpoint.

    NumPy 2 renamed its core, and a checkpoint may have been written with either.
    """
    core = (getattr(numpy, "_core", None) or numpy.core).multiarray
    functions = [
        (getattr(core, name), f"numpy.{module}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for module in ("core", "_core")
    ]
    names = ("Int64DType", "Float64DType", "Int32DType", "Float32DType")
    types = [
        getattr(numpy.dtypes, name)
        for name in names
        if hasattr(getattr(numpy, "dtypes", None), name)
    ]
    return [argparse.Namespace, numpy.ndarray, numpy.dtype, *functions, *types]


if hasattr(torch.serialization, "add_safe_globals"):
    torch.serialization.add_safe_globals(_safe_types())


def loads_safely():
    """Whether this torch can load weights only: before 2.6, with `weights_only` too, a file can run code (CVE-2025-32434)."""
    return torch.__version__ >= (2, 6)


def check_torch():
    """Refuses a torch that could only load checkpoints by running what is in them."""
    if not loads_safely():
        raise Refusal(
            f"torch {torch.__version__} cannot load checkpoints safely, with weights only; use torch 2.6 or later, which needs "
            "Python 3.11 or later here"
        )


def read_checkpoint(path):
    """The state dictionary of a checkpoint on the CPU, tensors mapped from the file rather than read.

    Raises Refusal for a file that is absent, damaged, or that would run code when unpickled.
    """
    check_torch()
    damaged = Refusal(f"the checkpoint {path} is damaged or no checkpoint at all; copy it again")
    if has_changed(path):
        raise damaged
    try:
        # Only the zip format of torch 1.6 and later can be mapped; older checkpoints are read.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except FileNotFoundError:
        raise Refusal(f"the checkpoint {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise Refusal(
            f"{path} is a directory; name the checkpoint file in it, such as checkpoint_last.pt"
        ) from None
    except PermissionError:
        raise Refusal(f"the checkpoint {path} may not be read; check its permissions") from None
    except pickle.UnpicklingError as error:
        if any(f"unsupported {kind}" in str(error).lower() for kind in ("global", "class")):
            raise Refusal(
                f"the checkpoint {path} is refused, because it holds objects that could run code when loaded; "
                "use one that was written by fairseq-train"
            ) from None
        raise damaged from error
    except (
        Exception
    ) as error:  # torch reads any bytes as instructions, so anything can go wrong on the way
        raise damaged from error


def has_changed(path):
    """Whether the bytes of a checkpoint are not those of its checksums, which torch does not look at in a mapped file."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        NotImplementedError,
        ValueError,
        RuntimeError,
        struct.error,
    ):
        return True


def versions(engine="fairseq"):
    """{"fairseq": "ve-fairseq 0.12.3", "torch": "2.13.0+cpu"}: what results depend on, besides the data.

    Args: engine: where the search runs; an engine of its own is a third entry, {"ctranslate2": "4.8.5"}.
    """
    found = {"fairseq": "unknown", "torch": torch.__version__}
    for name in ("ve-fairseq", "fairseq-fixed", "fairseq"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found["fairseq"] = f"{name} {metadata.version(name)}"
            break
    if engine not in found:
        found[engine] = metadata.version(engine)
    return found


def max_tokens_given() -> bool:
    """Returns whether the command line of this process holds --max-tokens.

    fairseq-generate fills in 12,000 tokens if neither --max-tokens nor --batch-size is given. It
    does so before it sets up the task, so the configuration does not show whether the user asked
    for 12,000.
    """
    return any(word.split("=")[0] == "--max-tokens" for word in sys.argv)


def is_training():
    """Whether fairseq-train is at work, and not somebody's own program that makes a criterion."""
    return _within(sys._getframe(), TRAINS)


def is_validating():
    """Whether fairseq-validate is at work: it trains nothing, and makes the criterion with the options that the training had."""
    return _within(sys._getframe(), VALIDATES)


def is_saving(frame):
    """Whether a training is writing its checkpoints there: copies of one state, such as checkpoint_last.pt, are not written
    beside and renamed."""
    return _within(frame, SAVES, "save_checkpoint")


def _within(frame, files, function=None):
    """Whether a function, or any, of one of these files has called what runs in a frame."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(files) and function in (None, frame.f_code.co_name):
            return True
        frame = frame.f_back
    return False


def stop_prefetching(seconds=10):
    """Ends the threads in which fairseq reads batches ahead, for the end of the process.

    One that works while the interpreter ends makes the process abort ("terminate called without an active exception", code 134),
    below the sentence that says what is wrong.
    """
    iterators, until = sys.modules.get("fairseq.data.iterators"), time.monotonic() + seconds
    for thread in threading.enumerate():
        if iterators and isinstance(thread, iterators.BackgroundConsumer):
            thread._max_len = (
                0  # it ends when the batch in its hands is in the queue, and that has room
            )
            while thread.is_alive() and time.monotonic() < until:
                with contextlib.suppress(queue.Empty):
                    thread._queue.get(timeout=0.05)
