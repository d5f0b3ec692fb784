"""Measure the memory of a decode for a split, and for the same split repeated ten times.

    python recipes/bench_memory.py DATA_BIN TEACHER [--split train] [--times 10]
        [--engine ctranslate2] [--max-len-b 2]

Prints the peak of the process's own memory for both, and the bytes per further sentence. Own memory
is anonymous pages: the kernel may drop pages of mapped files at any time. The search ends after a
few tokens, since memory does not depend on its length.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.mmap_format import Writer

ROOT = Path(__file__).resolve().parent.parent
GENERATE = Path(sys.executable).parent / "fairseq-generate"


def repeated(gold, times, out):
    """A data-bin that holds a split several times over."""
    out.mkdir()
    for lang in gold.languages:
        (out / f"dict.{lang}.txt").write_bytes((gold.folder / f"dict.{lang}.txt").read_bytes())
        rows = gold.read(lang)
        with Writer(out / gold.prefix(lang).name, gold.dtype(lang)) as writer:
            for _ in range(times):
                for i in range(len(rows)):
                    writer.add(np.asarray(rows[i]), [len(rows[i])])
    return len(gold.read(gold.languages.source)) * times


def peak(command):
    """(largest anonymous memory in bytes, seconds) of a command, sampled twenty times a second."""
    begun, largest = time.monotonic(), 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
        command, stdout=log, stderr=log, env=environment
    ) as process:
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    largest = max(largest, 1024 * int(line.split()[1]))
            time.sleep(0.05)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"bench_memory: {command[0]} failed:\n{log.read()[-2000:]}")
    return largest, time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("teacher")
    parser.add_argument("--split", default="train")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--engine", default="ctranslate2")
    parser.add_argument("--max-len-b", type=int, default=2)
    arguments = parser.parse_args()
    source, target = (
        next(Path(arguments.data).glob(f"{arguments.split}.*-*.*.bin"))
        .name.split(".")[1]
        .split("-")
    )
    gold = Split(arguments.data, arguments.split, LanguagePair(source, target))
    found = []
    with tempfile.TemporaryDirectory(prefix="bench_memory.") as folder:
        for times in (1, arguments.times):
            data = Path(folder) / f"bin.{times}"
            sentences = repeated(gold, times, data)
            command = [
                GENERATE,
                data,
                "--user-dir",
                ROOT / "fairseq_seqkd",
                "--task",
                "teacher_decoding",
                "--path",
                arguments.teacher,
                "--gen-subset",
                arguments.split,
                "--source-lang",
                source,
                "--target-lang",
                target,
                "--engine",
                arguments.engine,
                "--beam",
                1,
                "--nbest",
                1,
                "--max-len-a",
                0,
                "--max-len-b",
                arguments.max_len_b,
                "--cpu",
                "--no-progress-bar",
                "--log-interval",
                10**9,
                "--distill-dir",
                Path(folder) / f"distilled.{times}",
            ]
            memory, seconds = peak([str(word) for word in command])
            found.append((sentences, memory))
            print(
                f"{sentences:,} sentences: {memory / 1e6:.1f} MB at most, {seconds:.0f} s",
                flush=True,
            )
    (few, least), (many, most) = found
    print(f"{(most - least) / (many - few):.1f} bytes for each further sentence")


if __name__ == "__main__":
    main()
