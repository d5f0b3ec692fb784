"""A frozen teacher: an ensemble of models that computes distributions for a student's batches.

It is deliberately no torch module. fairseq puts the modules of a criterion into the optimizer, the
checkpoint and DDP, and calls train() on them at every step, which would enable dropout.
"""

from typing import Any, Dict, Iterable, Iterator, Optional, Tuple

import torch
from fairseq.models import BaseFairseqModel, FairseqDecoder, FairseqEncoderDecoderModel
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor

from fairseq_seqkd.training.loss import chunks
from fairseq_seqkd.training.soft_targets import Dense, SoftTargets, average_probabilities, soften

Sample = Dict[str, Any]  # a batch of fairseq's LanguagePairDataset


class Teacher:
    """An ensemble of frozen encoder-decoder models, averaged in probability space.

    Gradients are disabled by no_grad() and not by requires_grad_(False). torch multiplies a batch
    whose rows are not contiguous, like the output of a decoder, as one matrix only if the weight
    requires a gradient, and otherwise sentence by sentence. That made the projection to the
    vocabulary two times (training) to seven times (a step of a search) as slow.
    """

    def __init__(self, models: Iterable[BaseFairseqModel]) -> None:
        self.models = list(models)
        for model in self.models:
            model.eval()

    @torch.no_grad()
    def log_probs(self, sample: Sample, like: Tensor) -> Tensor:
        """Computes log-probabilities at every target position of a batch.

        Args:
            sample: the batch, whose target prefixes the teacher reads.
            like: a parameter of the student. The teacher follows its device and, on a GPU, its
                precision.

        Returns:
            (batch, length, vocabulary) float32.
        """
        lprobs = [torch.log_softmax(logits, dim=-1) for logits in self._logits(sample, like)]
        return average_probabilities(lprobs)

    @torch.no_grad()
    def soft_targets(
        self, sample: Sample, target: Tensor, like: Tensor, temperature: float = 1.0
    ) -> Tuple[SoftTargets, Tensor]:
        """Computes what a criterion learns from.

        Args:
            sample: the batch.
            target: (batch, length) ids, those of the batch without an ignored prefix.
            like: as of `log_probs`.
            temperature: by which the distributions are softened.

        Returns:
            The distributions, a row for each token of `target`, and the (batch * length,)
            log-probabilities of `target`, not softened.
        """
        length = target.size(1)
        members = [
            logits[:, logits.size(1) - length :].flatten(0, 1)
            for logits in self._logits(sample, like)
        ]
        probabilities, ids = members[0], target.reshape(-1, 1)  # written over these logits
        target_lprobs = probabilities.new_empty(len(ids))
        for rows in chunks(probabilities):
            if len(members) == 1 and temperature == 1:
                torch.softmax(probabilities[rows], dim=-1, out=probabilities[rows])
                of_target = probabilities[rows].gather(-1, ids[rows]).squeeze(-1)
                smallest = torch.finfo(of_target.dtype).tiny
                target_lprobs[rows] = of_target.clamp_min(smallest).log()
            else:
                lprobs = average_probabilities(
                    [torch.log_softmax(logits[rows], dim=-1) for logits in members]
                )
                target_lprobs[rows] = lprobs.gather(-1, ids[rows]).squeeze(-1)
                torch.exp(soften(lprobs, temperature), out=probabilities[rows])
        return Dense(probabilities), target_lprobs

    def _logits(self, sample: Sample, like: Tensor) -> Iterator[Tensor]:
        """Yields the (batch, length, vocabulary) float32 logits of each member, fresh tensors."""
        for model in self.models:
            self._follow(model, like)
            yield logits_of(model, model(**sample["net_input"])).float()

    @staticmethod
    def _follow(model: BaseFairseqModel, like: Tensor) -> None:
        """Moves a model once: fairseq moves and halves only models that it knows of.

        It stays float32 on a CPU, where half precision gains nothing.
        """
        dtype = like.dtype if like.device.type != "cpu" else torch.float32
        parameter = next(model.parameters())
        if parameter.device != like.device or parameter.dtype != dtype:
            model.to(device=like.device, dtype=dtype)


def logits_of(model: BaseFairseqModel, net_output: Any) -> Tensor:
    """Returns what a model computes before its softmax, or log-probabilities if there is no such.

    A softmax of both is the same, gradients included.

    Returns:
        (batch, length, vocabulary).
    """
    inner = unwrapped(model)
    decoder: Any = getattr(inner, "decoder", None)
    is_usual = (
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
    if is_usual:
        return net_output[0]
    # Without the sample: given one, an adaptive softmax omits clusters that hold no target.
    return model.get_normalized_probs(net_output, log_probs=True)


def unwrapped(model: Any) -> Any:
    """Returns the model itself if DDP has wrapped it."""
    while hasattr(model, "module"):
        model = model.module
    return model


def adaptive_softmax(model: Any) -> Optional[Any]:
    """Returns the adaptive softmax of a model's decoder, or None if it has none."""
    return getattr(getattr(unwrapped(model), "decoder", None), "adaptive_softmax", None)
