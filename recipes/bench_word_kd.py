"""Run the contenders of bench_word_kd.sh in turn, on one thread, and write bench_word_kd.json."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import BIN, ROOT, check_paths, environment, failed, flags, machine, say, watched

PLAIN, LIVE, STORED, FORWARD = (
    "label_smoothed_cross_entropy",
    "word_kd_live",
    "word_kd_stored",
    "teacher_forward_only",
)
TRAINED = (PLAIN, LIVE, STORED)
STUDENT = {
    "arch": "transformer",
    "encoder-layers": 2,
    "decoder-layers": 2,
    "encoder-embed-dim": 128,
    "decoder-embed-dim": 128,
    "encoder-ffn-embed-dim": 256,
    "decoder-ffn-embed-dim": 256,
    "encoder-attention-heads": 4,
    "decoder-attention-heads": 4,
    "share-decoder-input-output-embed": True,
    "dropout": 0.1,
    "label-smoothing": 0.1,
    "optimizer": "adam",
    "lr": 1e-3,
    "required-batch-size-multiple": 1,
    "num-workers": 0,
    "seed": 1,
    "no-save": True,
    "disable-validation": True,
    "cpu": True,
    "log-format": "json",
}
RESULT = "target words a second:"  # how the forward pass says what it has measured
LINES = 6  # log lines of a run after the one at which the clock starts


class Bench:
    def __init__(self, arguments, folder):
        self.data, self.teacher = Path(arguments.data).resolve(), Path(arguments.teacher).resolve()
        self.arguments, self.folder, self.runs = arguments, folder, 0
        self.interval = max(arguments.updates // LINES, 1)
        self.store = folder / "store"
        options = {
            "user-dir": ROOT / "fairseq_seqkd",
            "task": "teacher_decoding",
            "path": self.teacher,
            "gen-subset": "train",
            "score-reference": True,
            "topk": arguments.topk,
            "distill-dir": self.store,
            "cpu": True,
        }
        command = [BIN / "fairseq-generate", self.data, *flags(options)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode:
            failed(command, done.stdout + done.stderr)

    def command(self, name):
        criterion = {
            PLAIN: {"criterion": PLAIN},
            LIVE: {"criterion": "word_kd", "teacher-path": self.teacher},
            STORED: {"criterion": "word_kd", "teacher-distributions": self.store},
        }[name]
        more = {
            "user-dir": ROOT / "fairseq_seqkd",
            "max-tokens": self.arguments.max_tokens,
            "save-dir": self.folder / "none",
            "log-interval": self.interval,
            "max-update": (LINES + 1) * self.interval,
        }
        return [
            str(BIN / "fairseq-train"),
            str(self.data),
            *flags({**STUDENT, **criterion, **more}),
        ]

    def run(self, name):
        """(target words a second, peak memory in bytes) of one run."""
        self.runs += 1
        out = self.folder / f"{self.runs}.{name}"
        out.mkdir()
        if name == FORWARD:
            words = [self.data, self.teacher, self.arguments.max_tokens, LINES * self.interval]
            command, printed = [sys.executable, __file__, "--forward", *map(str, words)], []
            memory = watched([command], out, lambda now, line: printed.append(line))
            return next(
                float(line.split()[-1]) for line in printed if line.startswith(RESULT)
            ), memory
        lines = []  # (when, words since the line before)

        def seen(now, line):
            if line.startswith("{") or "| train_inner | {" in line:
                found = json.loads(line[line.index("{") :])
                lines.append((now, float(found["wpb"]) * self.interval))

        memory = watched([self.command(name)], out, seen)
        if len(lines) < LINES + 1:
            failed(self.command(name), (out / "0.out").read_text(errors="replace"))
        timed = lines[: LINES + 1]
        return sum(words for _, words in timed[1:]) / (timed[-1][0] - timed[0][0]), memory


def forward(data, teacher, max_tokens, updates):
    """Run only the teacher's forward pass over the batches of the first updates.

    Prints target words per second.
    """
    import torch
    from fairseq import checkpoint_utils

    import fairseq_seqkd

    fairseq_seqkd.register()
    torch.set_num_threads(1)
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [teacher], arg_overrides={"data": data, "eval_bleu": False}
    )
    task.load_dataset("train")
    batches = task.get_batch_iterator(
        task.dataset("train"), max_tokens=int(max_tokens), seed=1
    ).next_epoch_itr(shuffle=True)
    model, words, begun = models[0].eval(), 0, None
    with torch.no_grad():
        for i, sample in zip(range(int(updates) + 1), batches):
            if i == 1:
                begun = time.monotonic()
            model(**sample["net_input"])
            words += sample["ntokens"] if i else 0
    print(RESULT, words / (time.monotonic() - begun))


def measure(bench, arguments):
    names = (*TRAINED, FORWARD)
    rates, memory = ({name: [] for name in names} for _ in range(2))
    for turn in range(arguments.rounds):
        for name in names:
            rate, peak = bench.run(name)
            rates[name].append(rate)
            memory[name].append(peak)
        say(f"round {turn + 1}:", {name: round(values[-1]) for name, values in rates.items()})
    median = {name: statistics.median(values) for name, values in rates.items()}
    peaks = {name: statistics.median(memory[name]) for name in names}
    ideal = [1 / (1 / plain + 1 / teacher) for plain, teacher in zip(rates[PLAIN], rates[FORWARD])]
    content = json.loads((bench.store / "manifest.json").read_text())
    return {
        **{name: round(value) for name, value in median.items()},
        "stored_over_plain": ratio(rates[STORED], rates[PLAIN]),
        "live_over_ideal": ratio(rates[LIVE], ideal),
        "memory_stored_over_plain": round(peaks[STORED] / peaks[PLAIN], 3),
        "memory_live_over_plain": round(peaks[LIVE] / peaks[PLAIN], 3),
        "peak_memory_mb": {name: round(value / 1e6) for name, value in peaks.items()},
        "bytes_per_token": round(
            (bench.store / "distributions.safetensors").stat().st_size
            / content["counts"]["tokens"],
            2,
        ),
        "topk": arguments.topk,
        "mass": content["mass"],
        "signature": content["signature"],
        "max_tokens": arguments.max_tokens,
        "updates": LINES * bench.interval,
        "rounds": {name: list(map(round, values)) for name, values in rates.items()},
        "machine": machine(),
    }


def ratio(values, base):
    return round(statistics.median(a / b for a, b in zip(values, base)), 3)


def table(result):
    print("| | target words/s | relative to plain training | peak memory, MB |")
    print("|---|---:|---:|---:|")
    for name in (*TRAINED, FORWARD):
        print(
            f"| {name} | {result[name]:,} | {result[name] / result[PLAIN]:.2f} "
            f"| {result['peak_memory_mb'][name]:,} |"
        )
    print()
    for key in (
        "stored_over_plain",
        "live_over_ideal",
        "memory_stored_over_plain",
        "bytes_per_token",
        "mass",
        "machine",
    ):
        print(f"{key}: {result[key]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="quickstart/bin")
    parser.add_argument("teacher", nargs="?", default="quickstart/teacher/checkpoint_last.pt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--topk", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=1024)
    arguments = parser.parse_args()
    check_paths(arguments.data, arguments.teacher)
    with tempfile.TemporaryDirectory(prefix="bench_word_kd.") as folder:
        result = measure(Bench(arguments, Path(folder)), arguments)
    Path("bench_word_kd.json").write_text(json.dumps(result, indent=1) + "\n")
    table(result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--forward"]:
        forward(*sys.argv[2:])
    else:
        main()
