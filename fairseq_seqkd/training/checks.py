"""Whether a training makes sense: its options, its data directories and its processes."""

import math
from pathlib import Path
from typing import Any, Sequence

import torch
from fairseq import utils
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.corpus.databin import (
    LanguagePair,
    further_splits,
    load_dictionary,
    training_splits,
)
from fairseq_seqkd.corpus.views import check_contents, check_view
from fairseq_seqkd.errors import Problems, Refusal
from fairseq_seqkd.training.loss import Objective, weight_of_teacher
from fairseq_seqkd.training.soft_targets import FORWARD_KL, SPREAD


def is_first_process() -> bool:
    """Returns whether this is the first of the processes that train together.

    It alone reads whole files for their checksums, and speaks to the user.
    """
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def objective(cfg: Any, needs_teacher: bool) -> Objective:
    """Returns the objective that the options of a criterion describe.

    Args:
        cfg: a WordKDConfig.
        needs_teacher: whether the criterion makes no sense without a teacher.

    Raises:
        Refusal: options are out of range or contradict each other. It names all of them.
    """
    stored, has_teacher = cfg.teacher_distributions, bool(cfg.teacher_path)
    has_teacher |= bool(stored)
    alpha = weight_of_teacher(cfg.alpha, has_teacher or needs_teacher)
    temperature, smoothing, divergence = cfg.temperature, cfg.label_smoothing, str(cfg.divergence)
    problems = Problems()
    problems.require(
        0 <= alpha <= 1,
        f"--alpha is {alpha}, it must be between 0 (the target alone) and 1 (the teacher alone)",
    )
    problems.require(
        temperature > 0 and math.isfinite(temperature),
        f"--temperature is {temperature}, it must be positive",
    )
    problems.require(
        0 <= smoothing < 1,
        f"--label-smoothing is {smoothing}, it must be at least 0 and less than 1",
    )
    problems.require(
        not (cfg.teacher_path and stored),
        "--teacher-path and --teacher-distributions exclude each other; pass one of them",
    )
    problems.require(
        has_teacher or not alpha > 0,
        f"--alpha {alpha} needs a teacher; pass its checkpoint with --teacher-path or its stored "
        "distributions with --teacher-distributions, or set --alpha 0",
    )
    problems.require(
        str(cfg.tail) == SPREAD or stored,
        f"--tail {cfg.tail} is for --teacher-distributions; a live teacher's distributions have "
        "no tail; leave it out",
    )
    problems.require(
        temperature == 1 or has_teacher,
        f"--temperature {temperature} softens a teacher's distributions; pass one with "
        "--teacher-path, or leave it out",
    )
    problems.require(
        divergence == FORWARD_KL or alpha,
        f"--divergence {divergence} compares with a teacher; pass one with --teacher-path",
    )
    problems.require(
        divergence == FORWARD_KL or not stored,
        f"--divergence {divergence} needs the teacher's complete distributions; pass its "
        "checkpoint with --teacher-path instead of --teacher-distributions",
    )
    problems.refuse()
    return Objective(alpha, smoothing, temperature, divergence)


def check_resumable(on_all_ranks: bool) -> None:
    """Checks that several processes could continue from their own checkpoint.

    Args:
        on_all_ranks: fairseq's --load-checkpoint-on-all-dp-ranks.

    Raises:
        Refusal: they could not.
    """
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if several and not on_all_ranks:
        raise Refusal(
            "several processes that train together cannot begin from a checkpoint, not even from "
            "their own after an interruption: torch refuses the form in which fairseq's first "
            "process sends it to the others; pass --load-checkpoint-on-all-dp-ranks"
        )


def check_finite(teacher_lprobs: torch.Tensor, dtype: torch.dtype) -> None:
    """Checks that a teacher does not overflow in the precision of the student.

    fairseq would otherwise lower its loss scale until it gives up.

    Args:
        teacher_lprobs: (tokens,) log-probabilities of the first batch.
        dtype: the student's.

    Raises:
        Refusal: one of them is infinite or NaN.
    """
    if not torch.isfinite(teacher_lprobs).all():
        raise Refusal(
            "the teacher's distributions on the first batch are NaN or infinite in "
            f"{str(dtype).removeprefix('torch.')}; store them in float32 (fairseq-generate --task "
            "teacher_decoding --score-reference) and train with --teacher-distributions, or leave "
            "out --fp16"
        )


def check_directories(task: TranslationTask) -> None:
    """Checks that fairseq reads all data directories of a training with the same dictionaries.

    Raises:
        Refusal: dictionaries differ, or fairseq would leave out further splits (train1, ...).
    """
    languages = LanguagePair(task.cfg.source_lang, task.cfg.target_lang)
    folders = utils.split_paths(task.cfg.data)
    for folder in folders:
        _check_dictionaries(folder, folders[0], languages)
        subset = task.cfg.train_subset.split(",")[0]
        further = further_splits(folder, subset, languages)
        if further and task.cfg.upsample_primary < 1:
            raise Refusal(
                f"{folder} also holds {further[0]!r}, which fairseq adds to {subset!r} only with "
                "--upsample-primary; pass --upsample-primary 1, or the number of times that "
                f"{subset!r} is repeated"
            )


def _check_dictionaries(folder: str, first: str, languages: Sequence[str]) -> None:
    # Files are compared, not the task's dictionaries: a task may add symbols of its own.
    for language in languages:
        here, used = (Path(name) / f"dict.{language}.txt" for name in (folder, first))
        if here.is_file() and load_dictionary(here) != load_dictionary(used):
            raise Refusal(
                f"{here} differs from the dictionary in {first}, with which fairseq reads all data "
                "directories; binarise them with one (fairseq-preprocess --srcdict, --tgtdict)"
            )


def check_trains_on_view(folder: str, view: str, task: TranslationTask) -> None:
    """Checks that a data directory is a finished view, and is used as such.

    Args:
        folder: the data directory.
        view: "seq_kd" or "seq_inter".
        task: the student's.

    Raises:
        Refusal: the directory is something else, or fairseq would train on more or on less.
    """
    subset, content = task.cfg.train_subset, check_view(folder, view)
    if subset != content.split:
        raise Refusal(
            f"--train-subset is {subset}, but the teacher's translations in {folder} are split "
            f"{content.split!r}; pass --train-subset {content.split}"
        )
    languages = LanguagePair(task.cfg.source_lang, task.cfg.target_lang)
    if languages != content.languages:
        # The files may be called de-en for either direction, and fairseq goes by that.
        source, target = content.languages
        raise Refusal(
            f"the teacher's translations in {folder} are {content.languages}, but this training is "
            f"for {languages}; pass --source-lang {source} --target-lang {target}"
        )
    further = training_splits(folder, subset, languages)[1:]
    if further:
        raise Refusal(
            f"{folder} also holds {further[0].name!r}, which is not from the teacher, and "
            "fairseq-train would train on it, too; move its files away"
        )
    if is_first_process():
        names = [name for name in content.files or () if name.startswith((content.split, "dict."))]
        check_contents(folder, content, names)
