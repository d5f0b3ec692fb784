"""Criterion `word_kd`: at every target token, learn from the teacher's distribution besides the token itself.

Kim & Rush 2016, section 3.1. It is fairseq's label-smoothed cross entropy plus one term, and the base of `seq_kd` and
`seq_inter`, where that term is the paper's "+ Word-KD".

    fairseq-train data-bin --user-dir fairseq_seqkd --criterion word_kd --teacher-path teacher.pt ...
"""

import atexit
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks.translation import TranslationTask
from omegaconf import II

from fairseq_seqkd import compat, interrupts
from fairseq_seqkd.checkpoint import Checkpoint, load_ensemble
from fairseq_seqkd.compression.pruning import FrozenZeros
from fairseq_seqkd.corpus.databin import LanguagePair, check_files, further_splits, load_dictionary
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import loss as losses
from fairseq_seqkd.training import soft_targets as divergences
from fairseq_seqkd.training import teacher as teachers
from fairseq_seqkd.training.stored_teacher import StoredTeacher

logger = logging.getLogger(__name__)
atexit.register(
    compat.stop_prefetching
)  # some refusals come with the first batch, when that has begun


@dataclass
class WordKDConfig(LabelSmoothedCrossEntropyCriterionConfig):
    teacher_path: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of the teacher; several separated by colons are an ensemble, their probabilities averaged"
        },
    )
    alpha: Optional[float] = field(
        default=None,
        metadata={
            "help": "weight of the teacher's distributions, in [0, 1]; the target's likelihood has 1 - alpha "
            f"(default: {losses.DEFAULT_ALPHA} with a teacher, 0 without one)"
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={
            "help": "both distributions are flattened by this temperature; the term is multiplied by its square"
        },
    )
    teacher_distributions: Optional[str] = field(
        default=None,
        metadata={
            "help": "instead of --teacher-path: directory of the teacher's distributions on these targets, as fairseq-generate "
            "--task teacher_decoding --score-reference leaves it; several, for train, train1 and so on, separated by colons"
        },
    )
    tail: ChoiceEnum(divergences.TAILS) = field(
        default=divergences.SPREAD,
        metadata={
            "help": "the mass of the symbols that --teacher-distributions does not hold: spread evenly over them, or ignore it "
            "and make the others sum to 1"
        },
    )
    divergence: ChoiceEnum(divergences.NAMES) = field(
        default=divergences.FORWARD_KL,
        metadata={
            "help": "what the student learns from a teacher's distribution by; others than forward_kl need --teacher-path"
        },
    )
    freeze_zeros: bool = field(
        default=False,
        metadata={
            "help": "weights that are zero in the restored checkpoint stay zero: for retraining what `seqkd prune` made"
        },
    )
    load_checkpoint_on_all_dp_ranks: bool = II(
        "checkpoint.load_checkpoint_on_all_dp_ranks"
    )  # fairseq's own option


@register_criterion("word_kd", dataclass=WordKDConfig)
class WordKDCriterion(LabelSmoothedCrossEntropyCriterion):
    """(1 - alpha) * label-smoothed NLL(target) + alpha * T^2 * CE(teacher_T, student_T), summed over tokens.

    In validation the teacher is not asked: loss, nll_loss and ppl are those of label_smoothed_cross_entropy, so that
    every method can be compared on gold.
    """

    needs_teacher = True

    def __init__(
        self,
        task,
        sentence_avg,
        label_smoothing,
        ignore_prefix_size=0,
        report_accuracy=False,
        teacher_path=None,
        alpha=None,
        temperature=1.0,
        teacher_distributions=None,
        tail=divergences.SPREAD,
        divergence=divergences.FORWARD_KL,
        freeze_zeros=False,
        load_checkpoint_on_all_dp_ranks=True,
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        has_teacher = bool(teacher_path or teacher_distributions)
        alpha = losses.weight_of_teacher(alpha, has_teacher=has_teacher or self.needs_teacher)
        self.objective = losses.Objective(alpha, label_smoothing, temperature, str(divergence))
        check_options(self.objective, teacher_path, teacher_distributions, str(tail))
        self.freeze_zeros, self.frozen, self.was_training = freeze_zeros, None, False
        # Not a module, so it is neither trained nor saved, nor switched to training mode (see teachers.py).
        self.teacher, self.heard = None, False
        if compat.is_validating():
            return  # on any data, and the teacher need not be there any more
        if compat.is_training():
            said = "the same command goes on from the last checkpoint in its --save-dir"
            interrupts.end_with(said, busy=compat.is_saving, speaks=is_first_process())
            check_resumable(load_checkpoint_on_all_dp_ranks)
        if not isinstance(task, TranslationTask):
            raise Refusal(
                f"a student trains under the task translation; {type(task).__name__} is another, so leave out --task"
            )
        for folder in utils.split_paths(task.cfg.data):
            self.check_data(folder, task.cfg.train_subset)
            check_read_alike(folder, task)
        if alpha > 0 and teacher_distributions:
            self.teacher = StoredTeacher(
                utils.split_paths(teacher_distributions), task, str(tail), is_first_process()
            )
        elif alpha > 0:
            self.teacher = prepare_teacher(task, teacher_path)

    def check_data(self, folder, subset):
        """Any data will do; `seq_kd` and `seq_inter` ask for a finished view, and for the subset that it is of."""

    def forward(self, model, sample, reduce=True):
        """Returns (loss, sample size, logging output) as every criterion of fairseq."""
        if self.freeze_zeros:
            self._keep_zeros(model)
        if self.teacher is None or not model.training:
            return super().forward(model, sample, reduce=reduce)
        if (
            getattr(getattr(teachers.unwrapped(model), "decoder", None), "adaptive_softmax", None)
            is not None
        ):
            raise Refusal(
                "a student with an adaptive softmax has no gradient for whole distributions in fairseq; leave out "
                "--adaptive-softmax-cutoff (a teacher may have one)"
            )
        target = sample["target"][:, self.ignore_prefix_size :]
        keep = target.ne(self.padding_idx)
        like = next(model.parameters())
        soft, teacher_lprobs = self.teacher.soft_targets(
            sample, target, like, self.objective.temperature
        )
        if not self.heard:  # once, since it waits for the GPU
            self.heard = True
            check_finite(teacher_lprobs[keep.flatten()], like.dtype)
        net_output = model(**sample["net_input"])
        logits = teachers.logits_of(model, net_output)[:, self.ignore_prefix_size :]
        rows = losses.word_level(
            logits.flatten(0, 1), target.flatten(), keep.flatten(), soft, self.objective
        )
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": rows.loss.data.sum(),
            "nll_loss": rows.nll.sum(),
            "kd_loss": rows.kd.sum(),
            "teacher_nll_loss": -teacher_lprobs.masked_fill(~keep.flatten(), 0.0).sum(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logging_output["n_correct"] = utils.item(n_correct.data)
            logging_output["total"] = utils.item(total.data)
        return rows.loss.sum() if reduce else rows.loss, sample_size, logging_output

    def _keep_zeros(self, model):
        """Freezes the zeros at the first training step, when the checkpoint is restored; counts them in every validation."""
        if self.frozen is None and model.training:
            self.frozen = FrozenZeros(model)
            logger.info("--freeze-zeros: %d weights are zero and stay so", self.frozen.check())
        elif self.frozen is not None and not model.training and self.was_training:
            logger.info("--freeze-zeros: all %d zeros are there", self.frozen.check())
        self.was_training = model.training

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """fairseq's metrics, and in training the teacher's part and its own NLL, in bits a token."""
        super().reduce_metrics(logging_outputs)
        ntokens = sum(log.get("ntokens", 0) for log in logging_outputs)
        for key in ("kd_loss", "teacher_nll_loss"):
            if any(key in log for log in logging_outputs):
                total = sum(log.get(key, 0) for log in logging_outputs)
                metrics.log_scalar(key, total / ntokens / math.log(2), ntokens, round=3)


def is_first_process():
    """Whether this is the process, of those that train together, that reads files from end to end to see that they are whole."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def check_resumable(on_all_ranks):
    """Refuses, before it has trained anything, a training by several processes that could not begin from its own checkpoint."""
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if several and not on_all_ranks:
        raise Refusal(
            "several processes that train together cannot begin from a checkpoint, their own after a break among them: torch "
            "refuses the form in which fairseq's first process sends it to the others; pass --load-checkpoint-on-all-dp-ranks"
        )


def check_finite(teacher_lprobs, dtype):
    """Refuses a teacher that overflows in the student's precision: fairseq would lower its loss scale until it gives up."""
    if not torch.isfinite(teacher_lprobs).all():
        raise Refusal(
            f"the teacher's distributions on the first batch are no numbers in {str(dtype).removeprefix('torch.')}; store them "
            "in float32 (fairseq-generate --task teacher_decoding --score-reference) and train with --teacher-distributions, or "
            "leave out --fp16"
        )


def check_options(objective, teacher_path, teacher_distributions, tail):
    """Refuses values that make no sense, before anything is loaded."""
    alpha, temperature, smoothing = (
        objective.alpha,
        objective.temperature,
        objective.label_smoothing,
    )
    if not 0 <= alpha <= 1:
        raise Refusal(
            f"--alpha is {alpha}, it must lie between 0 (the target alone) and 1 (the teacher alone)"
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise Refusal(f"--temperature is {temperature}, it must be positive")
    if not 0 <= smoothing < 1:
        raise Refusal(f"--label-smoothing is {smoothing}, it must be at least 0 and less than 1")
    if teacher_path and teacher_distributions:
        raise Refusal(
            "--teacher-path and --teacher-distributions are two ways to the same; name one of them"
        )
    if alpha > 0 and not (teacher_path or teacher_distributions):
        raise Refusal(
            f"--alpha {alpha} asks for a teacher: name its checkpoint with --teacher-path, or what is stored of it with "
            "--teacher-distributions, or set --alpha 0"
        )
    if tail != divergences.SPREAD and not teacher_distributions:
        raise Refusal(
            f"--tail {tail} is for --teacher-distributions; a live teacher's distributions have no tail"
        )
    if temperature != 1 and not (teacher_path or teacher_distributions):
        raise Refusal(
            f"--temperature {temperature} flattens a teacher's distributions; name one with --teacher-path, or leave it out"
        )
    if objective.divergence != divergences.FORWARD_KL and not alpha:
        raise Refusal(
            f"--divergence {objective.divergence} compares with a teacher; name one with --teacher-path"
        )
    if teacher_distributions and objective.divergence != divergences.FORWARD_KL:
        raise Refusal(
            f"--divergence {objective.divergence} needs the teacher's whole distributions: name its checkpoint with "
            "--teacher-path instead of --teacher-distributions"
        )


def check_read_alike(folder, task):
    """Refuses a data directory that fairseq would read with another's dictionaries, and splits that it cannot put together."""
    languages, first = (
        LanguagePair(task.cfg.source_lang, task.cfg.target_lang),
        utils.split_paths(task.cfg.data)[0],
    )
    for lang in languages:
        # Files are compared, not the task's dictionaries: a task may add symbols of its own.
        read, mine = (Path(where) / f"dict.{lang}.txt" for where in (first, folder))
        if mine.is_file() and load_dictionary(mine) != load_dictionary(read):
            raise Refusal(
                f"{mine} is another dictionary than that of {first}, with which fairseq reads all data directories; binarise "
                "them with one (fairseq-preprocess --srcdict, --tgtdict)"
            )
    subset = task.cfg.train_subset.split(",")[0]
    further = further_splits(folder, subset, languages)
    if further and task.cfg.upsample_primary < 1:
        raise Refusal(
            f"{folder} holds {further[0]!r} too, which fairseq adds to {subset!r} only with --upsample-primary: pass "
            "--upsample-primary 1, or how many times it sees each sentence of the first"
        )


def prepare_teacher(task, teacher_path):
    """Loads the teacher and checks it against the student's dictionaries, training sentences' lengths, and the first of them."""
    folders, subset = utils.split_paths(task.cfg.data), task.cfg.train_subset.split(",")[0]
    languages = LanguagePair(task.cfg.source_lang, task.cfg.target_lang)
    dictionaries = (task.source_dictionary, task.target_dictionary)
    checkpoints = [Checkpoint(path, role="teacher") for path in utils.split_paths(teacher_path)]
    for checkpoint in checkpoints:
        checkpoint.check_known()
        teachers.check_teacher(checkpoint, languages, dictionaries, teachers.OWN_VOCABULARY)
    # Of its own training subset fairseq reads all data directories, of another only the first.
    models, own_task = load_ensemble(
        checkpoints,
        task.cfg.data,
        languages,
        train_subset=subset,
        dataset_impl=task.cfg.dataset_impl,
    )
    teacher = teachers.Teacher(models)
    for epoch in range(len(folders), 0, -1):  # each of which fairseq-train gives to another folder
        check_files(folders[epoch - 1], subset)  # fairseq itself would end with a traceback
        try:
            own_task.load_dataset(subset, epoch=epoch, combine=True)
        except FileNotFoundError:
            raise Refusal(
                f"there is no split {subset!r} in {folders[epoch - 1]}; name it with --train-subset"
            ) from None
        dataset = own_task.dataset(subset)
        teachers.check_positions(
            teacher, dataset, task.max_positions(), teacher_path, task.cfg.truncate_source
        )
    teachers.check_better_than_guessing(teacher, dataset, task.target_dictionary, teacher_path)
    return teacher
