"""Criterion `seq_kd`: likelihood of the teacher's translations (Kim & Rush 2016, section 3.2).

The targets are those of `distilled/seq_kd`, which the task `teacher_decoding` writes. The criterion
checks that. With `--teacher-path` it adds the word-level term: the paper's "Seq-KD + Word-KD".

    fairseq-train distilled/seq_kd --user-dir fairseq_seqkd --criterion seq_kd ...
"""

from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.corpus.manifest import SEQ_KD
from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion
from fairseq_seqkd.training import checks


@register_criterion(SEQ_KD, dataclass=WordKDConfig)
class SeqKDCriterion(WordKDCriterion):
    """Criterion word_kd on the teacher's targets, where the word-level term is optional."""

    needs_teacher = False
    view = SEQ_KD

    def check_data(self, task: TranslationTask) -> None:
        """Checks that every data directory is the view that this criterion is for."""
        for folder in utils.split_paths(task.cfg.data):
            checks.check_trains_on_view(folder, self.view, task)
        super().check_data(task)
