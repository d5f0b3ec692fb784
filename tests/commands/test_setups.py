"""fairseq's ways of training, with the live teacher and the stored one: several processes, half
precision, resuming.
"""

import re

import pytest
import torch
import toys
from commands import BIN, run_here, start_process

MAX_TOKENS = 300
ODD = 18  # sentences of a batch with which the toy training set has an odd number of batches


@pytest.fixture(params=["live", "stored"])
def teaching(request, teacher, whole):
    """The options of a criterion that learns from the teacher.

    Stored, its distributions are whole, and so the same.
    """
    kind = (
        {"teacher-path": teacher} if request.param == "live" else {"teacher-distributions": whole}
    )
    return {
        "criterion": "word_kd",
        "dropout": 0.0,
        "max-tokens": MAX_TOKENS,
        "log-interval": 1,
        **kind,
    }


def training_losses(printed):
    """[(loss, nll, kd, teacher's nll) of every update], and what was validated."""
    keys = ("loss", "nll_loss", "kd_loss", "teacher_nll_loss")
    lines = [line for line in printed.splitlines() if "| train_inner |" in line]
    found = [
        tuple(float(re.search(rf"\b{key}=([\d.]+)", line)[1]) for key in keys) for line in lines
    ]
    return found, re.findall(r"valid on 'valid' subset \| loss ([\d.]+)", printed)


@pytest.mark.trap(16, 23)
def test_two_processes_are_one_that_waits_for_two_batches(tiny, teaching, tmp_path):
    """DDP against --update-freq 2, over two epochs. The batches are odd in number: at an epoch's
    end the second process
    gets one that does not count, and after the first validation that is a batch of the validation
    split."""
    task, *_ = toys.build(tiny, criterion="cross_entropy")
    task.load_dataset("train")
    limits = {"max_tokens": MAX_TOKENS, "max_sentences": ODD, "required_batch_size_multiple": 1}
    batches = task.get_batch_iterator(task.dataset("train"), seed=1, **limits)
    assert len(batches.next_epoch_itr()) % 2 == 1
    alone = toys.train(tiny, tmp_path / "one", teaching, update_freq=2, max_epoch=2, batch_size=ODD)
    expected, validated = training_losses(alone.stdout)
    printed = toys.train_in_two(tiny, tmp_path / "two", teaching, max_epoch=2, batch_size=ODD)
    found, also_validated = training_losses(printed)
    assert len(found) == len(expected) > 4
    for mine, theirs in zip(found, expected):
        assert mine == pytest.approx(theirs, abs=2e-3)
    assert len(also_validated) == 2
    assert [float(v) for v in also_validated] == pytest.approx(
        [float(v) for v in validated], abs=2e-3
    )


@pytest.mark.parametrize("teaching", ["stored"], indirect=True)
def test_two_processes_that_could_not_begin_from_their_checkpoint_are_refused(
    tiny, teaching, tmp_path
):
    meet = {
        **toys.DDP,
        "distributed-init-method": f"file://{tmp_path}/meet",
        "load-checkpoint-on-all-dp-ranks": False,
    }
    commands = [
        toys.train_command(tiny, tmp_path / "two", teaching, meet, distributed_rank=rank)
        for rank in range(2)
    ]
    workers = [start_process("fairseq-train", *words) for words in commands]
    for worker in workers:
        printed = worker.communicate()
        assert (
            worker.returncode == 1
            and "pass --load-checkpoint-on-all-dp-ranks" in printed
            and "Traceback" not in printed
        )
    assert not list((tmp_path / "two").glob("*.pt"))


@pytest.mark.trap(16)
@pytest.mark.slow
@pytest.mark.parametrize("teaching", ["stored"], indirect=True)
def test_torchrun(tiny, teaching, tmp_path):
    """As the README has it: torchrun gives each process its rank, fairseq is told to use it."""
    ddp = {**toys.DDP, "distributed-init-method": "env://"}
    command = toys.train_command(tiny, tmp_path / "two", teaching, ddp, max_epoch=1)
    words = " ".join(f"'{word}'" for word in [BIN / "fairseq-train", *command])
    done = run_here(
        "torchrun",
        "--nproc_per_node=2",
        "--no-python",
        "bash",
        "-c",
        f"{words} --distributed-rank $RANK",
    )
    alone = toys.train(tiny, tmp_path / "one", teaching, update_freq=2, max_epoch=1)
    expected, found = training_losses(alone.stdout)[0], training_losses(done.stdout)[0]
    assert len(found) == len(expected)  # the second process logs nothing
    for mine, theirs in zip(found, expected):
        assert mine == pytest.approx(theirs, abs=2e-3)


OTHERS = {
    "clipped, in turns, averaged by sentence, softened": {
        "update-freq": 3,
        "clip-norm": 0.1,
        "sentence-avg": True,
        "temperature": 2.0,
        "label-smoothing": 0.1,
        "alpha": 0.7,
    },
    "fp16, accuracy, a prefix left out": {
        "fp16": True,
        "fp16-no-flatten-grads": True,
        "report-accuracy": True,
        "ignore-prefix-size": 1,
    },
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_live_and_stored_train_alike(tiny, teacher, whole, options, tmp_path):
    common = {
        "criterion": "word_kd",
        "dropout": 0.0,
        "max-tokens": MAX_TOKENS,
        "log-interval": 1,
        "max-update": 8,
    }
    found = [
        training_losses(
            toys.train(
                tiny, tmp_path / key, common, options, {key: value}, disable_validation=True
            ).stdout
        )[0]
        for key, value in (("teacher-path", teacher), ("teacher-distributions", whole))
    ]
    assert len(found[0]) == 8
    for live, stored in zip(*found):
        assert stored == pytest.approx(live, rel=2e-3, abs=3e-3)


@pytest.mark.trap(27)
@pytest.mark.parametrize("teaching", ["live"], indirect=True)
def test_half_precision_on_the_cpu_is_near_full(tiny, teaching, tmp_path):
    full, half = (
        training_losses(
            toys.train(
                tiny, tmp_path / name, teaching, options, max_update=8, disable_validation=True
            ).stdout
        )[0]
        for name, options in (("full", {}), ("half", {"fp16": True, "fp16-no-flatten-grads": True}))
    )
    assert len(full) == len(half) == 8 and full != half
    for mine, theirs in zip(half, full):
        assert mine == pytest.approx(theirs, rel=0.02)


@pytest.mark.trap(4, 27)
def test_bfloat16(tiny, teaching):
    """fairseq's --bf16 means TPUs on its command line; its trainer makes the model bfloat16 and no
    more.
    """
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        task, model, criterion = toys.build(tiny, teaching)
        task.load_dataset("train")
        model.to(dtype).train()
        sample = toys.batch(task, split="train")
        loss, _, _ = criterion(model, sample)
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(
            torch.isfinite(p.grad).all() and p.grad.dtype == dtype
            for p in model.parameters()
            if p.grad is not None
        )
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[0] != losses[1]


@pytest.mark.parametrize(
    "teaching", ["stored"], indirect=True
)  # test_students.py does it with a live teacher
def test_a_run_that_stopped_in_an_epoch_goes_on_as_if_nothing_had_happened(
    tiny, teaching, tmp_path
):
    undisturbed = toys.train(
        tiny, tmp_path / "whole", teaching, max_update=12, disable_validation=True
    ).stdout
    toys.train(tiny, tmp_path / "parts", teaching, max_update=5, disable_validation=True)
    continued = toys.train(
        tiny, tmp_path / "parts", teaching, max_update=12, disable_validation=True
    ).stdout
    assert training_losses(continued)[0] == training_losses(undisturbed)[0][5:]
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
