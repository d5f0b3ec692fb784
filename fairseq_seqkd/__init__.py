"""Sequence-level knowledge distillation (Kim & Rush, EMNLP 2016) as a plugin for fairseq.

fairseq imports it with `--user-dir fairseq_seqkd`, after it has loaded itself. That registers the
criterions `word_kd`, `seq_kd`, `seq_inter` and the task `teacher_decoding`. A process that has not
loaded fairseq, like the command `seqkd`, does not spend the four seconds of importing it: call
`register()` when the names are needed.
"""

import sys

from fairseq_seqkd.version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Registers the criterions and the task with fairseq. Calling it again does nothing."""
    import fairseq_seqkd.compat  # noqa: F401  (lets fairseq load its own checkpoints, safely)
    import fairseq_seqkd.criterions
    import fairseq_seqkd.tasks  # noqa: F401


if "fairseq" in sys.modules:
    register()
