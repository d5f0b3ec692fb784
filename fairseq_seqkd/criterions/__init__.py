"""The training objectives. Importing it registers `word_kd`, `seq_kd`, `seq_inter` with fairseq."""

from fairseq_seqkd.criterions import seq_inter, seq_kd, word_kd  # noqa: F401
