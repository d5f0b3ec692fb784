"""The objective of word-level distillation, in one pass over the vocabulary. Pure torch.

Kim & Rush 2016, section 3.1, with fairseq's label smoothing eps over a vocabulary of V symbols, and
Hinton's temperature T. For every target token y:

    loss = (1 - alpha) * [(1 - eps - e) * NLL(y) - e * sum_k log p_k] + alpha * T^2 * D(q_T, p_T)
    e    = eps / (V - 1)

Here p is the student, q the teacher, and D a divergence of soft_targets.py, by default the paper's
cross entropy. NLL, smoothing and D share one log-softmax. The backward pass subtracts from the
student's softmax, in chunks of rows. So little memory is needed besides the logits and their
gradient. Half-precision logits are converted to float32.
"""

from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_seqkd.training.soft_targets import FORWARD_KL, SoftTargets

DEFAULT_ALPHA = 0.5  # target and teacher have the same weight

# Numbers per chunk: few enough for the caches of a processor, many enough to make a call cheap.
CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}
IMPOSSIBLE = -1e30  # replaces log 0, because 0 times minus infinity is NaN


@dataclass(frozen=True)
class Objective:
    """The weights of the terms, and how teacher and student are compared."""

    alpha: float = DEFAULT_ALPHA
    label_smoothing: float = 0.0
    temperature: float = 1.0
    divergence: str = FORWARD_KL


class Rows(NamedTuple):
    """The terms of the loss at every token: (rows,) each, 0 for padding, in nats.

    Only `loss` has a gradient.
    """

    loss: Tensor
    nll: Tensor
    kd: Tensor


def weight_of_teacher(alpha: Optional[float], has_teacher: bool) -> float:
    """Returns alpha as given, or its default: DEFAULT_ALPHA with a teacher, 0 without one."""
    if alpha is not None:
        return alpha
    return DEFAULT_ALPHA if has_teacher else 0.0


def word_level(
    logits: Tensor, target: Tensor, keep: Tensor, teacher: SoftTargets, objective: Objective
) -> Rows:
    """Computes the loss of every row.

    Args:
        logits: (rows, vocabulary) of the student, up to an additive constant per row
            (log-probabilities work, too).
        target: (rows,) ids.
        keep: (rows,) bool, False for padding.
        teacher: as many rows, softened by objective.temperature.
        objective: the weights of the terms.
    """
    return Rows(*WordLevel.apply(logits, target, keep, teacher, objective))


class WordLevel(torch.autograd.Function):
    """The function behind `word_level`. Logits and soft targets are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, keep: Tensor, teacher: SoftTargets,
        objective: Objective,
    ) -> Tuple[Tensor, ...]:  # fmt: skip
        """Computes (loss, nll, kd)."""
        ctx.save_for_backward(logits, target, keep)
        ctx.teacher, ctx.objective = teacher, objective
        smoothing, temperature = objective.label_smoothing, objective.temperature
        spread = smoothing / (logits.size(-1) - 1)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        loss, nll, kd = (logits.new_zeros(len(logits), dtype=dtype) for _ in range(3))
        for rows in chunks(logits):
            lprobs, total = log_softmax(logits[rows], dtype)
            nll[rows] = -lprobs.gather(-1, target[rows].unsqueeze(-1)).squeeze(-1)
            likelihood = nll[rows]
            if smoothing:
                likelihood = (1 - smoothing - spread) * likelihood - spread * total
            if temperature != 1:
                lprobs, total = log_softmax(logits[rows], dtype, temperature)
            divergence = teacher.divergence(objective.divergence, lprobs, total, rows)
            kd[rows] = temperature**2 * divergence
            loss[rows] = (1 - objective.alpha) * likelihood + objective.alpha * kd[rows]
        terms = [values.masked_fill_(~keep, 0.0) for values in (loss, nll, kd)]
        ctx.mark_non_differentiable(*terms[1:])
        return tuple(terms)

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, *_: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Computes the gradient by the logits.

        Of the likelihood: (1 - alpha) * (p - (1 - eps - e at the target, e elsewhere)).
        Of the divergence: alpha * T * (d D / d logits_T), since p_T depends on logits / T; for the
        cross entropy that is alpha * T * (p_T - q_T).
        """
        logits, target, keep = ctx.saved_tensors
        teacher, objective = ctx.teacher, ctx.objective
        alpha, smoothing = objective.alpha, objective.label_smoothing
        temperature = objective.temperature
        spread = smoothing / (logits.size(-1) - 1)
        of_loss = of_loss.masked_fill(~keep, 0.0).unsqueeze(-1)
        gradient = torch.empty_like(logits)
        for rows in chunks(logits):
            p = softmax(logits[rows], of_loss.dtype, out=gradient[rows])
            softened = p if temperature == 1 else softmax(logits[rows], of_loss.dtype, temperature)
            if objective.divergence != FORWARD_KL:
                slope = teacher.slope(objective.divergence, softened, rows)
                slope -= (slope * softened).sum(-1, keepdim=True)
                slope *= softened
                p.mul_(1 - alpha).add_(slope, alpha=alpha * temperature)
            else:
                if temperature != 1:
                    p.mul_(1 - alpha).add_(softened, alpha=alpha * temperature)
                teacher.subtract_from(p, alpha * temperature, rows)
            if smoothing:
                p.sub_((1 - alpha) * spread)
            at_target = p.new_full((len(p), 1), -(1 - alpha) * (1 - smoothing - spread))
            p.scatter_add_(-1, target[rows].unsqueeze(-1), at_target)
            p.mul_(of_loss[rows])
            if gradient.dtype != p.dtype:
                gradient[rows] = p
        return gradient, None, None, None, None


def chunks(logits: Tensor) -> List[slice]:
    """Returns slices of rows that together are all of them."""
    size = max(1, CHUNK.get(logits.device.type, CHUNK["cuda"]) // max(logits.size(-1), 1))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def log_softmax(
    logits: Tensor, dtype: torch.dtype, temperature: float = 1.0
) -> Tuple[Tensor, Tensor]:
    """Computes (rows, vocabulary) log-probabilities, all of them finite, and (rows,) their sum."""
    scaled = logits if temperature == 1 else logits.to(dtype) / temperature
    lprobs = torch.log_softmax(scaled, dim=-1, dtype=dtype)
    total = lprobs.sum(-1)
    if lprobs.is_cuda or total.isinf().any():  # the check is cheap on a CPU, and a GPU would wait
        total = lprobs.clamp_(min=IMPOSSIBLE).sum(-1)
    return lprobs, total


def softmax(
    logits: Tensor, dtype: torch.dtype, temperature: float = 1.0, out: Optional[Tensor] = None
) -> Tensor:
    """Computes (rows, vocabulary) probabilities, in `out` if that has the type of the result."""
    scaled = logits if temperature == 1 else logits.to(dtype) / temperature
    if out is not None and out.dtype == scaled.dtype == dtype:
        return torch.softmax(scaled, dim=-1, out=out)
    return torch.softmax(scaled, dim=-1, dtype=dtype)
