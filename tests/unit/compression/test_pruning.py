"""Pruning against counts by hand, and zeros that stay zero through fairseq's ways of training."""

import json
import re

import helpers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd import compat
from fairseq_seqkd.commands import prune
from fairseq_seqkd.compression import pruning
from fairseq_seqkd.errors import Refusal


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
    """The gains of a normalised convolution have several dimensions, all but one of them 1: a zero there cuts off a channel."""
    gains = {
        "fc1.weight_g": torch.ones(32, 1),
        "conv.weight_g": torch.ones(1, 1, 64),
        "conv.weight_v": torch.ones(3, 8, 64),
    }
    pruned, _ = pruning.classes(gains)
    assert [c.names for c in pruned] == [["conv.weight_v"]]


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.01, 0.99),
    scheme=st.sampled_from(pruning.SCHEMES),
)
@settings(max_examples=80, deadline=None)
def test_the_smallest_go_first(seed, sparsity, scheme):
    model = model_of(seed)
    pruned, spared = pruning.classes(model)
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
    pruned, spared = pruning.classes(model_of(), ["*output_projection*"])
    assert [c.names[0] for c in pruned] == ["encoder.layers.0.fc1.weight"] and len(spared) == 1
    with pytest.raises(Refusal, match="'nothing.*' is the name of no matrix"):
        pruning.classes(model_of(), ["nothing.*"])
    with pytest.raises(Refusal, match="no matrix left"):
        pruning.choose(pruning.classes(model_of(), ["*"])[0], 0.5, "class-blind")


def test_pruning_further_keeps_the_zeros():
    first, _ = pruning.classes(model_of())
    pruning.choose(first, 0.3, "class-blind")
    once = pruning.apply({"model": model_of()}, first)["model"]
    second, _ = pruning.classes(once)
    pruning.choose(second, 0.6, "class-blind")
    twice = pruning.apply({"model": once}, second)["model"]
    assert sum(c.zeros for c in second) == round(0.6 * 48)
    assert all(not twice[name][once[name] == 0].any() for name in once)


@pytest.fixture(scope="module")
def student(tiny, tmp_path_factory):
    """A checkpoint with tied embeddings, Adam's momentum and EMA weights."""
    folder = tmp_path_factory.mktemp("student")
    helpers.train(
        tiny,
        folder,
        TIED,
        criterion="cross_entropy",
        max_epoch=6,
        disable_validation=True,
        store_ema=True,
        ema_fp32=True,
    )
    return folder / "checkpoint_last.pt"


TIED = {"share-decoder-input-output-embed": True}


@pytest.fixture(scope="module")
def pruned(student, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned") / "pruned.pt"
    done = helpers.command("seqkd", "prune", student, "--sparsity", 0.7, "-o", out)
    return out, done.stdout


def zeros(path):
    return {
        name: tensor == 0
        for name, tensor in compat.read_checkpoint(path)["model"].items()
        if tensor.dim() > 1
    }


def test_the_command_writes_a_stock_checkpoint_and_a_table(student, pruned, tiny):
    path, printed = pruned
    before, after = compat.read_checkpoint(student), compat.read_checkpoint(path)
    assert before["last_optimizer_state"] and not after["last_optimizer_state"]
    assert after["optimizer_history"] == before["optimizer_history"]
    assert after["extra_state"]["train_iterator"] == before["extra_state"]["train_iterator"]
    masks = zeros(path)
    weights = {
        name: mask for name, mask in masks.items() if name != "decoder.output_projection.weight"
    }  # tied
    share = sum(int(mask.sum()) for mask in weights.values()) / sum(
        mask.numel() for mask in weights.values()
    )
    assert share == pytest.approx(0.7, abs=1e-4)
    assert (
        "decoder.embed_tokens.weight, decoder.output_projection.weight" in printed
        and "70.0%" in printed
    )
    for name, mask in masks.items():
        assert not after["extra_state"]["ema"][name][mask].any()
        assert not after["extra_state"]["ema_fp32_params"][name][mask].any()
    options = helpers.flags(
        {"path": path, "gen-subset": "test", "cpu": True, "user-dir": helpers.PLUGIN}
    )
    assert (
        helpers.command("fairseq-generate", tiny, *options).stdout.count("\nH-") >= 40
    )  # fairseq may drop up to 7


def test_a_dry_run_writes_nothing(student, tmp_path):
    shares = {}
    for scheme in ("class-uniform", "class-blind"):
        words = ["--dry-run", "--scheme", scheme, "-o", tmp_path / "pruned.pt", "--json"]
        found = json.loads(
            helpers.command("seqkd", "prune", student, "--sparsity", 0.5, *words).stdout
        )
        shares[scheme] = {
            round(matrix["zeros"] / matrix["weights"], 2) for matrix in found["matrices"]
        }
    assert shares["class-uniform"] == {0.5} and len(shares["class-blind"]) > 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (["--sparsity", "1.5", "-o", "out.pt"], "--sparsity is 1.5"),
        (["--sparsity", "0.5"], "-o FILE is missing"),
        (["--sparsity", "0.5", "-o", "/no/such/folder/out.pt"], "its folder does not exist"),
    ],
)
def test_wrong_arguments_are_one_sentence(student, arguments, sentence):
    assert sentence in helpers.refusal(
        helpers.command("seqkd", "prune", student, *arguments, check=False)
    )


RETRAINING = {
    "Adam, decay, clipping, in turns": {"weight-decay": 0.1, "clip-norm": 0.5, "update-freq": 2},
    "SGD with momentum and decay": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight-decay": 0.1,
        "lr": 0.1,
    },
    "fp16": {"fp16": True, "fp16-no-flatten-grads": True},
    "averaged weights": {"store-ema": True, "ema-decay": 0.9},
    "averaged weights in float32": {"store-ema": True, "ema-decay": 0.9, "ema-fp32": True},
}


@pytest.mark.parametrize("options", RETRAINING.values(), ids=RETRAINING)
def test_zeros_stay_zero(pruned, tiny, teacher, options, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "teacher-path": teacher,
        "freeze-zeros": True,
        "finetune-from-model": pruned[0],
    }
    done = helpers.train(tiny, tmp_path, common, options, max_epoch=2)
    before, after = zeros(pruned[0]), zeros(tmp_path / "checkpoint_last.pt")
    for name, mask in before.items():
        assert after[name][mask].all(), name
        assert not torch.equal(mask, torch.ones_like(mask))
    moved = compat.read_checkpoint(tmp_path / "checkpoint_last.pt")["model"]
    start = compat.read_checkpoint(pruned[0])["model"]
    assert any(
        not torch.equal(moved[name], start[name]) for name in before
    )  # the others were trained
    if "store-ema" in options:
        average = compat.read_checkpoint(tmp_path / "checkpoint_last.pt")["extra_state"]["ema"]
        assert all(not average[name][mask].any() for name, mask in before.items())
    assert (
        len(re.findall(r"all [\d,]+ zeros are there", done.stdout)) == 2
    )  # one for each validation


def test_zeros_stay_zero_in_two_processes(pruned, tiny, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "alpha": 0,
        "freeze-zeros": True,
        "finetune-from-model": pruned[0],
    }
    printed = helpers.train_in_two(tiny, tmp_path, common, max_epoch=1)
    after = zeros(tmp_path / "checkpoint_last.pt")
    assert all(after[name][mask].all() for name, mask in zeros(pruned[0]).items())
    assert len(re.findall(r"all [\d,]+ zeros are there", printed)) == 1


def test_without_the_option_they_come_back(pruned, tiny, teacher, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "teacher-path": teacher,
        "finetune-from-model": pruned[0],
    }
    helpers.train(tiny, tmp_path, common, max_epoch=1, disable_validation=True)
    before, after = zeros(pruned[0]), zeros(tmp_path / "checkpoint_last.pt")
    assert any(not after[name][mask].all() for name, mask in before.items())


def test_zeros_stay_zero_where_a_run_is_continued(pruned, tiny, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "alpha": 0,
        "freeze-zeros": True,
        "finetune-from-model": pruned[0],
    }
    helpers.train(tiny, tmp_path, common, max_update=5, disable_validation=True)
    del common["finetune-from-model"]
    helpers.train(tiny, tmp_path, common, max_update=12, disable_validation=True)
    after = zeros(tmp_path / "checkpoint_last.pt")
    assert all(after[name][mask].all() for name, mask in zeros(pruned[0]).items())


def test_from_scratch_there_is_nothing_to_keep(tiny, tmp_path):
    command = helpers.train_command(
        tiny, tmp_path, TIED, criterion="word_kd", alpha=0, freeze_zeros=True
    )
    done = helpers.command("fairseq-train", *command, check=False)
    assert done.returncode != 0 and "finds no zeros to keep" in done.stdout


@pytest.mark.parametrize(
    "options", [{"fp16_no_flatten_grads": True}, {}, {"memory_efficient_bf16": True}]
)
def test_zeros_stay_zero_in_bf16(tiny, options):
    """Steps by fairseq's own optimizer; fairseq-train takes --bf16 without a GPU for a sign of a TPU."""
    from fairseq import tasks
    from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer

    cfg = helpers.configure(
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
        optimizer.backward(criterion(model, helpers.batch(task))[0])
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
    assert weight.dtype == torch.bfloat16 and not weight[:, ::3].any()
    assert not torch.equal(weight, before)


def test_matrices_that_are_cut_up_are_refused():
    """A stand-in of FSDP's name: its shards would hide which weights are whose."""

    class FullyShardedDataParallel(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(FullyShardedDataParallel(4, 4))
    torch.nn.init.zeros_(model[0].weight[0, :2])
    with pytest.raises(Refusal, match="FSDP cuts them up"):
        pruning.FrozenZeros(model)


def test_a_lost_zero_stops_the_run(tiny):
    task, model, criterion = helpers.build(tiny, criterion="word_kd", alpha=0, freeze_zeros=True)
    weight = model.encoder.layers[0].fc1.weight
    with torch.no_grad():
        weight[0, :3] = 0
    sample = helpers.batch(task)
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
