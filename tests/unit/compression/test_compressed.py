"""Compressed files: every bit comes back, they are small, and nothing else is taken for one."""

import lzma
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fairseq_seqkd import compat
from fairseq_seqkd.compression import compressed
from fairseq_seqkd.errors import Refusal


@pytest.fixture
def weights():
    """(400, 250) float32, four fifths of them zero."""
    weights = torch.randn(400, 250, generator=torch.Generator().manual_seed(1))
    weights[weights.abs() < weights.abs().flatten().kthvalue(80_000)[0]] = 0
    return weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_bit_comes_back(tmp_path, weights, dtype):
    weights = weights.to(dtype)
    weights[0, :3] = torch.tensor([-0.0, float("inf"), float("nan")])
    state = {
        "model": {"a": weights, "tied": weights, "none": torch.zeros(0, 3)},
        "args": Namespace(arch="transformer"),
        "extra_state": {"best": np.float64(1.25), "counts": np.array([1, 2])},
        "last_optimizer_state": {"exp_avg": torch.ones(3)},
    }
    compressed.compress(state, tmp_path / "x.compressed")
    compressed.restore(tmp_path / "x.compressed", tmp_path / "back.pt")
    back = compat.read_checkpoint(tmp_path / "back.pt")
    bits = back["model"]["a"].view(torch.uint8)
    assert back["model"]["a"].dtype == dtype and torch.equal(bits, weights.view(torch.uint8))
    assert back["model"]["a"].data_ptr() == back["model"]["tied"].data_ptr()
    assert back["model"]["none"].shape == (0, 3)
    assert back["args"] == state["args"] and back["last_optimizer_state"] is None
    assert back["extra_state"]["best"] == 1.25
    assert np.array_equal(back["extra_state"]["counts"], [1, 2])


def test_zeros_take_little_space_and_16_bits_less(tmp_path, weights):
    state = {"model": {"w": weights, "tied": weights}}
    dense = 4 * weights.numel()
    for half, bound in ((False, 0.26), (True, 0.16)):
        compressed.compress(state, tmp_path / "x.compressed", half)
        assert (tmp_path / "x.compressed").stat().st_size < bound * dense
        compressed.restore(tmp_path / "x.compressed", tmp_path / "back.pt")
        back = compat.read_checkpoint(tmp_path / "back.pt")["model"]
        assert back["w"].dtype == torch.float32
        assert back["w"].data_ptr() == back["tied"].data_ptr()
        assert torch.equal(back["w"], weights.half().float() if half else weights)


def code(path):
    """Writes a compressed file whose content runs code when it is unpickled without care."""
    torch.save({"model": {"w": print}}, path.with_suffix(".pt"))
    path.write_bytes(lzma.compress(path.with_suffix(".pt").read_bytes()))


def cut(path):
    compressed.compress({"model": {"w": torch.ones(99)}}, path)
    path.write_bytes(path.read_bytes()[:-20])


def changed(path):
    compressed.compress({"model": {"w": torch.ones(99)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def earlier_format(path):
    save_file({"0.bits": torch.ones(3)}, path, {"format": "fairseq_seqkd/sparse/1"})


@pytest.mark.parametrize(
    "write,sentence",
    [
        (code, "could run code when loaded"),
        (cut, "compress the checkpoint again"),
        (changed, "compress the checkpoint again"),
        (earlier_format, "no file of this version of `seqkd compress`"),
        (lambda path: path.write_bytes(b""), "compress the checkpoint again|damaged"),
        (lambda path: path.write_bytes(lzma.compress(b"text")), "damaged"),
        (lambda path: None, "does not exist"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(tmp_path, write, sentence):
    write(tmp_path / "x.compressed")
    with pytest.raises(Refusal, match=sentence):
        compressed.restore(tmp_path / "x.compressed", tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()
