"""Criterion `word_kd`: word-level knowledge distillation (Kim & Rush 2016, section 3.1).

It adds one term to fairseq's label-smoothed cross entropy: the cross entropy between the teacher's
and the student's distribution at every target token. `seq_kd` and `seq_inter` extend it.

    fairseq-train data-bin --user-dir fairseq_seqkd --criterion word_kd --teacher-path teacher.pt
"""

import atexit
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.tasks.translation import TranslationTask
from omegaconf import II
from torch import Tensor

from fairseq_seqkd import compat, interrupts
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import checks, loss, soft_targets
from fairseq_seqkd.training.frozen_zeros import FrozenZeros
from fairseq_seqkd.training.open_teacher import open_teacher
from fairseq_seqkd.training.teacher import adaptive_softmax, logits_of

# Some refusals come with the first batch, when fairseq reads further ones ahead.
atexit.register(compat.stop_prefetching)

INTERRUPTED = "run the same command to continue from the last checkpoint in its --save-dir"

# No `from __future__ import annotations` here: fairseq builds its options from the types of the
# fields, and cannot read types that are strings.


def option(default: Any, help_text: str) -> Any:
    """Declares an option of the criterion."""
    return field(default=default, metadata={"help": help_text})


@dataclass
class WordKDConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """The options of the criterions, besides those of label_smoothed_cross_entropy."""

    teacher_path: Optional[str] = option(
        None,
        "checkpoint of the teacher; several, separated by colons, are an ensemble whose "
        "probabilities are averaged",
    )
    alpha: Optional[float] = option(
        None,
        "weight of the distillation term, in [0, 1]; the likelihood of the target has weight "
        f"1 - alpha (default: {loss.DEFAULT_ALPHA} with a teacher, 0 without one)",
    )
    temperature: float = option(
        1.0,
        "softmax temperature of both distributions; the term is multiplied by its square",
    )
    teacher_distributions: Optional[str] = option(
        None,
        "directory of stored teacher distributions on these targets, written by fairseq-generate "
        "--task teacher_decoding --score-reference; replaces --teacher-path; several, for train, "
        "train1 and so on, are separated by colons",
    )
    tail: ChoiceEnum(soft_targets.TAILS) = option(  # type: ignore[valid-type]
        soft_targets.SPREAD,
        "probability mass outside the stored top k: 'spread' distributes it evenly over the other "
        "symbols, 'ignore' renormalises the top k",
    )
    divergence: ChoiceEnum(soft_targets.NAMES) = option(  # type: ignore[valid-type]
        soft_targets.FORWARD_KL,
        "divergence between teacher and student; all but forward_kl need --teacher-path",
    )
    freeze_zeros: bool = option(
        False,
        "keep weights at zero that are zero in the restored checkpoint (for retraining after "
        "`seqkd prune`)",
    )
    # fairseq's own option
    load_checkpoint_on_all_dp_ranks: bool = II("checkpoint.load_checkpoint_on_all_dp_ranks")


@register_criterion("word_kd", dataclass=WordKDConfig)
class WordKDCriterion(LabelSmoothedCrossEntropyCriterion):
    """loss = (1 - alpha) * label-smoothed NLL + alpha * T^2 * CE(q_T, p_T), summed over tokens.

    Here p is the student, q the teacher, and T the temperature. In validation the teacher is not
    used: loss, nll_loss and ppl are those of label_smoothed_cross_entropy, so that all methods can
    be compared on gold.

    Args:
        cfg: the options.
        task: the student's.

    Raises:
        Refusal: options, data or teacher are wrong.
    """

    needs_teacher = True

    def __init__(self, cfg: WordKDConfig, task: TranslationTask) -> None:
        super().__init__(
            task,
            cfg.sentence_avg,
            cfg.label_smoothing,
            cfg.ignore_prefix_size,
            cfg.report_accuracy,
        )
        self.objective = checks.objective(cfg, self.needs_teacher)
        self.frozen_zeros = FrozenZeros() if cfg.freeze_zeros else None
        # No torch module, so it is neither trained nor saved; see training/teacher.py.
        self.teacher: Any = None
        self.is_checked = False  # whether the teacher's first distributions are finite
        if compat.is_validating():
            return  # any data will do, and the teacher may no longer exist
        if compat.is_training():
            speaks = checks.is_first_process()
            interrupts.end_with(INTERRUPTED, busy=compat.is_saving, speaks=speaks)
            checks.check_resumable(cfg.load_checkpoint_on_all_dp_ranks)
        if not isinstance(task, TranslationTask):
            raise Refusal(
                f"a student trains under the task translation, not {type(task).__name__}; leave "
                "out --task"
            )
        self.check_data(task)
        if self.objective.alpha > 0:
            self.teacher = open_teacher(cfg, task)

    @classmethod
    def build_criterion(cls, cfg: WordKDConfig, task: TranslationTask) -> "WordKDCriterion":
        """Builds the criterion from its whole configuration."""
        return cls(cfg, task)

    def check_data(self, task: TranslationTask) -> None:
        """Checks the data directories. `seq_kd` and `seq_inter` require a finished view."""
        checks.check_directories(task)

    def forward(
        self, model: BaseFairseqModel, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Computes the loss of a batch.

        Args:
            model: the student.
            sample: a batch of fairseq's LanguagePairDataset.
            reduce: whether to sum the loss over tokens.

        Returns:
            The loss in nats, the sample size, and the values to log.
        """
        if self.frozen_zeros:
            self.frozen_zeros.step(model)
        if self.teacher is None or not model.training:
            return super().forward(model, sample, reduce=reduce)
        if adaptive_softmax(model) is not None:
            raise Refusal(
                "a student with an adaptive softmax has no gradient for whole distributions in "
                "fairseq; leave out --adaptive-softmax-cutoff (a teacher may have one)"
            )
        target = sample["target"][:, self.ignore_prefix_size :]
        keep = target.ne(self.padding_idx).flatten()
        like = next(model.parameters())
        soft, teacher_lprobs = self.teacher.soft_targets(
            sample, target, like, self.objective.temperature
        )
        if not self.is_checked:  # once, because a GPU would wait for it
            checks.check_finite(teacher_lprobs[keep], like.dtype)
            self.is_checked = True
        net_output = model(**sample["net_input"])
        logits = logits_of(model, net_output)[:, self.ignore_prefix_size :]
        rows = loss.word_level(logits.flatten(0, 1), target.flatten(), keep, soft, self.objective)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": rows.loss.data.sum(),
            "nll_loss": rows.nll.sum(),
            "kd_loss": rows.kd.sum(),
            "teacher_nll_loss": -teacher_lprobs.masked_fill(~keep, 0.0).sum(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logging_output["n_correct"] = utils.item(n_correct.data)
            logging_output["total"] = utils.item(total.data)
        return rows.loss.sum() if reduce else rows.loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregates the logging outputs of all workers.

        Besides fairseq's metrics there are, in training, kd_loss and the teacher's own NLL, in bits
        per token.
        """
        super().reduce_metrics(logging_outputs)
        ntokens = sum(log.get("ntokens", 0) for log in logging_outputs)
        for key in ("kd_loss", "teacher_nll_loss"):
            if any(key in log for log in logging_outputs):
                total = sum(log.get(key, 0) for log in logging_outputs)
                metrics.log_scalar(key, total / ntokens / math.log(2), ntokens, round=3)
