"""The mathematics of word-level distillation: pure torch, no fairseq.

Everything works on log-probabilities of shape (rows, vocabulary), a row for each target token, and returns sums over
rows; the criterions normalise them as fairseq does. Kim & Rush 2016, section 3.1:

    loss = (1 - alpha) * NLL(target) + alpha * T^2 * CE(teacher_T, student_T)
"""

import torch

DEFAULT_ALPHA = 0.5  # target and teacher count alike


def weight_of_teacher(alpha, has_teacher):
    """alpha as the user gave it; where nothing was said, the default with a teacher and 0 without one."""
    if alpha is not None:
        return alpha
    return DEFAULT_ALPHA if has_teacher else 0.0


def soften(lprobs, temperature):
    """log of normalise(p^(1/T)), which equals log-softmax(logits / T); at T = 1 the input itself.

    Args: lprobs (..., vocabulary), log-probabilities; temperature, positive.
    """
    if temperature == 1.0:
        return lprobs
    return torch.log_softmax(lprobs / temperature, dim=-1)


def teacher_cross_entropy(student_lprobs, teacher_lprobs, keep, temperature=1.0, reduce=True):
    """T^2 * -sum_k q_T(k) log p_T(k), the word-level term of Kim & Rush (eq. 5) with Hinton's temperature.

    T^2 keeps the size of the gradient when T changes (Hinton et al. 2015, section 2). Where q is 0 the term is 0, even
    where log p is minus infinity.

    Args:
        student_lprobs, teacher_lprobs: (rows, vocabulary) log-probabilities at T = 1; no gradient flows to the teacher.
        keep: (rows,) bool, False for padding.
        reduce: return the sum over rows; else one value a row, 0 for padding.
    """
    q = soften(teacher_lprobs.detach().float(), temperature).exp()
    log_p = soften(student_lprobs.float(), temperature)
    rows = -(q * log_p.masked_fill(q == 0, 0.0)).sum(dim=-1)
    rows = rows.masked_fill(~keep, 0.0) * temperature**2
    return rows.sum() if reduce else rows


def negative_log_likelihood(lprobs, target, keep):
    """-sum over kept rows of log p(target): (rows, vocabulary), (rows,), (rows,) bool -> scalar, in nats."""
    rows = -lprobs.gather(dim=-1, index=target.unsqueeze(-1)).squeeze(-1)
    return rows.masked_fill(~keep, 0.0).sum()


def average_probabilities(lprobs):
    """log of the mean of the members' probabilities: an ensemble, from a list of (rows, vocabulary)."""
    if len(lprobs) == 1:
        return lprobs[0]
    return torch.logsumexp(torch.stack(lprobs), dim=0) - torch.log(torch.tensor(float(len(lprobs))))
