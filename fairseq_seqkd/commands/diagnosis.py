"""The checks of ``seqkd doctor``: what is installed, and what is known to be wrong with it."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional

from fairseq_seqkd.engines import int8_support
from fairseq_seqkd.errors import Refusal, first_line

OK, WARNING, ERROR = "ok", "warning", "error"
TESTED_PYTHONS = ("3.11", "3.12")
BATCH_SIZE = 8  # fairseq's default of --required-batch-size-multiple


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        state: what is installed, and what is wrong with it.
        level: OK, WARNING for a known problem that can be avoided, ERROR if it prevents work.
        advice: what to do about it, or None.
    """

    state: str
    level: str = OK
    advice: Optional[str] = None

    def as_json(self, name: str) -> Dict[str, Optional[str]]:
        """Returns the finding as `seqkd doctor --json` prints it, under the name of its check."""
        return {"what": name, "level": self.level, "says": self.state, "do": self.advice}


def examine() -> Dict[str, Finding]:
    """Runs all checks. A check that raises an exception is an error itself."""
    return {name: _attempt(check) for name, check in CHECKS.items()}


def _attempt(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken installation may raise anything
        state = f"does not work: {type(error).__name__}: {first_line(error)}"
        return Finding(state, ERROR, "install it again as docs/install.md says")


def version(package: str) -> Optional[str]:
    """Returns the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python() -> Finding:
    """Compares the version of Python with the tested ones."""
    running = platform.python_version()
    if ".".join(running.split(".")[:2]) in TESTED_PYTHONS:
        return Finding(running)
    tested = " or ".join(TESTED_PYTHONS)
    return Finding(running, WARNING, f"use {tested}, with which this package is tested")


def check_fairseq() -> Finding:
    """Checks that exactly one distribution of fairseq is installed."""
    from fairseq_seqkd import compat

    builds = [name for name in ("ve-fairseq", "fairseq-fixed", "fairseq") if version(name)]
    installed = compat.versions()["fairseq"]
    if len(builds) > 1:
        advice = f"{' and '.join(builds)} overwrite each other's files: uninstall all but one"
        return Finding(installed, ERROR, advice)
    return Finding(installed)


def check_batches() -> Finding:
    """Checks whether fairseq drops the last batch, which depends on its build."""
    import numpy
    from fairseq.data import data_utils

    sentences = BATCH_SIZE + 1
    try:
        batches = data_utils.batch_by_size(
            numpy.arange(sentences),
            lambda i: 1,
            num_tokens_vec=numpy.ones(sentences, dtype=numpy.int64),
            max_tokens=BATCH_SIZE,
            required_batch_size_multiple=BATCH_SIZE,
        )
    except (ImportError, ValueError, TypeError) as error:
        advice = "install fairseq again: its compiled parts do not fit"
        return Finding(f"cannot be made: {error}", ERROR, advice)
    if sum(map(len, batches)) == sentences:
        return Finding("hold every sentence")
    return Finding(
        f"lose up to {BATCH_SIZE - 1} sentences of a split, the longest ones, in training, "
        "validation and fairseq-generate",
        WARNING,
        "pass --required-batch-size-multiple 1 to stock commands; teacher_decoding and seqkd are "
        "not affected",
    )


def check_torch() -> Finding:
    """Checks that torch can load checkpoints without running code from them."""
    import torch

    from fairseq_seqkd import compat

    if not compat.loads_safely():
        return Finding(
            f"{torch.__version__}, too old to load checkpoints safely",
            ERROR,
            "use torch 2.6 or later, on Python 3.11 or later",
        )
    plugin = Path(__file__).parent.parent
    return Finding(
        f"{torch.__version__}; stock fairseq loads no checkpoint with it",
        WARNING,
        f"pass --user-dir {plugin} to stock commands too: it makes them load checkpoints, safely",
    )


def check_ctranslate2() -> Finding:
    """Checks which types CTranslate2 computes in, and whether it can use a GPU that torch sees."""
    installed = version("ctranslate2")
    if installed is None:
        advice = "pip install 'fairseq_seqkd[ctranslate2]' for the fast engine and for export"
        return Finding("not installed", WARNING, advice)
    import ctranslate2
    import torch

    from fairseq_seqkd.engines.ctranslate2_support import check_installed

    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
    state = f"{installed}; on this CPU: {types}"
    if int8_support.saturates():
        state += f"; int8 is computed in float32: {int8_support.WITHOUT_VNNI}"
    if torch.cuda.is_available():
        try:
            check_installed("float32", on_gpu=True, instead="use --engine fairseq")
        except Refusal as refusal:
            return Finding(state, WARNING, refusal.sentence)
    return Finding(state)


def check_sacrebleu() -> Finding:
    """Tells the versions of sacrebleu, SentencePiece and safetensors."""
    return Finding(
        f"{version('sacrebleu')}; sentencepiece {version('sentencepiece')}, "
        f"safetensors {version('safetensors')}"
    )


def check_numpy() -> Finding:
    """Warns of NumPy 2, with which fairseq-preprocess writes corrupt indices."""
    import numpy

    if int(numpy.__version__.split(".")[0]) < 2:
        return Finding(numpy.__version__)
    return Finding(
        f"{numpy.__version__}; fairseq-preprocess --workers N writes corrupt indices beyond 2 GiB "
        "with it",
        WARNING,
        "binarise very large corpora with --workers 1; what this package writes is not affected",
    )


def check_threads() -> Finding:
    """Warns if a process would start several threads."""
    threads, cores = os.environ.get("OMP_NUM_THREADS"), os.cpu_count()
    state = f"OMP_NUM_THREADS is {threads or 'not set'}, {cores} cores"
    if threads == "1":
        return Finding(state)
    return Finding(
        state,
        WARNING,
        "export OMP_NUM_THREADS=1 and start one process per core (seqkd decode --workers): "
        "several threads of one process wait for each other",
    )


def check_gpu() -> Finding:
    """Tells which GPUs torch can use."""
    import torch

    if not torch.cuda.is_available():
        return Finding("none that torch can use")
    names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
    return Finding(", ".join(names))


CHECKS: Dict[str, Callable[[], Finding]] = {
    "Python": check_python,
    "fairseq": check_fairseq,
    "fairseq's batches": check_batches,
    "torch": check_torch,
    "CTranslate2": check_ctranslate2,
    "sacrebleu": check_sacrebleu,
    "NumPy": check_numpy,
    "threads": check_threads,
    "GPU": check_gpu,
}
