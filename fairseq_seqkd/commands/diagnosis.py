"""What is installed, and what is known to be wrong with it (`seqkd doctor`): each finding with what to do about it."""

import os
import platform
from importlib import metadata
from pathlib import Path

from fairseq_seqkd.engines import int8_support
from fairseq_seqkd.errors import Refusal, first_line

OK, WARNING, ERROR = "ok", "warning", "error"


def examine():
    """[{"what", "level", "says", "do"}]: `do` is None where nothing is to be done."""
    checks = {
        "Python": python,
        "fairseq": fairseq,
        "fairseq's batches": batching,
        "torch": torch_loading,
        "CTranslate2": search_engine,
        "sacrebleu": similarity,
        "NumPy": numpy_version,
        "threads": threads,
        "GPU": gpu,
    }
    return [attempt(what, check) for what, check in checks.items()]


def attempt(what, check):
    """A check's finding. What is installed wrongly may end in any error as soon as it is asked: that is looked for."""
    try:
        found = check()
    except Exception as error:
        found = finding(
            f"does not work: {type(error).__name__}: {first_line(error)}",
            ERROR,
            "install it again, see the README",
        )
    return {"what": what, **found}


def finding(says, level=OK, do=None):
    return {"level": level, "says": says, "do": do}


def version(package):
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def python():
    found = platform.python_version()
    if platform.python_version_tuple()[:2] in (("3", "11"), ("3", "12")):
        return finding(found)
    return finding(found, WARNING, "use 3.11 or 3.12, with which this package is tested")


def fairseq():
    from fairseq_seqkd import compat

    found = compat.versions()["fairseq"]
    builds = [name for name in ("ve-fairseq", "fairseq-fixed", "fairseq") if version(name)]
    if len(builds) > 1:
        return finding(
            found,
            ERROR,
            f"{' and '.join(builds)} overwrite each other's files: uninstall all but one",
        )
    return finding(found)


def batching():
    """Asks fairseq itself, since it depends on the build: nine sentences in batches of eight."""
    import numpy
    from fairseq.data import data_utils

    sizes = numpy.ones(9, dtype=numpy.int64)
    try:
        batches = data_utils.batch_by_size(
            numpy.arange(9),
            lambda i: 1,
            num_tokens_vec=sizes,
            max_tokens=8,
            required_batch_size_multiple=8,
        )
    except (ImportError, ValueError, TypeError) as error:
        return finding(
            f"cannot be made: {error}",
            ERROR,
            "install fairseq again: its compiled parts do not fit",
        )
    lost = 9 - sum(len(batch) for batch in batches)
    if not lost:
        return finding("hold every sentence")
    return finding(
        "lose up to 7 sentences of a split, the longest ones, in training, validation and fairseq-generate",
        WARNING,
        "pass --required-batch-size-multiple 1 to stock commands; teacher_decoding and seqkd are not affected",
    )


def torch_loading():
    import torch

    from fairseq_seqkd import compat

    if not compat.loads_safely():
        return finding(
            f"{torch.__version__}, too old to load checkpoints safely",
            ERROR,
            "use torch 2.6 or later, on Python 3.11 or later",
        )
    return finding(
        f"{torch.__version__}; stock fairseq loads no checkpoint with it",
        WARNING,
        f"give stock commands --user-dir {Path(__file__).parent} too, which makes them load checkpoints, with weights only",
    )


def search_engine():
    found = version("ctranslate2")
    if found is None:
        return finding(
            "not installed",
            WARNING,
            "pip install 'fairseq_seqkd[ctranslate2]' for the fast engine and for export",
        )
    import ctranslate2

    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
    but = (
        f"; int8 is computed in float32: {int8_support.WITHOUT_VNNI}"
        if int8_support.saturates()
        else ""
    )
    says = f"{found}; on this CPU: {types}{but}"
    import torch

    from fairseq_seqkd.engines.ctranslate2_support import check_installed

    if torch.cuda.is_available():
        try:
            check_installed("float32", on_gpu=True, instead="use --engine fairseq")
        except Refusal as refusal:
            return finding(says, WARNING, refusal.sentence)
    return finding(says)


def similarity():
    return finding(
        f"{version('sacrebleu')}; sentencepiece {version('sentencepiece')}, safetensors {version('safetensors')}"
    )


def numpy_version():
    found = version("numpy")
    if int(found.split(".")[0]) < 2:
        return finding(found)
    return finding(
        f"{found}; fairseq-preprocess --workers N writes corrupt indices beyond 2 GiB with it",
        WARNING,
        "binarise very large corpora with --workers 1; what this package writes is not affected",
    )


def threads():
    told, cores = os.environ.get("OMP_NUM_THREADS"), os.cpu_count()
    if told == "1":
        return finding(f"OMP_NUM_THREADS is 1, {cores} cores")
    return finding(
        f"OMP_NUM_THREADS is {told or 'not set'}, {cores} cores",
        WARNING,
        "export OMP_NUM_THREADS=1 and start as many processes as there are cores (seqkd decode --workers): several threads of "
        "one process wait for each other",
    )


def gpu():
    import torch

    if not torch.cuda.is_available():
        return finding("none that torch can use")
    return finding(
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    )
