"""The objective of word-level distillation in one pass over the vocabulary: pure torch, no fairseq.

Kim & Rush 2016, section 3.1, with fairseq's label smoothing eps over a vocabulary of V and Hinton's temperature T:

    loss = (1 - alpha) * [(1 - eps - e) * NLL(y) - e * sum_k log p_k] + alpha * T^2 * D(q_T, p_T),   e = eps / (V - 1)

for every target token y, where p is the student, q the teacher (divergences.py says what q may be), and D the cross
entropy of the paper unless another divergence is asked for. NLL, smoothing and D share one log-softmax, and backward is
one subtraction from the student's softmax, in chunks of rows. So besides the logits and their gradient little memory is
needed. Half-precision logits are computed with in float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from fairseq_seqkd.training import soft_targets as divergences

DEFAULT_ALPHA = 0.5  # target and teacher count alike

# Numbers of a chunk: few enough to stay in a processor's caches, enough to make the cost of a call small.
CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}
IMPOSSIBLE = -1e30  # stands for log 0, because 0 times minus infinity is no number


@dataclass(frozen=True)
class Objective:
    """The weights of the terms, and how teacher and student are compared."""

    alpha: float = DEFAULT_ALPHA
    label_smoothing: float = 0.0
    temperature: float = 1.0
    divergence: str = divergences.FORWARD_KL


class Rows(NamedTuple):
    """(rows,) each, 0 for padding, in nats. Only `loss` carries a gradient."""

    loss: torch.Tensor
    nll: torch.Tensor
    kd: torch.Tensor


def weight_of_teacher(alpha, has_teacher):
    """alpha as the user gave it; where nothing was said, the default with a teacher and 0 without one."""
    if alpha is not None:
        return alpha
    return DEFAULT_ALPHA if has_teacher else 0.0


def word_level(logits, target, keep, teacher, objective):
    """The loss of every row.

    Args:
        logits: (rows, vocabulary), the student's, of any constant too much a row: log-probabilities will do.
        target: (rows,) ids; keep: (rows,) bool, False for padding.
        teacher: divergences.Dense or divergences.TopK of as many rows, softened by objective.temperature.

    Returns: Rows.
    """
    return Rows(*WordLevel.apply(logits, target, keep, teacher, objective))


class WordLevel(torch.autograd.Function):
    """forward(logits, ...) -> (loss, nll, kd), see word_level. Kept for backward are the logits and what the teacher said."""

    @staticmethod
    def forward(ctx, logits, target, keep, teacher, objective):
        ctx.save_for_backward(logits, target, keep)
        ctx.teacher, ctx.objective = teacher, objective
        smoothing, temperature = objective.label_smoothing, objective.temperature
        spread = smoothing / (logits.size(-1) - 1)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        loss, nll, kd = (logits.new_zeros(len(logits), dtype=dtype) for _ in range(3))
        for rows in chunks(logits):
            lprobs, total = log_softmax(logits[rows], dtype)
            nll[rows] = -lprobs.gather(-1, target[rows].unsqueeze(-1)).squeeze(-1)
            own = nll[rows]
            if smoothing:
                own = (1 - smoothing - spread) * own - spread * total
            if temperature != 1:
                lprobs, total = log_softmax(logits[rows], dtype, temperature)
            kd[rows] = temperature**2 * teacher.divergence(
                objective.divergence, lprobs, total, rows
            )
            loss[rows] = (1 - objective.alpha) * own + objective.alpha * kd[rows]
        found = [values.masked_fill_(~keep, 0.0) for values in (loss, nll, kd)]
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    def backward(ctx, of_loss, *_):
        logits, target, keep = ctx.saved_tensors
        teacher, objective = ctx.teacher, ctx.objective
        alpha, smoothing, temperature = (
            objective.alpha,
            objective.label_smoothing,
            objective.temperature,
        )
        spread = smoothing / (logits.size(-1) - 1)
        of_loss = of_loss.masked_fill(~keep, 0.0).unsqueeze(-1)
        gradient = torch.empty_like(logits)
        for rows in chunks(logits):
            p = softmax(logits[rows], of_loss.dtype, out=gradient[rows])
            softened = p if temperature == 1 else softmax(logits[rows], of_loss.dtype, temperature)
            # Of the likelihood: 1 - alpha times p - (1 - eps - e at the target, e everywhere). Of the divergence: T times
            # what it is for p_T, since p_T is a function of logits / T.
            if objective.divergence == divergences.FORWARD_KL:
                found = (
                    p
                    if temperature == 1
                    else p.mul_(1 - alpha).add_(softened, alpha=alpha * temperature)
                )
                teacher.subtract_from(found, alpha * temperature, rows)
            else:
                slope = teacher.slope(objective.divergence, softened, rows)
                slope -= (slope * softened).sum(-1, keepdim=True)
                slope *= softened
                found = p.mul_(1 - alpha).add_(slope, alpha=alpha * temperature)
            if smoothing:
                found.sub_((1 - alpha) * spread)
            at_target = found.new_full((len(found), 1), -(1 - alpha) * (1 - smoothing - spread))
            found.scatter_add_(-1, target[rows].unsqueeze(-1), at_target)
            found.mul_(of_loss[rows])
            if gradient.dtype != found.dtype:
                gradient[rows] = found
        return gradient, None, None, None, None


def chunks(logits):
    """Slices of rows that together are all of them."""
    size = max(1, CHUNK.get(logits.device.type, CHUNK["cuda"]) // max(logits.size(-1), 1))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def log_softmax(logits, dtype, temperature=1.0):
    """(rows, vocabulary) log-probabilities, all of them finite, and (rows,) their sum."""
    scaled = logits if temperature == 1 else logits.to(dtype) / temperature
    lprobs = torch.log_softmax(scaled, dim=-1, dtype=dtype)
    total = lprobs.sum(-1)
    if lprobs.is_cuda or total.isinf().any():  # a look is cheap on a CPU, and makes a GPU wait
        total = lprobs.clamp_(min=IMPOSSIBLE).sum(-1)
    return lprobs, total


def softmax(logits, dtype, temperature=1.0, out=None):
    """(rows, vocabulary) probabilities, written to `out` where its type is that of the result."""
    scaled = logits if temperature == 1 else logits.to(dtype) / temperature
    if out is not None and out.dtype == scaled.dtype == dtype:
        return torch.softmax(scaled, dim=-1, out=out)
    return torch.softmax(scaled, dim=-1, dtype=dtype)
