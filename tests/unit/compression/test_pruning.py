"""Pruning against counts by hand, and zeros that stay zero through fairseq's ways of training."""

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.commands import prune
from fairseq_seqkd.compression import pruning
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.frozen_zeros import FrozenZeros


def model_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(7, 4, generator=generator)
    return {
        "encoder.version": torch.tensor([3.0]),
        "encoder.embed_tokens.weight": embedding,
        "encoder.layers.0.fc1.weight": torch.randn(5, 4, generator=generator) * 3,
        "encoder.layers.0.fc1.bias": torch.randn(5, generator=generator) / 100,
        "decoder.embed_tokens.weight": embedding,
        "decoder.output_projection.weight": embedding.clone(),
    }


def test_one_number_for_each_channel_is_no_matrix():
    """The gains of a normalised convolution have several dimensions, all but one of them 1: a zero
    there cuts off a channel.
    """
    gains = {
        "fc1.weight_g": torch.ones(32, 1),
        "conv.weight_g": torch.ones(1, 1, 64),
        "conv.weight_v": torch.ones(3, 8, 64),
    }
    pruned, _ = pruning.matrices(gains)
    assert [c.names for c in pruned] == [["conv.weight_v"]]


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.01, 0.99),
    scheme=st.sampled_from(pruning.SCHEMES),
)
@settings(max_examples=80, deadline=None)
def test_the_smallest_go_first(seed, sparsity, scheme):
    model = model_of(seed)
    pruned, spared = pruning.matrices(model)
    assert [c.names for c in pruned] == [
        [
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "decoder.output_projection.weight",
        ],
        ["encoder.layers.0.fc1.weight"],
    ] and not spared
    pruning.choose(pruned, sparsity, scheme)
    if scheme == "class-uniform":
        assert [c.zeros for c in pruned] == [round(sparsity * 28), round(sparsity * 20)]
    else:
        assert sum(c.zeros for c in pruned) == round(sparsity * 48)
    scale = {id(c): c.weights.std() if scheme == "class-distribution" else 1.0 for c in pruned}
    groups = [[c] for c in pruned] if scheme == "class-uniform" else [pruned]
    for group in groups:
        gone = torch.cat([(c.weights.abs() / scale[id(c)])[~c.kept] for c in group])
        kept = torch.cat([(c.weights.abs() / scale[id(c)])[c.kept] for c in group])
        assert not len(gone) or not len(kept) or gone.max() <= kept.min()
    after = pruning.apply({"model": model, "last_optimizer_state": {"exp_avg": 1}}, pruned)
    assert after["last_optimizer_state"] is None
    assert torch.equal(
        after["model"]["encoder.layers.0.fc1.bias"], model["encoder.layers.0.fc1.bias"]
    )
    assert (
        after["model"]["decoder.embed_tokens.weight"]
        is after["model"]["encoder.embed_tokens.weight"]
    )
    nonzero, total = pruning.count(after["model"])
    assert total == 28 + 20 + 5 and nonzero == total - sum(c.zeros for c in pruned)


def test_the_command_knows_the_schemes():
    """It lists them itself, because it must answer --help without loading torch."""
    assert prune.SCHEMES == pruning.SCHEMES


def test_what_is_excluded_is_left_alone():
    pruned, spared = pruning.matrices(model_of(), ["*output_projection*"])
    assert [c.names[0] for c in pruned] == ["encoder.layers.0.fc1.weight"] and len(spared) == 1
    with pytest.raises(Refusal, match="'nothing.*' matches the name of no matrix"):
        pruning.matrices(model_of(), ["nothing.*"])
    with pytest.raises(Refusal, match="no matrix left"):
        pruning.choose(pruning.matrices(model_of(), ["*"])[0], 0.5, "class-blind")


def test_pruning_further_keeps_the_zeros():
    first, _ = pruning.matrices(model_of())
    pruning.choose(first, 0.3, "class-blind")
    once = pruning.apply({"model": model_of()}, first)["model"]
    second, _ = pruning.matrices(once)
    pruning.choose(second, 0.6, "class-blind")
    twice = pruning.apply({"model": once}, second)["model"]
    assert sum(c.zeros for c in second) == round(0.6 * 48)
    assert all(not twice[name][once[name] == 0].any() for name in once)


@pytest.mark.trap(26)
@pytest.mark.parametrize(
    "options", [{"fp16_no_flatten_grads": True}, {}, {"memory_efficient_bf16": True}]
)
def test_zeros_stay_zero_in_bf16(tiny, options):
    """Steps by fairseq's own optimizer; fairseq-train takes --bf16 without a GPU for a sign of a
    TPU.
    """
    from fairseq import tasks
    from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer

    cfg = toys.configure(
        tiny,
        criterion="word_kd",
        alpha=0,
        freeze_zeros=True,
        bf16=True,
        weight_decay=0.1,
        **options,
    )
    task = tasks.setup_task(cfg.task)
    model, criterion = (
        task.build_model(cfg.model).bfloat16().train(),
        task.build_criterion(cfg.criterion),
    )
    task.load_dataset("valid")
    weight = model.encoder.layers[0].fc1.weight
    with torch.no_grad():
        weight[:, ::3] = 0
    kind = MemoryEfficientFP16Optimizer if "memory_efficient_bf16" in options else FP16Optimizer
    optimizer = kind.build_optimizer(cfg, [p for p in model.parameters() if p.requires_grad])
    before = weight.detach().clone()
    for _ in range(4):
        optimizer.zero_grad()
        optimizer.backward(criterion(model, toys.batch(task))[0])
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
    assert weight.dtype == torch.bfloat16 and not weight[:, ::3].any()
    assert not torch.equal(weight, before)


@pytest.mark.trap(26)
def test_matrices_that_are_cut_up_are_refused():
    """A stand-in of FSDP's name: its shards would hide which weights are whose."""

    class FullyShardedDataParallel(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(FullyShardedDataParallel(4, 4))
    torch.nn.init.zeros_(model[0].weight[0, :2])
    with pytest.raises(Refusal, match="FSDP splits them"):
        FrozenZeros().freeze(model)


def test_a_lost_zero_stops_the_run(tiny):
    task, model, criterion = toys.build(tiny, criterion="word_kd", alpha=0, freeze_zeros=True)
    weight = model.encoder.layers[0].fc1.weight
    with torch.no_grad():
        weight[0, :3] = 0
    sample = toys.batch(task)
    model.train()
    criterion(model, sample)[0].backward()
    assert not weight.grad[0, :3].any() and weight.grad[0, 3:].any()
    model.eval()
    criterion(model, sample)
    model.train()
    criterion(model, sample)
    with torch.no_grad():
        weight[0, 1] = 0.5
    model.eval()
    with pytest.raises(Refusal, match="1 zeros of encoder.layers.0.fc1.weight are lost"):
        criterion(model, sample)
