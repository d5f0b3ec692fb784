"""Whether a teacher belongs to the data at hand. The checks run before any long work."""

import logging
import math
from typing import Any, List, Optional, Sequence

import numpy as np
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.teacher import Teacher

logger = logging.getLogger(__name__)

OWN_VOCABULARY = (  # a student's alternative; a decode has no student yet
    "; a student with a vocabulary of its own learns from text: `seqkd text distilled --view "
    "seq_kd -o PREFIX`, then fairseq-preprocess, and label_smoothed_cross_entropy"
)
PROBE_SENTENCES = 64  # enough to tell a teacher from chance, in less than a second
PROBE_BATCH = 8  # sentences: their tokens times the vocabulary must fit in memory


def check_teacher(
    checkpoint: Checkpoint,
    languages: LanguagePair,
    dictionaries: Sequence[Dictionary],
    alternative: str = "",
) -> None:
    """Checks that a checkpoint is a teacher for the data at hand.

    Args:
        checkpoint: the teacher, or a member of an ensemble.
        languages: the languages of the data.
        dictionaries: their source and target dictionaries.
        alternative: another way out than other dictionaries, which ends the sentence of an error.

    Raises:
        Refusal: the checkpoint is multilingual, no encoder-decoder model, of another language
            pair, or of other dictionaries.
    """
    if checkpoint.is_multilingual:
        raise Refusal(
            f"{checkpoint} is multilingual: its distributions need the student's dictionary and "
            "task, which it has not; decode with it (fairseq-generate --task teacher_decoding) and "
            "train on seq_kd/ in its --distill-dir (for a student with a dictionary of its own: "
            "seqkd text DISTILLED --view seq_kd -o PREFIX)"
        )
    for side in ("encoder", "decoder"):
        if not any(name.startswith(f"{side}.") for name in checkpoint.weights):
            raise Refusal(
                f"{checkpoint} has no {side}: it is a language model, or of a task with several "
                "models; pass a checkpoint that was trained under the task translation"
            )
    trained = checkpoint.languages
    if trained not in (None, languages):
        raise Refusal(
            f"{checkpoint} translates {trained}, the data are {languages}; use a teacher of that "
            "direction or, where these are two names of one language, data-bins with the "
            "teacher's names"
        )
    checkpoint.check_dictionaries(languages, dictionaries, alternative)


def check_positions(
    teacher: Teacher,
    dataset: LanguagePairDataset,
    task_positions: Sequence[int],
    name: str,
    truncated: bool = False,
) -> None:
    """Checks that the teacher can read every training sentence that the student's task admits.

    Args:
        teacher: the teacher.
        dataset: of whole sentences.
        task_positions: tokens of a source and of a target that the task admits.
        name: of the teacher, for the sentence of an error.
        truncated: whether longer sources are truncated instead of being left out.

    Raises:
        Refusal: a sentence is longer than the teacher reads.
    """
    for model in teacher.models:
        limits = model.max_positions()
        lengths = (dataset.src_sizes, dataset.tgt_sizes)
        sides = zip(("source", "target"), lengths, limits, task_positions)
        for side, sizes, limit, allowed in sides:
            if limit is None or sizes is None or limit >= allowed or not len(sizes):
                continue
            read = np.minimum(sizes, allowed) if truncated and side == "source" else sizes
            longest = int(read[read <= allowed].max(initial=0))
            if longest > limit:
                raise Refusal(
                    f"a training sentence has {longest:,} {side} tokens, the teacher {name} reads "
                    f"{limit:,}; pass --max-{side}-positions {limit} "
                    "--skip-invalid-size-inputs-valid-test"
                )


def check_better_than_guessing(
    teacher: Teacher, dataset: LanguagePairDataset, dictionary: Dictionary, name: str
) -> Optional[float]:
    """Checks that the NLL on the first sentences is below that of a uniform guess, log(vocabulary).

    A dictionary in another order, another direction and a broken checkpoint all fail here.

    Args:
        teacher: the teacher.
        dataset: the data.
        dictionary: of the target.
        name: of the teacher, for the sentence of an error.

    Returns:
        The NLL in nats per token, or None if there are no targets.

    Raises:
        Refusal: the teacher is no better than guessing.
    """
    if dataset.tgt_sizes is None:
        return None
    # An empty target has nothing to translate.
    ids = readable(teacher, dataset, PROBE_SENTENCES, shortest_target=2)
    batches = [ids[start : start + PROBE_BATCH] for start in range(0, len(ids), PROBE_BATCH)]
    lprobs = [_target_lprobs(teacher, dataset, batch, dictionary.pad()) for batch in batches]
    tokens = sum(map(len, lprobs))
    if not tokens:
        return None
    nll = -sum(batch.sum().item() for batch in lprobs) / tokens
    guess = math.log(len(dictionary))
    if not nll < guess:  # NaN is no better either
        raise Refusal(
            f"the teacher {name} is no better than guessing on the first {len(ids)} sentences "
            f"({nll:.2f} nats per token, a uniform guess among {len(dictionary):,} symbols costs "
            f"{guess:.2f}): it was trained with other dictionaries, on another language pair, or "
            "not at all, or these targets are no translations (a split without any is binarised "
            "with fairseq-preprocess --only-source)"
        )
    logger.info(
        "teacher %s: %.2f nats per token on the first %d sentences (a guess costs %.2f)",
        name, nll, len(ids), guess,
    )  # fmt: skip
    return nll


def _target_lprobs(
    teacher: Teacher, dataset: LanguagePairDataset, ids: List[int], pad: int
) -> torch.Tensor:
    """Returns the log-probabilities of all target tokens of some sentences, in one row."""
    like = next(teacher.models[0].parameters())
    sample: Any = dataset.collater([dataset[i] for i in ids])
    sample["net_input"] = {
        name: value.to(like.device) if torch.is_tensor(value) else value
        for name, value in sample["net_input"].items()
    }
    target = sample["target"].to(like.device)
    return teacher.soft_targets(sample, target, like)[1][target.ne(pad).flatten()]


def readable(
    teacher: Teacher, dataset: LanguagePairDataset, count: int, shortest_target: int = 0
) -> List[int]:
    """Returns the ids of the first sentences that every member of the teacher has positions for.

    Args:
        teacher: the teacher.
        dataset: the data.
        count: the number of ids, at most.
        shortest_target: the least number of target tokens, EOS included.
    """
    limits = [model.max_positions() for model in teacher.models]
    ids: List[int] = []
    for i in range(len(dataset)):
        sizes = (dataset.src_sizes[i], 0 if dataset.tgt_sizes is None else dataset.tgt_sizes[i])
        pairs = ((size, limit) for sides in limits for size, limit in zip(sizes, sides))
        fits = all(limit is None or size <= limit for size, limit in pairs)
        if fits and sizes[1] >= shortest_target:
            ids.append(i)
            if len(ids) == count:
                break
    return ids
