"""Weights that stay zero while a pruned student is trained further (--freeze-zeros)."""

import logging
from typing import Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from fairseq_seqkd.errors import Refusal

logger = logging.getLogger(__name__)


class FrozenZeros:
    """Keeps the zeros of a model's matrices: a weight that is zero gets no gradient.

    Without a gradient there is no momentum, and nothing for a decay or an average to act on. So it
    holds for every optimizer, in every precision.
    """

    def __init__(self) -> None:
        self.masks: Optional[List[Tuple[str, Tensor, Tensor]]] = None  # (name, weights, is zero)
        self.was_training = False

    def step(self, model: torch.nn.Module) -> None:
        """Freezes the zeros in the first step of a training, and counts them in every validation.

        Raises:
            Refusal: the model has no zeros, or a zero is lost.
        """
        if self.masks is None and model.training:
            self.freeze(model)
            logger.info("--freeze-zeros: %d weights are zero and stay so", self.count())
        elif self.masks is not None and not model.training and self.was_training:
            logger.info("--freeze-zeros: all %d zeros are there", self.count())
        self.was_training = model.training

    def freeze(self, model: torch.nn.Module) -> None:
        """Freezes the weights that are zero now. The checkpoint has been restored by then.

        Raises:
            Refusal: the model has no zeros except rows of padding, e.g. because training begins
                from scratch.
        """
        if "FullyShardedDataParallel" in {type(module).__name__ for module in model.modules()}:
            raise Refusal(
                "--freeze-zeros needs whole matrices, but FSDP splits them; use another "
                "--ddp-backend"
            )
        matrices: Iterator[Tuple[str, Tensor, Tensor]] = (
            (name, weights, weights.detach() == 0)
            for name, weights in model.named_parameters()
            if weights.dim() > 1 and weights.requires_grad
        )
        masks = [(name, weights, zero) for name, weights, zero in matrices if zero.any()]
        if not any((zero & ~zero.all(dim=-1, keepdim=True)).any() for _, _, zero in masks):
            raise Refusal(
                "--freeze-zeros finds no zeros to keep; it is for a pruned checkpoint, passed with "
                "--finetune-from-model or --restore-file; make one with `seqkd prune`"
            )
        for _, weights, zero in masks:
            weights.register_hook(lambda gradient, zero=zero: gradient.masked_fill(zero, 0))
        self.masks = masks

    def count(self) -> int:
        """Returns the number of zeros.

        Raises:
            Refusal: one of them is lost.
        """
        for name, weights, zero in self.masks or []:
            lost = int(torch.count_nonzero(weights.detach()[zero]))
            if lost:
                raise Refusal(
                    f"--freeze-zeros: {lost:,} zeros of {name} are lost, which is a fault of this "
                    "program; do not use the checkpoints of this run"
                )
        return sum(int(zero.sum()) for _, _, zero in self.masks or [])
