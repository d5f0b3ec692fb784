"""Measure how time and memory grow with the corpus, up to two million sentences of a toy language.

    python recipes/bench_scale.py [--sizes 20000,200000,2000000] [--work DIR] [-o scale.json]

Makes a toy corpus and a teacher in seconds. Then it measures for every size:

* the beam search (CTranslate2, beam 2),
* the stored distributions,
* the first update of a student that learns from both,
* the first update of fairseq's own criterion on the same data.

Prints the time per thousand sentences, the peak of the process's own memory (anonymous pages), and
the memory per further sentence. Without --work nothing is kept.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_memory import peak, repeated
from benchmarks import BIN, ROOT, environment, failed, flags, machine, say

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.corpus.databin import LanguagePair, Split

PLUGIN = {"user-dir": ROOT / "fairseq_seqkd", "cpu": True}
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
    "optimizer": "adam",
    "lr": 0.005,
    "max-tokens": 4000,
    "required-batch-size-multiple": 1,
    "seed": 1,
    "num-workers": 0,
    "no-save": True,
    "disable-validation": True,
    "data-buffer-size": 0,  # a run of one update would end while a buffer is filled
}
STEPS = ("search", "distributions", "fairseq's first update", "first update with distributions")


def command(name, data, *options):
    return [
        str(word)
        for word in [BIN / name, data, *(word for group in options for word in flags(group))]
    ]


def run(words):
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    if done.returncode:
        failed(words, done.stdout)


def make_toy(folder):
    """(data-bin of a toy language, checkpoint of its teacher)."""
    run([sys.executable, str(ROOT / "tests" / "data" / "make_tiny.py"), str(folder / "text")])
    texts = {f"{split}pref": folder / "text" / split for split in ("train", "valid", "test")}
    run(
        [
            str(BIN / "fairseq-preprocess"),
            *flags(
                {
                    "source-lang": "de",
                    "target-lang": "en",
                    "destdir": folder / "toy",
                    "workers": 1,
                    **texts,
                }
            ),
        ]
    )
    kept = {
        **TINY,
        "no-save": None,
        "save-dir": folder / "teacher",
        "max-epoch": 30,
        "max-tokens": 1000,
    }
    run(
        command(
            "fairseq-train",
            folder / "toy",
            PLUGIN,
            kept,
            {"criterion": "cross_entropy", "no-epoch-checkpoints": True},
        )
    )
    return folder / "toy", folder / "teacher" / "checkpoint_last.pt"


def steps(data, teacher, folder):
    """{step: its command line} for one size, in the order in which they must run."""
    decode = {
        **PLUGIN,
        "task": "teacher_decoding",
        "path": teacher,
        "gen-subset": "train",
        "no-progress-bar": True,
        "log-interval": 10**9,
    }
    search = {
        "engine": "ctranslate2",
        "beam": 2,
        "nbest": 2,
        "max-len-a": 2,
        "max-len-b": 2,
        "distill-dir": folder / "distilled",
    }
    score = {"score-reference": True, "topk": 4, "distill-dir": folder / "distributions"}
    train = {**PLUGIN, **TINY, "max-update": 1}
    view = folder / "distilled" / "seq_kd"
    taught = {"criterion": "seq_kd", "teacher-distributions": folder / "distributions"}
    lines = (
        command("fairseq-generate", data, decode, search),
        command("fairseq-generate", view, decode, score),
        command("fairseq-train", view, train, {"criterion": "cross_entropy"}),
        command("fairseq-train", view, train, taught),
    )
    return dict(zip(STEPS, lines))


def measure(toy, teacher, size, folder):
    """{step: (peak in bytes, seconds)} of a corpus of this size."""
    gold = Split(toy, "train", LanguagePair("de", "en"))
    times = -(-size // len(gold.read("de")))
    folder.mkdir(parents=True)
    sentences = repeated(gold, times, folder / "bin")
    found = {}
    for step, words in steps(folder / "bin", teacher, folder).items():
        found[step] = peak(words)
        memory, seconds = found[step]
        say(f"{sentences:,} sentences, {step}: {memory / 1e6:.0f} MB, {seconds:.0f} s")
    return sentences, found


def table(measured):
    lines = [
        "| step | sentences | seconds | seconds per thousand | MB | bytes per further sentence |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for step in STEPS:
        before = None
        for sentences, found in measured:
            memory, seconds = found[step]
            more = f"{(memory - before[1]) / (sentences - before[0]):.1f}" if before else ""
            lines.append(
                f"| {step} | {sentences:,} | {seconds:.0f} | {1000 * seconds / sentences:.3f} "
                f"| {memory / 1e6:.0f} | {more} |"
            )
            before = sentences, memory
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        default="20000,200000,2000000",
        metavar="LIST",
        help="sentences (default: %(default)s)",
    )
    parser.add_argument("--work", metavar="DIR", help="keep everything in this new folder")
    parser.add_argument("-o", dest="output", metavar="FILE", help="the measurements as JSON")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if arguments.work:
            folder = Path(arguments.work)
            folder.mkdir(parents=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_scale.")))
        toy, teacher = make_toy(folder)
        measured = [
            measure(toy, teacher, int(size), folder / size) for size in arguments.sizes.split(",")
        ]
    facts = machine("ctranslate2")
    if arguments.output:
        content = [
            {"sentences": n, **{step: {"bytes": m, "seconds": s} for step, (m, s) in found.items()}}
            for n, found in measured
        ]
        with whole_file(arguments.output) as file:
            file.write(json.dumps({"measured": content, **facts}, indent=1).encode())
    print(table(measured))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
