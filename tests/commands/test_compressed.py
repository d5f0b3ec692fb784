"""`seqkd compress` and `seqkd restore` bring a pruned student back."""

from argparse import Namespace

import numpy as np
import torch
import toys
from commands import PLUGIN, run_here

from fairseq_seqkd import compat


def same(left, right):
    """Equality of two states, tensors bit by bit and by type."""
    if isinstance(left, torch.Tensor):
        bits = lambda t: t.contiguous().flatten().view(torch.uint8) if t.dtype != torch.bool else t  # noqa: E731
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and torch.equal(bits(left), bits(right))
        )
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return (
            left.keys() == right.keys()
            and list(left) == list(right)
            and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Namespace):
        return isinstance(right, Namespace) and same(vars(left), vars(right))
    return type(left) is type(right) and (left == right or left != left and right != right)


def test_the_commands_bring_a_student_back(tiny, tmp_path):
    toys.train(tiny, tmp_path, criterion="cross_entropy", max_epoch=1)
    student, small, back = (
        tmp_path / name for name in ("checkpoint_last.pt", "x.compressed", "back.pt")
    )
    pruned = tmp_path / "pruned.pt"
    run_here("seqkd", "prune", student, "--sparsity", 0.8, "-o", pruned)
    done = run_here("seqkd", "compress", pruned, "-o", small)
    assert "are not zero" in done.stdout and small.stat().st_size < pruned.stat().st_size
    run_here("seqkd", "restore", small, "-o", back)
    assert same(compat.read_checkpoint(pruned), compat.read_checkpoint(back))
    half, again = tmp_path / "half.compressed", tmp_path / "half.pt"
    run_here("seqkd", "compress", pruned, "--fp16", "-o", half)
    run_here("seqkd", "restore", half, "-o", again)
    assert half.stat().st_size < 0.8 * small.stat().st_size
    halved = {
        name: weights.half().float()
        for name, weights in compat.read_checkpoint(pruned)["model"].items()
    }
    assert same(
        halved,
        {name: weights.float() for name, weights in compat.read_checkpoint(again)["model"].items()},
    )
    options = toys.flags({"gen-subset": "test", "cpu": True, "user-dir": PLUGIN, "beam": 1})
    printed = [
        run_here("fairseq-generate", tiny, "--path", path, *options).stdout
        for path in (pruned, back)
    ]
    texts = [[line for line in text.splitlines() if line.startswith("H-")] for text in printed]
    assert texts[0] == texts[1] and len(texts[0]) >= 40
