"""Magnitude pruning of checkpoints (See et al. 2016), and weights that stay zero while a student is trained further.

Pruned are matrices: embeddings and the output layer too, biases and layer norms never. Tied matrices are one class, counted
and pruned once. A pruned checkpoint has no optimizer state, whose momentum would revive the zeros.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from fairseq_seqkd.errors import Refusal

CLASS_BLIND, CLASS_UNIFORM, CLASS_DISTRIBUTION = (
    "class-blind",
    "class-uniform",
    "class-distribution",
)
AVERAGES = (
    "ema",
    "ema_fp32_params",
)  # where fairseq keeps them; from the second, with --ema-fp32, it goes on
SCHEMES = (CLASS_BLIND, CLASS_UNIFORM, CLASS_DISTRIBUTION)


@dataclass
class Class:
    """A matrix of weights under all of its names, and what pruning leaves of it."""

    names: list
    weights: torch.Tensor
    kept: torch.Tensor = None  # bool, of the same shape

    @property
    def zeros(self):
        return int((~self.kept).sum())


def classes(model, exclude=()):
    """([Class] to prune, [Class] that a pattern excludes) of a state dictionary {name: tensor}, in its order.

    Args: exclude: shell patterns; a class of which one name matches is left alone.
    """
    found = []
    for name, tensor in model.items():
        if sum(size > 1 for size in tensor.shape) < 2 or not tensor.is_floating_point():
            continue
        # Tied weights are one tensor in fairseq's checkpoints, and equal ones in averaged checkpoints.
        same = (
            c for c in found if c.weights.shape == tensor.shape and torch.equal(c.weights, tensor)
        )
        known = next(same, None)
        if known:
            known.names.append(name)
        else:
            found.append(Class([name], tensor))
    spared = [
        c
        for c in found
        if any(fnmatchcase(name, pattern) for name in c.names for pattern in exclude)
    ]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for c in found for name in c.names):
            raise Refusal(
                f"--exclude {pattern!r} is the name of no matrix; --dry-run prints a table of the names"
            )
    return [c for c in found if not any(c is other for other in spared)], spared


def choose(pruned, sparsity, scheme):
    """Sets `kept` of every Class so that `sparsity` of all their weights are zero.

    class-blind: those of smallest magnitude among all. class-uniform: of each class. class-distribution: those below
    lambda times the standard deviation of their class, with the lambda that gives this sparsity. Ties at a threshold are
    cut by position. Weights that are zero already come first, so pruning further keeps the zeros that are there.
    """
    if not pruned:
        raise Refusal("there is no matrix left to prune; exclude less")
    size = [c.weights.numel() for c in pruned]
    magnitudes = [c.weights.float().abs().flatten() for c in pruned]
    if scheme == CLASS_UNIFORM:
        kept = [largest(m, round(sparsity * len(m))) for m in magnitudes]
    else:
        if scheme == CLASS_DISTRIBUTION:
            deviations = [
                c.weights.float().std().clamp_min(torch.finfo(torch.float32).tiny) for c in pruned
            ]
            magnitudes = [m / deviation for m, deviation in zip(magnitudes, deviations)]
        kept = largest(torch.cat(magnitudes), round(sparsity * sum(size))).split(size)
    for c, mask in zip(pruned, kept):
        c.kept = mask.view_as(c.weights)


def largest(magnitudes, zeros):
    """(n,) bool: all but the `zeros` smallest; of equals the first ones go first."""
    kept = torch.ones(len(magnitudes), dtype=torch.bool)
    kept[torch.argsort(magnitudes, stable=True)[:zeros]] = False
    return kept


def apply(state, pruned):
    """A copy of a checkpoint's state with the weights set to zero, its averaged weights (EMA) too, without the optimizer's."""
    state = {**state, "model": dict(state["model"]), "last_optimizer_state": None}
    extra = state.get("extra_state") or {}
    averages = {key: dict(extra[key]) for key in AVERAGES if isinstance(extra.get(key), dict)}
    if averages:
        state["extra_state"] = {**extra, **averages}
    for c in pruned:
        weights = c.weights.masked_fill(~c.kept, 0)  # not a product, which would make -0.0 of some
        for name in c.names:
            state["model"][name] = weights  # tied, they stay one tensor
            for average in averages.values():
                if name in average:
                    average[name] = average[name].masked_fill(~c.kept, 0)
    return state


def count(model):
    """(parameters that are not zero, parameters) of a state dictionary, tied ones once."""
    seen, nonzero, total = [], 0, 0
    for tensor in model.values():
        if (
            not tensor.is_floating_point() or tensor.numel() <= 1
        ):  # such as fairseq's version numbers
            continue
        if any(
            other.shape == tensor.shape and torch.equal(other, tensor)
            for other in seen
            if tensor.dim() > 1
        ):
            continue
        seen.append(tensor)
        nonzero, total = nonzero + int(torch.count_nonzero(tensor)), total + tensor.numel()
    return nonzero, total


class FrozenZeros:
    """Keeps the zeros of a model's matrices: what is zero now gets no gradient from now on.

    With no gradient there is no momentum, and nothing for a decay or an average to act on; so it holds for every
    optimizer, in any precision. Refuses a model that has no zeros but rows of padding, such as one that begins from scratch.
    """

    def __init__(self, model):
        if "FullyShardedDataParallel" in {type(module).__name__ for module in model.modules()}:
            raise Refusal(
                "--freeze-zeros needs whole matrices, and FSDP cuts them up; use another --ddp-backend"
            )
        self.masks = [
            (name, p, p.detach() == 0)
            for name, p in model.named_parameters()
            if p.dim() > 1 and p.requires_grad
        ]
        self.masks = [(name, p, zero) for name, p, zero in self.masks if zero.any()]
        if not any(
            bool((zero & ~zero.all(dim=-1, keepdim=True)).any()) for _, _, zero in self.masks
        ):
            raise Refusal(
                "--freeze-zeros finds no zeros to keep: it is for a pruned checkpoint, given with --finetune-from-model or "
                "--restore-file; make one with `seqkd prune`"
            )
        for _, p, zero in self.masks:
            p.register_hook(lambda gradient, zero=zero: gradient.masked_fill(zero, 0))

    def check(self):
        """How many zeros there are; refuses to go on when one is lost."""
        for name, p, zero in self.masks:
            lost = int(torch.count_nonzero(p.detach()[zero]))
            if lost:
                raise Refusal(
                    f"--freeze-zeros: {lost:,} zeros of {name} are lost, which must not happen; do not use this run's checkpoints"
                )
        return sum(int(zero.sum()) for _, _, zero in self.masks)
