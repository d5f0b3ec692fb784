"""Magnitude pruning of checkpoints (See et al. 2016).

Matrices are pruned, embeddings and the output layer included; biases and layer norms never. Tied
matrices are one class, which is counted and pruned once. A pruned checkpoint has no optimizer
state, because its momentum would revive the zeros.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from fairseq_seqkd.errors import Refusal

CLASS_BLIND, CLASS_UNIFORM, CLASS_DISTRIBUTION = (
    "class-blind",
    "class-uniform",
    "class-distribution",
)
SCHEMES = (CLASS_BLIND, CLASS_UNIFORM, CLASS_DISTRIBUTION)
# Where fairseq keeps averaged weights. With --ema-fp32 it continues from the second.
AVERAGES = ("ema", "ema_fp32_params")

Weights = Dict[str, Tensor]


@dataclass
class Matrix:
    """A matrix of weights under all of its names, and what pruning keeps of it."""

    names: List[str]
    weights: Tensor
    kept: Optional[Tensor] = None  # bool, of the same shape; None if nothing is pruned

    @property
    def zeros(self) -> int:
        """The number of weights that are zero after pruning."""
        kept = self.weights != 0 if self.kept is None else self.kept
        return int((~kept).sum())

    def matches(self, pattern: str) -> bool:
        """Returns whether a shell pattern matches one of the names."""
        return any(fnmatchcase(name, pattern) for name in self.names)

    def pruned(self, weights: Tensor) -> Tensor:
        """Returns weights of this shape with zeros. (A product would make -0.0 of some.)"""
        return weights if self.kept is None else weights.masked_fill(~self.kept, 0)


def matrices(model: Weights, exclude: Sequence[str] = ()) -> Tuple[List[Matrix], List[Matrix]]:
    """Returns the matrices to prune and those that are excluded, in the order of the model.

    Args:
        model: the weights by name.
        exclude: shell patterns; a matrix is excluded if one of its names matches.

    Raises:
        Refusal: a pattern matches no matrix.
    """
    distinct: List[Matrix] = []
    for name, tensor in model.items():
        if sum(size > 1 for size in tensor.shape) < 2 or not tensor.is_floating_point():
            continue
        known = next((matrix for matrix in distinct if _equal(matrix.weights, tensor)), None)
        if known:
            known.names.append(name)
        else:
            distinct.append(Matrix([name], tensor))
    for pattern in exclude:
        if not any(matrix.matches(pattern) for matrix in distinct):
            raise Refusal(
                f"--exclude {pattern!r} matches the name of no matrix; --dry-run prints their names"
            )
    is_excluded = [any(map(matrix.matches, exclude)) for matrix in distinct]
    return (
        [matrix for matrix, excluded in zip(distinct, is_excluded) if not excluded],
        [matrix for matrix, excluded in zip(distinct, is_excluded) if excluded],
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    """Returns whether weights are tied. They are one tensor, or in averaged checkpoints equal."""
    return one.shape == other.shape and torch.equal(one, other)


def choose(pruned: Sequence[Matrix], sparsity: float, scheme: str) -> None:
    """Sets `kept` of every matrix so that a share of all their weights is zero.

    Ties at a threshold are cut by position. Weights that are zero come first, so pruning further
    keeps the zeros that are there.

    Args:
        pruned: the matrices.
        sparsity: the share, between 0 and 1.
        scheme: class-blind takes the smallest magnitudes of all matrices, class-uniform those of
            each matrix. class-distribution takes those below lambda times the standard deviation
            of their matrix, with the lambda that gives this share.

    Raises:
        Refusal: there is no matrix.
    """
    if not pruned:
        raise Refusal("there is no matrix left to prune; exclude less")
    sizes = [matrix.weights.numel() for matrix in pruned]
    magnitudes = [matrix.weights.float().abs().flatten() for matrix in pruned]
    if scheme == CLASS_UNIFORM:
        kept = [largest(values, round(sparsity * len(values))) for values in magnitudes]
    else:
        if scheme == CLASS_DISTRIBUTION:
            smallest = torch.finfo(torch.float32).tiny
            deviations = [matrix.weights.float().std().clamp_min(smallest) for matrix in pruned]
            magnitudes = [values / std for values, std in zip(magnitudes, deviations)]
        kept = list(largest(torch.cat(magnitudes), round(sparsity * sum(sizes))).split(sizes))
    for matrix, mask in zip(pruned, kept):
        matrix.kept = mask.view_as(matrix.weights)


def largest(magnitudes: Tensor, zeros: int) -> Tensor:
    """Returns (n,) bool, False for the smallest. Of equal magnitudes the first ones are dropped.

    Args:
        magnitudes: (n,).
        zeros: the number of smallest ones.
    """
    kept = torch.ones(len(magnitudes), dtype=torch.bool)
    kept[torch.argsort(magnitudes, stable=True)[:zeros]] = False
    return kept


def apply(state: Dict[str, Any], pruned: Sequence[Matrix]) -> Dict[str, Any]:
    """Returns a copy of a checkpoint's state with zeros, and without the optimizer's state.

    Args:
        state: of a Checkpoint. Its averaged weights (EMA) are pruned, too.
        pruned: the matrices, with `kept` set.
    """
    state = {**state, "model": dict(state["model"]), "last_optimizer_state": None}
    extra = state.get("extra_state") or {}
    averages = {key: dict(extra[key]) for key in AVERAGES if isinstance(extra.get(key), dict)}
    if averages:
        state["extra_state"] = {**extra, **averages}
    for matrix in pruned:
        weights = matrix.pruned(matrix.weights)
        for name in matrix.names:
            state["model"][name] = weights  # tied, they stay one tensor
            for average in averages.values():
                if name in average:
                    average[name] = matrix.pruned(average[name])
    return state


def count(model: Weights) -> Tuple[int, int]:
    """Returns the number of parameters that are not zero and of all parameters, tied ones once."""
    distinct: List[Tensor] = []
    for tensor in model.values():
        # fairseq's version numbers are tensors of one number.
        is_parameter = tensor.is_floating_point() and tensor.numel() > 1
        is_tied = tensor.dim() > 1 and any(_equal(tensor, other) for other in distinct)
        if is_parameter and not is_tied:
            distinct.append(tensor)
    nonzero = sum(int(torch.count_nonzero(tensor)) for tensor in distinct)
    return nonzero, sum(tensor.numel() for tensor in distinct)
