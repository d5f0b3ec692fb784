"""Builds toy models and trains them, decodes and scores with them.

Trainings and decodes are commands, as users run them. Options are dictionaries of fairseq's
options without the hyphens in front; keywords are options with underscores in place of hyphens.
True is an option without a value; None leaves it out.
"""

import socket
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import processes
import stopping
import warm
from commands import PLUGIN, run_here, start_process

Options = Dict[str, Any]
PathLike = Union[str, Path]

# For decode_command: distributions are stored instead of n-best lists.
SCORING = {"score_reference": True, "beam": None, "nbest": None, "max_len_b": None}
EVERYTHING = 1000  # as --topk: more symbols than the toy dictionary has

TINY = {
    "arch": "transformer",
    "encoder-layers": 1,
    "decoder-layers": 1,
    "encoder-embed-dim": 32,
    "decoder-embed-dim": 32,
    "encoder-ffn-embed-dim": 64,
    "decoder-ffn-embed-dim": 64,
    "encoder-attention-heads": 2,
    "decoder-attention-heads": 2,
}
LSTM = {
    "arch": "lstm",
    "encoder-embed-dim": 24,
    "decoder-embed-dim": 24,
    "encoder-hidden-size": 24,
    "decoder-hidden-size": 24,
    "decoder-out-embed-dim": 24,
}
TRAINING = {
    "optimizer": "adam",
    "lr": 0.005,
    "max-tokens": 1000,
    "required-batch-size-multiple": 1,
    "seed": 1,
    "log-format": "simple",
    "num-workers": 0,
}
TEACHER = {  # learns the toy language
    "criterion": "cross_entropy",
    "max-epoch": 30,
    "dropout": 0.1,
    "disable-validation": True,
}
DDP = {  # two processes on CPUs; pytorch_ddp needs a GPU
    "distributed-world-size": 2,
    "distributed-backend": "gloo",
    "ddp-backend": "legacy_ddp",
    "distributed-no-spawn": True,
    # Otherwise the first process sends the checkpoint as a pickle that torch 2.6 and later refuse.
    "load-checkpoint-on-all-dp-ranks": True,
}


def flags(*options: Options, **more: Any) -> List[str]:
    """Returns the words of a command line: {"max-epoch": 3, "cpu": True} -> --max-epoch 3 --cpu."""
    words = []
    for group in (*options, _with_hyphens(more)):
        for key, value in group.items():
            if value is True:
                words.append(f"--{key}")
            elif value is not None and value is not False:
                words += [f"--{key}", str(value)]
    return words


def _with_hyphens(keywords: Options) -> Options:
    return {key.replace("_", "-"): value for key, value in keywords.items()}


def binarise(text: Path, destination: Path, **more: Any) -> None:
    """Makes a data-bin from text/{train,valid,test}.{de,en} with separate dictionaries."""
    prefixes = {f"{split}pref": text / split for split in ("train", "valid", "test")}
    languages = {"source-lang": "de", "target-lang": "en"}
    fixed = {**languages, "destdir": destination, "workers": 1}
    run_here("fairseq-preprocess", *flags(fixed, prefixes, **more))


def train_command(data: PathLike, save_dir: PathLike, *options: Options, **more: Any) -> List[str]:
    """Returns the arguments of fairseq-train on the CPU. Later options replace earlier ones."""
    settings = {
        **TINY,
        **TRAINING,
        "user-dir": PLUGIN,
        "save-dir": save_dir,
        "cpu": True,
        "no-epoch-checkpoints": True,
    }
    for group in (*options, _with_hyphens(more)):
        settings = {**settings, **group}
    if settings["arch"] == "lstm":
        settings = {key: value for key, value in settings.items() if key not in TINY or key in LSTM}
    return [str(data), *flags(settings)]


def train(
    data: PathLike, save_dir: PathLike, *options: Options, **more: Any
) -> "subprocess.CompletedProcess[str]":
    """Trains a toy model in this process."""
    return run_here("fairseq-train", *train_command(data, save_dir, *options, **more))


def train_in_two(data: PathLike, save_dir: PathLike, *options: Options, **more: Any) -> str:
    """Trains a toy model in two processes. Returns what the first of them printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    ddp = {**DDP, "distributed-init-method": address}
    workers = [
        start_process(
            "fairseq-train",
            *train_command(data, save_dir, *options, ddp, **more, distributed_rank=rank),
        )
        for rank in range(2)
    ]
    printed = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(printed)[-4000:]
    return printed[0]


def decode_command(data: PathLike, teacher: PathLike, out: PathLike, **more: Any) -> List[str]:
    """Returns the arguments of fairseq-generate for the task teacher_decoding."""
    settings = {
        "user-dir": PLUGIN,
        "task": "teacher_decoding",
        "path": teacher,
        "gen-subset": "train",
        "beam": 4,
        "nbest": 4,
        "max-len-b": 30,
        "part-size": 64,
        "distill-dir": out,
        "cpu": True,
    }
    return [str(data), *flags({**settings, **_with_hyphens(more)})]


def decode(
    data: PathLike, teacher: PathLike, out: PathLike, check: bool = True, **more: Any
) -> "subprocess.CompletedProcess[str]":
    """Decodes a split with a teacher in this process."""
    words = decode_command(data, teacher, out, **more)
    return run_here("fairseq-generate", *words, check=check)


def score(
    data: PathLike, teacher: PathLike, out: PathLike, check: bool = True, **more: Any
) -> "subprocess.CompletedProcess[str]":
    """Stores a teacher's distributions on the targets of a split, in this process."""
    return decode(data, teacher, out, check, **{**SCORING, **more})


def decode_until(
    parts: int, data: PathLike, teacher: PathLike, out: Path, **more: Any
) -> warm.Process:
    """Starts a decode that stops itself once it has written some parts, and waits until it stops.

    It can then be killed, or sent signals that it gets as it goes on (`resume`).
    """
    words = decode_command(data, teacher, out, **more)
    prepare = stopping.at_parts_code(out / "parts", parts)
    worker = start_process("fairseq-generate", *words, prepare=prepare)
    processes.wait_until(
        lambda: processes.is_stopped(worker.pid) or worker.poll() is not None, seconds=240
    )
    if worker.returncode is not None:
        raise AssertionError(
            f"it ended with {worker.returncode} before it had {parts} parts:\n"
            f"{worker.communicate()[-4000:]}"
        )
    return worker


def configure(data: PathLike, *options: Options, **more: Any) -> Any:
    """Returns the configuration of a training, as fairseq-train makes it from a command line."""
    from composing import compose_quickly
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_seqkd

    fairseq_seqkd.register()
    parser = fairseq_options.get_training_parser()
    words = train_command(data, "unused", *options, **more)
    arguments = fairseq_options.parse_args_and_arch(parser, input_args=words)
    with compose_quickly():
        return convert_namespace_to_omegaconf(arguments)


def build(data: PathLike, *options: Options, seed: int = 1, **more: Any) -> Tuple[Any, Any, Any]:
    """Returns the task, with the valid split loaded, the model and the criterion of a training."""
    import torch
    from fairseq import tasks

    config = configure(data, *options, **more)
    torch.manual_seed(seed)
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    criterion = task.build_criterion(config.criterion)
    task.load_dataset("valid")
    return task, model, criterion


def batch(task: Any, size: int = 7, split: str = "valid") -> Dict[str, Any]:
    """Returns a batch of the first sentences of a split."""
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(size)])
