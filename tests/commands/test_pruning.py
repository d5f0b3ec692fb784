"""`seqkd prune`, and zeros that stay zero through fairseq's ways of training."""

import json
import re

import pytest
import torch
import toys
from commands import PLUGIN, refusal, run_here

from fairseq_seqkd import compat


@pytest.fixture(scope="module")
def student(tiny, tmp_path_factory):
    """A checkpoint with tied embeddings, Adam's momentum and EMA weights."""
    folder = tmp_path_factory.mktemp("student")
    toys.train(
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
    done = run_here("seqkd", "prune", student, "--sparsity", 0.7, "-o", out)
    return out, done.stdout


def zeros(path):
    return {
        name: tensor == 0
        for name, tensor in compat.read_checkpoint(path)["model"].items()
        if tensor.dim() > 1
    }


@pytest.mark.trap(26)
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
    options = toys.flags({"path": path, "gen-subset": "test", "cpu": True, "user-dir": PLUGIN})
    assert (
        run_here("fairseq-generate", tiny, *options).stdout.count("\nH-") >= 40
    )  # fairseq may drop up to 7


def test_a_dry_run_writes_nothing(student, tmp_path):
    shares = {}
    for scheme in ("class-uniform", "class-blind"):
        words = ["--dry-run", "--scheme", scheme, "-o", tmp_path / "pruned.pt", "--json"]
        found = json.loads(run_here("seqkd", "prune", student, "--sparsity", 0.5, *words).stdout)
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
    assert sentence in refusal(run_here("seqkd", "prune", student, *arguments, check=False))


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


@pytest.mark.trap(26)
@pytest.mark.parametrize("options", RETRAINING.values(), ids=RETRAINING)
def test_zeros_stay_zero(pruned, tiny, teacher, options, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "teacher-path": teacher,
        "freeze-zeros": True,
        "finetune-from-model": pruned[0],
    }
    done = toys.train(tiny, tmp_path, common, options, max_epoch=2)
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


@pytest.mark.trap(26)
def test_zeros_stay_zero_in_two_processes(pruned, tiny, tmp_path):
    common = {
        **TIED,
        "criterion": "word_kd",
        "alpha": 0,
        "freeze-zeros": True,
        "finetune-from-model": pruned[0],
    }
    printed = toys.train_in_two(tiny, tmp_path, common, max_epoch=1)
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
    toys.train(tiny, tmp_path, common, max_epoch=1, disable_validation=True)
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
    toys.train(tiny, tmp_path, common, max_update=5, disable_validation=True)
    del common["finetune-from-model"]
    toys.train(tiny, tmp_path, common, max_update=12, disable_validation=True)
    after = zeros(tmp_path / "checkpoint_last.pt")
    assert all(after[name][mask].all() for name, mask in zeros(pruned[0]).items())


def test_from_scratch_there_is_nothing_to_keep(tiny, tmp_path):
    command = toys.train_command(
        tiny, tmp_path, TIED, criterion="word_kd", alpha=0, freeze_zeros=True
    )
    done = run_here("fairseq-train", *command, check=False)
    assert done.returncode != 0 and "finds no zeros to keep" in done.stdout


def test_excluded_matrices_stay_as_they_are(student, tmp_path):
    done = run_here(
        "seqkd", "prune", student, "--sparsity", 0.5, "--exclude", "*embed*", "--json",
        "-o", tmp_path / "pruned.pt",
    )  # fmt: skip
    printed = json.loads(done.stdout[done.stdout.index("{") :])
    zeros = {matrix["names"][0]: matrix["zeros"] for matrix in printed["matrices"]}
    before, after = (compat.read_checkpoint(p)["model"] for p in (student, tmp_path / "pruned.pt"))
    excluded = [name for name in zeros if "embed" in name]
    assert excluded and zeros.keys() > set(excluded)
    for name in excluded:
        assert torch.equal(before[name], after[name])
        assert zeros[name] == int((before[name] == 0).sum())
