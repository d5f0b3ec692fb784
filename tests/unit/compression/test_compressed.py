"""Sparse files: every bit comes back, they are small, and nothing else is taken for one."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from fairseq_seqkd.compression import compressed as sparse
from fairseq_seqkd.errors import Refusal


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


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(
            st.one_of(st.text(max_size=4), st.just("$"), st.integers()), inner, max_size=3
        ),
        st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner, max_size=3).map(
            lambda found: Namespace(**found)
        ),
    ),
    max_leaves=8,
)


@given(
    extra=NESTED,
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
    dtype=st.sampled_from(list(sparse.FLOATS.values())),
)
@settings(max_examples=60, deadline=None)
def test_every_bit_comes_back(tmp_path_factory, extra, seed, share, dtype):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(13, 11, generator=generator).to(dtype)
    weights[torch.rand(13, 11, generator=generator) < share] = 0
    weights[0, :3] = torch.tensor([-0.0, float("inf"), float("nan")])
    state = {
        "model": {
            "a": weights,
            "tied": weights,
            "bias": torch.zeros(5),
            "none": torch.zeros(0, 3),
            "version": torch.ones(1),
        },
        "extra_state": {
            "extra": extra,
            "best": np.float64(1.25),
            "counts": np.array([1, 2]),
            "mask": torch.tensor([True]),
        },
        "last_optimizer_state": {"exp_avg": torch.ones(3)},
    }
    path = tmp_path_factory.mktemp("sparse") / "x.sparse"
    sparse.compress(state, path)
    found = sparse.restore(path)
    assert same({**state, "last_optimizer_state": None}, found)
    assert found["model"]["a"] is found["model"]["tied"]
    with safe_open(str(path), framework="pt") as file:
        sizes = [file.get_tensor(key).numel() for key in file.keys()]  # noqa: SIM118
        assert sum(size > 3 for size in sizes) <= 6  # tied weights are there once


def test_at_eighty_per_cent_it_is_a_quarter(tmp_path):
    weights = torch.randn(500, 1000)
    weights[weights.abs() < weights.abs().flatten().kthvalue(400_000)[0]] = 0
    torch.save({"model": {"w": weights}}, tmp_path / "dense.pt")
    dense = (tmp_path / "dense.pt").stat().st_size
    for half, bound in ((False, 0.235), (True, 0.135)):  # 1 bit and a fifth of 32, or of 16
        sparse.compress({"model": {"w": weights}}, tmp_path / "x.sparse", half)
        assert (tmp_path / "x.sparse").stat().st_size / dense < bound
        found = sparse.restore(tmp_path / "x.sparse")["model"]["w"]
        assert found.dtype == torch.float32
        assert torch.equal(found, weights.half().float() if half else weights)


def damaged(path, out, change):
    with safe_open(str(path), framework="pt") as file:
        about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(about, tensors)
    save_file(tensors, str(out), about)


def cut_values(about, tensors):
    tensors["0.values"] = tensors["0.values"][:-1].clone()


def cut_bits(about, tensors):
    tensors["0.bits"] = tensors["0.bits"][:-1].clone()


def enlarge(about, tensors):
    state = json.loads(about["state"])
    state["model"]["w"]["shape"] = [10**9, 10**9]
    about["state"] = json.dumps(state)


def other_type(about, tensors):
    about["state"] = about["state"].replace('"float32"', '"os.system"')


@pytest.mark.parametrize(
    "change",
    [
        cut_values,
        cut_bits,
        enlarge,
        other_type,
        lambda about, tensors: tensors.pop("0.bits"),
        lambda about, tensors: about.update(state="{"),
        lambda about, tensors: about.update(state="[]"),
        lambda about, tensors: about.update(state='{"model": {"$": "exec"}}'),
        lambda about, tensors: about.update(format="other"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, change):
    weights = torch.randn(40, 40)
    weights[weights < 1] = 0
    sparse.compress({"model": {"w": weights}}, tmp_path / "x.sparse")
    damaged(tmp_path / "x.sparse", tmp_path / "y.sparse", change)
    with pytest.raises(Refusal):
        sparse.restore(tmp_path / "y.sparse")


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Refusal, match="no sparse checkpoint"):
        sparse.restore(tmp_path / "x")
    with pytest.raises(Refusal, match="does not exist"):
        sparse.restore(tmp_path / "absent")
