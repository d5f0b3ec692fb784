"""Importing this registers the task `teacher_decoding` with fairseq."""

from fairseq_seqkd.tasks import teacher_decoding  # noqa: F401
