"""What several test modules use: fairseq's commands as subprocesses, and models and criterions built in this process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import stopping
import warm

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = ROOT / "fairseq_seqkd"
BIN = Path(sys.executable).parent

# Of decode_command, for storing distributions instead.
SCORING = {"score_reference": True, "beam": None, "nbest": None, "max_len_b": None}
EVERYTHING = 1000  # more symbols than the toy dictionary has

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


def flags(*options, **more):
    """{"max-epoch": 3, "cpu": True} -> ["--max-epoch", "3", "--cpu"]; underscores of keywords become hyphens."""
    found = []
    for group in (*options, {key.replace("_", "-"): value for key, value in more.items()}):
        for key, value in group.items():
            if value is True:
                found.append(f"--{key}")
            elif value is not None and value is not False:
                found += [f"--{key}", str(value)]
    return found


def environment(**more):
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **more,
    }


def command(name, *args, check=True, timeout=240):
    """Runs fairseq-train and the like, started warm. Returns the finished process, output and errors in .stdout."""
    args = [*map(str, args)]
    done = subprocess.CompletedProcess(
        [name, *args], *warm.run(BIN / name, args, environment(), timeout)
    )
    if check and done.returncode:
        raise AssertionError(f"{name} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done


def start(name, *args, prepare=lambda: None, **variables):
    """Starts a command without waiting for it, output and errors in one pipe; `prepare` runs in the new process first.

    Args: variables: of its environment.
    """
    return subprocess.Popen(
        [str(BIN / name), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**variables),
        preexec_fn=lambda: (heed_interrupts(), prepare()),
    )


def heed_interrupts():
    """A shell starts its background jobs deaf to Ctrl-C, and whatever those start: the tests may be one of them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup


def fork(run, said=os.devnull):
    """Calls a function in a fork of this process, which has fairseq loaded already, and ends with the status that it returns.

    What is printed goes to the file `said`. Returns the id of the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        heed_interrupts()
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = os.fdopen(os.dup(file), "w")
        code = run()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child):
    """The exit status of a forked process; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def generate(words):
    """fairseq-generate in this process. Returns its exit status."""
    from fairseq_cli.generate import cli_main

    sys.argv = ["fairseq-generate", *map(str, words)]
    cli_main()
    return 0


def train_command(data, save_dir, *options, **more):
    """The arguments of a fairseq-train on the CPU; later settings replace earlier ones."""
    settings = {
        **TINY,
        **TRAINING,
        "user-dir": PLUGIN,
        "save-dir": save_dir,
        "cpu": True,
        "no-epoch-checkpoints": True,
    }
    for group in (*options, {key.replace("_", "-"): value for key, value in more.items()}):
        settings = {**settings, **group}
    if settings["arch"] == "lstm":
        settings = {key: value for key, value in settings.items() if key not in TINY or key in LSTM}
    return [str(data), *flags(settings)]


def train(data, save_dir, *options, **more):
    return command("fairseq-train", *train_command(data, save_dir, *options, **more))


DDP = {  # on CPUs; pytorch_ddp wants a GPU
    "distributed-world-size": 2,
    "distributed-backend": "gloo",
    "ddp-backend": "legacy_ddp",
    "distributed-no-spawn": True,
    # Else the first process sends the checkpoint to the others as a pickle that torch 2.6 and later refuse.
    "load-checkpoint-on-all-dp-ranks": True,
}


def train_in_two(data, save_dir, *options, **more):
    """fairseq-train as two processes that share the work. Returns what the first one printed."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        meet = {**DDP, "distributed-init-method": f"tcp://127.0.0.1:{one.getsockname()[1]}"}
    commands = [
        train_command(data, save_dir, *options, meet, **more, distributed_rank=rank)
        for rank in range(2)
    ]
    workers = [start("fairseq-train", *words) for words in commands]
    printed = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(printed)[-4000:]
    return printed[0]


def decode_command(data, teacher, out, **more):
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
    return [
        str(data),
        *flags({**settings, **{key.replace("_", "-"): value for key, value in more.items()}}),
    ]


def decode(data, teacher, out, check=True, **more):
    return command("fairseq-generate", *decode_command(data, teacher, out, **more), check=check)


def score(data, teacher, out, check=True, **more):
    """Stores the teacher's distributions on the targets of a split."""
    return command(
        "fairseq-generate", *decode_command(data, teacher, out, **{**SCORING, **more}), check=check
    )


def decode_until(parts, data, teacher, out, prepare=lambda: None, **more):
    """Starts a decode that stops by itself in its work once so many parts are there, waits for that, and returns the process.

    It can be killed then, or told something that it hears as it goes on (`tell`).
    """
    hook = stopping.environment(out.parent / f"{out.name}.hook", out / "parts", parts)
    worker = start(
        "fairseq-generate", *decode_command(data, teacher, out, **more), prepare=prepare, **hook
    )
    wait_until(lambda: is_stopped(worker.pid) or worker.poll() is not None, seconds=240)
    if worker.returncode is not None:
        raise AssertionError(
            f"it ended with {worker.returncode} before it had {parts} parts:\n{worker.stdout.read()[-4000:]}"
        )
    return worker


def tell(worker, *signals, to=os.kill):
    """Sends signals to a process that is stopped, and then lets it go on. Returns all that it printed."""
    for number in (*signals, signal.SIGCONT):
        to(worker.pid, number)
    return worker.communicate(timeout=240)[0]


def exists(pid):
    """Whether there is such a process, be it one that has ended and that its parent has not looked at yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def status(pid):
    """What the system says about a process that is there: /proc/PID/status, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def is_stopped(pid):
    return exists(pid) and status(pid)["State"].startswith("T")


def is_running(pid):
    """Whether a process has not ended; it need not be a child of this one."""
    try:
        return (
            exists(pid)
            and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):  # it ended in between
        return False


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def similarity(output, reference, tokenize="13a"):
    """sacrebleu's own sentence BLEU; against an empty reference, of which it has none, 0, or 100 for an empty output."""
    import sacrebleu

    if not reference.strip():
        return 0.0 if output.strip() else 100.0
    return sacrebleu.sentence_bleu(
        output, [reference], tokenize=tokenize, use_effective_order=True
    ).score


def refusal(done):
    """The one sentence with which a command ended, which must have failed."""
    assert done.returncode != 0, done.stdout[-2000:]
    assert "Traceback" not in done.stdout, done.stdout[-4000:]
    sentences = [line for line in done.stdout.splitlines() if line.startswith("fairseq_seqkd: ")]
    assert len(sentences) == 1, done.stdout[-2000:]
    return sentences[0]


def configure(data, *options, **more):
    """fairseq's configuration of a training run, as fairseq-train makes it from the command line."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_seqkd

    fairseq_seqkd.register()
    parser = fairseq_options.get_training_parser()
    args = fairseq_options.parse_args_and_arch(
        parser, input_args=train_command(data, "unused", *options, **more)
    )
    return convert_namespace_to_omegaconf(args)


def build(data, *options, seed=1, **more):
    """(task, model, criterion) of a training run, built in this process, with the valid split loaded."""
    import torch
    from fairseq import tasks

    cfg = configure(data, *options, **more)
    torch.manual_seed(seed)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    task.load_dataset("valid")
    return task, model, criterion


def batch(task, size=7, split="valid"):
    """A batch of the first sentences of a split."""
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(size)])


def changed(checkpoint, path, change):
    """A checkpoint like another, at a path: what `change` makes of its state."""
    import torch

    from fairseq_seqkd import compat  # noqa: F401  (with it torch loads them)

    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, path)
    return path


def tree(folder, ignore=(".lock", "decoding.log")):
    """{relative path: bytes} of a directory, to compare directories bit by bit."""
    folder = Path(folder)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ignore
    }


def read_manifest(folder):
    """The content of a directory's manifest.json, as it is on disk."""
    return json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))


def write_manifest(folder, content):
    """Writes a manifest.json with this content."""
    text = json.dumps({"format": "fairseq_seqkd/1", **content})
    (Path(folder) / "manifest.json").write_text(text, encoding="utf-8")


def data_settings(sentences):
    """settings.data of a manifest."""
    keys = ("split", "source_lang", "target_lang", "source_sha256", "target_sha256")
    return {**dict.fromkeys(keys, "x"), "dictionaries_sha256": ["x", "x"], "sentences": sentences}


ENGINE = {"name": "fairseq", "fairseq": "fairseq 0", "precision": "float32"}  # of a manifest


def manifest_content(**more):
    """The least that a manifest of a decode holds, for directories that no decode has made: 250 sentences in parts of 100."""
    search = {
        "beam": 5,
        "nbest": 5,
        "lenpen": 1.0,
        "sampling": False,
        "seed": None,
        "retain_dropout": False,
    }
    return {
        "kind": "distilled",
        "signature": "teacher:fake|beam:5",
        "sentences": 250,
        "complete": False,
        "settings": {
            "data": data_settings(250),
            "teacher": {"sha256": ["x"]},
            "engine": ENGINE,
            "plan": {"part_size": 100, "max_tokens": 100, "max_sentences": None},
            "search": {**search, "longest_source": 100},
            "similarity": None,
            "select": "mode",
        },
        **more,
    }
