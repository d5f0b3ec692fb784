"""Sequence-level knowledge distillation (Kim & Rush, EMNLP 2016) as a plugin for an unmodified fairseq.

Importing it registers the criterions `word_kd`, `seq_kd`, `seq_inter` and the task `teacher_decoding`. fairseq does
that with `--user-dir fairseq_seqkd`, after it has loaded itself. Where fairseq is not loaded, as in the `seqkd`
command, the four seconds of importing it are not spent: call `register()` when you want the names from Python.
"""

import sys

from fairseq_seqkd.version import __version__

__all__ = ["__version__", "register"]


def register():
    """Registers the criterions and the task with fairseq. Calling it again does nothing."""
    import fairseq_seqkd.compat  # noqa: F401  (lets fairseq load its own checkpoints, safely)
    import fairseq_seqkd.criterions
    import fairseq_seqkd.tasks  # noqa: F401


if "fairseq" in sys.modules:
    register()
