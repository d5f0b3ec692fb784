"""The teacher's distributions at target tokens, and how far a student is from them. Pure torch.

A distribution over the vocabulary is complete (`Dense`), or the k most probable symbols and the
mass of the others (`TopK`). Both know the cross entropy of the paper. It equals the forward KL
divergence up to the entropy of the teacher, which is constant. Complete distributions know more
(Wen et al. 2023, "f-Divergence Minimization for Sequence-Level Knowledge Distillation"). Here p is
the student, q the teacher, and m = (p + q) / 2:

    forward_kl   -sum q log p                             the student covers what the teacher does
    reverse_kl    sum p log(p / q)                        it keeps to what the teacher prefers
    js            sum p log(p / m) / 2 + q log(q / m) / 2
    tvd           sum |p - q| / 2                         total variation distance
"""

from typing import Protocol, Sequence

import torch
from torch import Tensor

FORWARD_KL = "forward_kl"
NAMES = (FORWARD_KL, "reverse_kl", "js", "tvd")

SPREAD, IGNORE = "spread", "ignore"
TAILS = (SPREAD, IGNORE)


def soften(lprobs: Tensor, temperature: float) -> Tensor:
    """Computes log normalise(p^(1/T)), which equals log-softmax(logits / T).

    Args:
        lprobs: (..., vocabulary) log-probabilities. At T = 1 they are returned as they are.
        temperature: T, positive.
    """
    return lprobs if temperature == 1.0 else torch.log_softmax(lprobs / temperature, dim=-1)


def average_probabilities(lprobs: Sequence[Tensor]) -> Tensor:
    """Computes the log of the mean probability of the members of an ensemble.

    Args:
        lprobs: (..., vocabulary) log-probabilities of each member.
    """
    if len(lprobs) == 1:
        return lprobs[0]
    return torch.logsumexp(torch.stack(list(lprobs)), dim=0) - torch.log(
        torch.tensor(float(len(lprobs)))
    )


class SoftTargets(Protocol):
    """The softened distributions of a teacher, a row for each target token."""

    def divergence(self, name: str, lprobs: Tensor, total: Tensor, rows: slice) -> Tensor:
        """Computes how far a student is from some of the rows.

        Args:
            name: one of `NAMES`.
            lprobs: (rows, vocabulary) log-probabilities of the student, softened.
            total: (rows,) their sum over the vocabulary.
            rows: which rows these are.

        Returns:
            (rows,) in nats.
        """

    def subtract_from(self, values: Tensor, weight: float, rows: slice) -> None:
        """Computes values -= weight * q in place, for the gradient of the cross entropy."""


class Dense(SoftTargets):
    """Complete distributions.

    Args:
        probabilities: (rows, vocabulary), softened.
    """

    def __init__(self, probabilities: Tensor) -> None:
        self.probabilities = probabilities

    def divergence(self, name: str, lprobs: Tensor, total: Tensor, rows: slice) -> Tensor:
        """Computes any of the divergences."""
        q = self.probabilities[rows]
        if name == FORWARD_KL:
            return -(q * lprobs).sum(-1)
        p = lprobs.exp()
        if name == "reverse_kl":
            return (p * (lprobs - log(q))).sum(-1)
        if name == "js":
            log_m = log((p + q) / 2)
            return ((p * (lprobs - log_m)).sum(-1) + (q * (log(q) - log_m)).sum(-1)) / 2
        return (p - q).abs().sum(-1) / 2

    def slope(self, name: str, p: Tensor, rows: slice) -> Tensor:
        """Computes the derivative by p of any divergence but forward_kl, up to a constant per row.

        Args:
            name: the divergence.
            p: (rows, vocabulary) probabilities of the student, softened.
            rows: which rows these are.
        """
        q = self.probabilities[rows]
        if name == "reverse_kl":
            return log(p) - log(q)
        if name == "js":
            return (log(p) - log((p + q) / 2)) / 2
        return (p - q).sign() / 2

    def subtract_from(self, values: Tensor, weight: float, rows: slice) -> None:
        """Computes values -= weight * q in place."""
        values.sub_(self.probabilities[rows], alpha=weight)


class TopK(SoftTargets):
    """The k most probable symbols, and an equal share of the remaining mass for each other symbol.

    Args:
        ids: (rows, k) int64.
        probabilities: (rows, k), softened.
        other: (rows,) probability of each of the other symbols, softened.
    """

    def __init__(self, ids: Tensor, probabilities: Tensor, other: Tensor) -> None:
        self.ids, self.above, self.other = ids, probabilities - other.unsqueeze(-1), other

    def divergence(self, name: str, lprobs: Tensor, total: Tensor, rows: slice) -> Tensor:
        """Computes the cross entropy, the only divergence that is known without the tail."""
        assert name == FORWARD_KL, name
        top = (self.above[rows] * lprobs.gather(-1, self.ids[rows])).sum(-1)
        return -top - self.other[rows] * total

    def subtract_from(self, values: Tensor, weight: float, rows: slice) -> None:
        """Computes values -= weight * q in place."""
        values.sub_(weight * self.other[rows].unsqueeze(-1))
        values.scatter_add_(-1, self.ids[rows], -weight * self.above[rows])


def top_k(
    ids: Tensor,
    probabilities: Tensor,
    rest: Tensor,
    vocabulary: int,
    temperature: float = 1.0,
    tail: str = SPREAD,
) -> TopK:
    """Builds TopK from stored numbers, which are normalised and then softened.

    Args:
        ids: (rows, k) int64.
        probabilities: (rows, k) float32.
        rest: (rows,) mass of the other symbols.
        vocabulary: number of symbols.
        temperature: T, positive.
        tail: "spread" gives each other symbol an equal share of the rest, "ignore" gives it 0.
    """
    others = vocabulary - ids.size(-1)
    if tail == IGNORE or not others:
        rest = torch.zeros_like(rest)
    smallest = torch.finfo(probabilities.dtype).tiny  # in place of 0, the sum of a row of padding
    total = (probabilities.sum(-1) + rest).clamp_min(smallest)
    other = rest / total / max(others, 1)
    probabilities = probabilities / total.unsqueeze(-1)
    if temperature != 1:
        # Divided by the largest first: powers of small numbers would all be 0.
        largest = torch.maximum(probabilities.amax(-1), other).clamp_min(smallest).unsqueeze(-1)
        probabilities = (probabilities / largest) ** (1 / temperature)
        other = (other / largest.squeeze(-1)) ** (1 / temperature)
        total = (probabilities.sum(-1) + others * other).clamp_min(smallest)
        probabilities, other = probabilities / total.unsqueeze(-1), other / total
    return TopK(ids, probabilities, other)


def log(probabilities: Tensor) -> Tensor:
    """Computes log p, which is finite where p is 0."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
