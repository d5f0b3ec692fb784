"""A frozen teacher for the criterions: loaded with a task of its own, checked, and kept out of everybody's sight.

A teacher is deliberately no torch module. fairseq puts a criterion's modules into the optimizer, the checkpoint and
DDP, and calls train() on them at every step, which would switch dropout back on.
"""

import logging
import math
from typing import Sequence

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import BaseFairseqModel, FairseqDecoder, FairseqEncoderDecoderModel
from fairseq.models.transformer import TransformerModelBase

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.loss import chunks
from fairseq_seqkd.training.soft_targets import Dense, average_probabilities, soften

logger = logging.getLogger(__name__)

OWN_VOCABULARY = (  # what a student can do instead; while decoding there is no student yet
    "; a student with a vocabulary of its own learns from text: `seqkd text distilled --view seq_kd -o PREFIX`, "
    "then fairseq-preprocess, and label_smoothed_cross_entropy"
)

PROBE_SENTENCES = 64  # enough to tell a teacher from a coin, and less than a second of work
PROBE_BATCH = 8  # memory: that many sentences times their length times the vocabulary


class Teacher:
    """An ensemble of frozen encoder-decoder models, averaged in probability space.

    Frozen by never asking for a gradient, and not by requires_grad_(False): torch multiplies a batch whose rows do not
    lie one after the other, as a decoder's output, as one matrix only if the weight wants a gradient, and else sentence
    by sentence, which made the projection to the vocabulary two (training) to seven times (a step of a search) as slow.
    """

    def __init__(self, models):
        self.models = list(models)
        for model in self.models:
            model.eval()

    @torch.no_grad()
    def log_probs(self, sample, like):
        """The teacher's log-probabilities for every target position of a batch.

        Args:
            sample: a batch of fairseq's LanguagePairDataset, whose prefix the teacher reads.
            like: a parameter of the student; the teacher follows its device, and its precision on a GPU.

        Returns: (batch, length, vocabulary), float32.
        """
        return average_probabilities(
            [torch.log_softmax(logits, dim=-1) for logits in self._logits(sample, like)]
        )

    @torch.no_grad()
    def soft_targets(self, sample, target, like, temperature=1.0):
        """What the criterions learn from.

        Args:
            sample, like: as of log_probs.
            target: (batch, length) ids, the sample's without the first ones where those do not count.

        Returns: (Dense of batch * length rows, softened by the temperature, and their (batch * length,) log-probabilities
        of the target).
        """
        length = target.size(1)
        members = [
            logits[:, logits.size(1) - length :].flatten(0, 1)
            for logits in self._logits(sample, like)
        ]
        probabilities, target = (
            members[0],
            target.reshape(-1, 1),
        )  # written over the logits, which nobody needs again
        target_lprobs = probabilities.new_empty(len(target))
        for rows in chunks(probabilities):
            if len(members) == 1 and temperature == 1:
                torch.softmax(probabilities[rows], dim=-1, out=probabilities[rows])
                found = probabilities[rows].gather(-1, target[rows]).squeeze(-1)
                target_lprobs[rows] = found.clamp_min(torch.finfo(found.dtype).tiny).log()
            else:
                lprobs = average_probabilities(
                    [torch.log_softmax(logits[rows], dim=-1) for logits in members]
                )
                target_lprobs[rows] = lprobs.gather(-1, target[rows]).squeeze(-1)
                torch.exp(soften(lprobs, temperature), out=probabilities[rows])
        return Dense(probabilities), target_lprobs

    def _logits(self, sample, like):
        """Yields each member's (batch, length, vocabulary) float32 logits, which nobody else has."""
        for model in self.models:
            self._follow(model, like)
            yield logits_of(model, model(**sample["net_input"])).float()

    @staticmethod
    def _follow(model, like):
        """Moves a model once: fairseq moves and halves only what it knows of. On a CPU half precision gains nothing."""
        dtype = like.dtype if like.device.type != "cpu" else torch.float32
        mine = next(model.parameters())
        if mine.device != like.device or mine.dtype != dtype:
            model.to(device=like.device, dtype=dtype)


def logits_of(model, net_output):
    """(batch, length, vocabulary): a model's output before the softmax, or log-probabilities where it has no such thing.

    For whoever takes a softmax of it, the two are the same, gradients included.
    """
    inner = unwrapped(model)
    decoder = getattr(inner, "decoder", None)
    usual = (
        isinstance(inner, FairseqEncoderDecoderModel)
        and type(inner).get_normalized_probs
        in (BaseFairseqModel.get_normalized_probs, TransformerModelBase.get_normalized_probs)
        and type(inner).get_normalized_probs_scriptable
        is BaseFairseqModel.get_normalized_probs_scriptable
        and type(decoder).get_normalized_probs is FairseqDecoder.get_normalized_probs
        and type(decoder).get_normalized_probs_scriptable
        is FairseqDecoder.get_normalized_probs_scriptable
        and getattr(decoder, "adaptive_softmax", None) is None
    )
    if usual:
        return net_output[0]
    # Without the sample: given one, an adaptive softmax leaves out the clusters in which the target is not.
    return model.get_normalized_probs(net_output, log_probs=True)


def unwrapped(model):
    """The model itself, where DDP has wrapped it."""
    while hasattr(model, "module"):
        model = model.module
    return model


def check_teacher(
    checkpoint: Checkpoint,
    languages: LanguagePair,
    dictionaries: Sequence[Dictionary],
    alternative: str = "",
) -> None:
    """Checks, before any long work, that a checkpoint is a teacher for the data at hand.

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


def check_positions(teacher, dataset, task_positions, name, truncated=False):
    """Refuses training data with sentences that the teacher cannot read, although the student's task admits them.

    Args: dataset: of whole sentences; task_positions: of (source, target); truncated: the student's longer sources are cut
    to that, and not left out.
    """
    for model in teacher.models:
        for side, sizes, limit, allowed in zip(
            ("source", "target"),
            (dataset.src_sizes, dataset.tgt_sizes),
            model.max_positions(),
            task_positions,
        ):
            if limit is None or sizes is None or limit >= allowed or not len(sizes):
                continue
            sizes = (
                np.minimum(sizes, allowed)
                if truncated and side == "source"
                else sizes[sizes <= allowed]
            )
            longest = int(sizes.max(initial=0))
            if longest > limit:
                raise Refusal(
                    f"a training sentence has {longest:,} {side} tokens, the teacher {name} reads {limit:,}; "
                    f"pass --max-{side}-positions {limit} --skip-invalid-size-inputs-valid-test"
                )


def check_better_than_guessing(teacher, dataset, dictionary, name):
    """Refuses a teacher whose NLL on the first sentences is no better than a uniform guess, log(vocabulary).

    A dictionary in another order, another direction or a broken checkpoint all show here. Returns the NLL in nats a
    token, or None where the data have no target side, or nothing in it.

    Args: dataset: LanguagePairDataset; dictionary: of the target; name: of the teacher, for the message.
    """
    like = next(teacher.models[0].parameters())
    if dataset.tgt_sizes is None:
        return None
    ids = readable(
        teacher, dataset, PROBE_SENTENCES, shortest_target=2
    )  # an empty one has nothing to translate
    total, tokens = 0.0, 0
    for start in range(0, len(ids), PROBE_BATCH):
        sample = dataset.collater([dataset[i] for i in ids[start : start + PROBE_BATCH]])
        sample["net_input"] = {
            k: v.to(like.device) if torch.is_tensor(v) else v
            for k, v in sample["net_input"].items()
        }
        target = sample["target"].to(like.device)
        _, lprobs = teacher.soft_targets(sample, target, like)
        keep = target.ne(dictionary.pad()).flatten()
        total -= lprobs[keep].sum().item()
        tokens += int(keep.sum())
    if not tokens:
        return None
    nll = total / tokens
    guess = math.log(len(dictionary))
    if not nll < guess:  # a NaN is no better either
        raise Refusal(
            f"the teacher {name} is no better than guessing on the first {len(ids)} sentences ({nll:.2f} nats a token, "
            f"a uniform guess among {len(dictionary):,} symbols costs {guess:.2f}): it was trained with other dictionaries, on "
            "another language pair, or not at all, or these targets are no translations (a split without any is binarised with "
            "fairseq-preprocess --only-source)"
        )
    logger.info(
        "teacher %s: %.2f nats a token on the first %d sentences (a guess costs %.2f)",
        name,
        nll,
        len(ids),
        guess,
    )
    return nll


def readable(teacher, dataset, count, shortest_target=0):
    """The ids of the first sentences, at most `count`, that every member of the teacher has positions for.

    Args: shortest_target: tokens that their targets have at least, EOS counted.
    """
    found = []
    for i in range(len(dataset)):
        sizes = (dataset.src_sizes[i], dataset.tgt_sizes[i] if dataset.tgt_sizes is not None else 0)
        fits_all = all(
            limit is None or n <= limit
            for m in teacher.models
            for n, limit in zip(sizes, m.max_positions())
        )
        if fits_all and sizes[1] >= shortest_target:
            found.append(i)
            if len(found) == count:
                break
    return found
