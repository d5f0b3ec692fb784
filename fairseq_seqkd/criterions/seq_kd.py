"""Criterion `seq_kd`: likelihood of the teacher's own translations (Kim & Rush 2016, section 3.2).

The sequences come from the data directory, `distilled/seq_kd`, which the task `teacher_decoding` made; this criterion
makes sure of that. With `--teacher-path` it adds the word-level term: the paper's "Seq-KD + Word-KD".

    fairseq-train distilled/seq_kd --user-dir fairseq_seqkd --criterion seq_kd ...
"""

from fairseq.criterions import register_criterion

from fairseq_seqkd.corpus.databin import LanguagePair, training_splits
from fairseq_seqkd.corpus.manifest import SEQ_KD
from fairseq_seqkd.corpus.views import check_contents, check_view
from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion, is_first_process
from fairseq_seqkd.errors import Refusal


@register_criterion(SEQ_KD, dataclass=WordKDConfig)
class SeqKDCriterion(WordKDCriterion):
    """word_kd whose teacher is optional, on a data directory whose targets are the teacher's."""

    needs_teacher = False
    view = SEQ_KD

    def check_data(self, folder, subset):
        found = check_view(folder, self.view)
        if subset != found.split:
            raise Refusal(
                f"--train-subset is {subset}, but the teacher's translations in {folder} are its split {found.split!r}; "
                f"train on that with --train-subset {found.split}"
            )
        languages, theirs = (
            LanguagePair(self.task.cfg.source_lang, self.task.cfg.target_lang),
            found.languages,
        )
        if (
            languages != theirs
        ):  # its files may be called de-en in either direction, and fairseq goes by that
            raise Refusal(
                f"the teacher's translations in {folder} are {theirs}, and this is training for {languages}; "
                f"pass --source-lang {theirs.source} --target-lang {theirs.target}"
            )
        further = training_splits(folder, subset, languages)[1:]
        if further:
            raise Refusal(
                f"{folder} holds {further[0].name!r} too, on which fairseq-train would train besides, and which is not the "
                "teacher's; move its files away"
            )
        if is_first_process():
            check_contents(
                folder,
                found,
                [name for name in found.files if name.startswith((found.split, "dict."))],
            )
