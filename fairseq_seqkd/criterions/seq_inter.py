"""Criterion `seq_inter`: likelihood of the hypotheses closest to gold.

Kim & Rush 2016, section 3.3. The targets are those of `distilled/seq_inter`. As in the
paper, it fine-tunes a trained student:

    fairseq-train distilled/seq_inter --user-dir fairseq_seqkd --criterion seq_inter \\
        --finetune-from-model student.pt ...
"""

from fairseq.criterions import register_criterion

from fairseq_seqkd.corpus.manifest import SEQ_INTER
from fairseq_seqkd.criterions.seq_kd import SeqKDCriterion
from fairseq_seqkd.criterions.word_kd import WordKDConfig


@register_criterion(SEQ_INTER, dataclass=WordKDConfig)
class SeqInterCriterion(SeqKDCriterion):
    """Criterion seq_kd on the other view."""

    view = SEQ_INTER
