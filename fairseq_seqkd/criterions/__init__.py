"""The training objectives. Importing this registers `word_kd`, `seq_kd` and `seq_inter` with fairseq."""

from fairseq_seqkd.criterions import seq_inter, seq_kd, word_kd  # noqa: F401
