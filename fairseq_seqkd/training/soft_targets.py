"""What a teacher says of a token, and how far a student is from it: pure torch.

A teacher's distributions over the vocabulary come whole (Dense) or as the k most probable symbols and the mass of the
others (TopK). Both know the cross entropy of the paper, which is the forward KL divergence but for the teacher's own
entropy, a constant. With whole distributions others can be compared (Wen et al. 2023, "f-Divergence Minimization for
Sequence-Level Knowledge Distillation"; p is the student, q the teacher, m = (p + q) / 2):

    forward_kl   -sum q log p                             the student covers what the teacher does
    reverse_kl    sum p log(p / q)                        it keeps to what the teacher prefers
    js            sum p log(p / m) / 2 + q log(q / m) / 2
    tvd           sum |p - q| / 2                         total variation distance
"""

import torch

FORWARD_KL = "forward_kl"
NAMES = (FORWARD_KL, "reverse_kl", "js", "tvd")

SPREAD, IGNORE = "spread", "ignore"
TAILS = (SPREAD, IGNORE)


def soften(lprobs, temperature):
    """log of normalise(p^(1/T)), which equals log-softmax(logits / T); at T = 1 the input itself.

    Args: lprobs (..., vocabulary), log-probabilities; temperature, positive.
    """
    if temperature == 1.0:
        return lprobs
    return torch.log_softmax(lprobs / temperature, dim=-1)


def average_probabilities(lprobs):
    """log of the mean of the members' probabilities: an ensemble, from a list of (..., vocabulary)."""
    if len(lprobs) == 1:
        return lprobs[0]
    return torch.logsumexp(torch.stack(lprobs), dim=0) - torch.log(torch.tensor(float(len(lprobs))))


class Dense:
    """Whole distributions. Args: probabilities: (rows, vocabulary), softened already."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def divergence(self, name, lprobs, total, rows):
        """(rows,) how far the student's log-probabilities, with their sum `total`, are from these rows."""
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

    def slope(self, name, p, rows):
        """(rows, vocabulary) derivative of `divergence` by the student's probabilities p, but for a constant a row."""
        q = self.probabilities[rows]
        if name == "reverse_kl":
            return log(p) - log(q)
        if name == "js":
            return (log(p) - log((p + q) / 2)) / 2
        return (p - q).sign() / 2

    def subtract_from(self, values, weight, rows):
        """values -= weight * q, in place: what the cross entropy's gradient needs."""
        values.sub_(self.probabilities[rows], alpha=weight)


class TopK:
    """The k most probable symbols, and for every other symbol the same share of what is left.

    Args: ids: (rows, k) int64; probabilities: (rows, k); other: (rows,) probability of each of the other symbols. All
    softened already; see `top_k`.
    """

    def __init__(self, ids, probabilities, other):
        self.ids, self.above, self.other = ids, probabilities - other.unsqueeze(-1), other

    def divergence(self, name, lprobs, total, rows):
        """(rows,) cross entropy with the student's log-probabilities; no other divergence knows a tail."""
        assert name == FORWARD_KL, name
        top = (self.above[rows] * lprobs.gather(-1, self.ids[rows])).sum(-1)
        return -top - self.other[rows] * total

    def subtract_from(self, values, weight, rows):
        """values -= weight * q, in place."""
        values.sub_(weight * self.other[rows].unsqueeze(-1))
        values.scatter_add_(-1, self.ids[rows], -weight * self.above[rows])


def top_k(ids, probabilities, rest, vocabulary, temperature=1.0, tail=SPREAD):
    """TopK from stored numbers: they are made to sum to 1, and then softened.

    Args:
        ids: (rows, k) int64; probabilities: (rows, k) float32; rest: (rows,) mass of the vocabulary's other symbols.
        tail: "spread" gives each of the others its share of the rest, "ignore" gives them nothing.
    """
    others = vocabulary - ids.size(-1)
    if tail == IGNORE or not others:
        rest = torch.zeros_like(rest)
    nothing = torch.finfo(probabilities.dtype).tiny  # instead of 0, the sum of a row of padding
    total = (probabilities.sum(-1) + rest).clamp_min(nothing)
    other = rest / total / max(others, 1)
    probabilities = probabilities / total.unsqueeze(-1)
    if temperature != 1:
        # Divided by the largest first: a power of small numbers would be 0 for all of them.
        largest = torch.maximum(probabilities.amax(-1), other).clamp_min(nothing).unsqueeze(-1)
        probabilities = (probabilities / largest) ** (1 / temperature)
        other = (other / largest.squeeze(-1)) ** (1 / temperature)
        total = (probabilities.sum(-1) + others * other).clamp_min(nothing)
        probabilities, other = probabilities / total.unsqueeze(-1), other / total
    return TopK(ids, probabilities, other)


def log(probabilities):
    """log p that is finite where p is 0."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
