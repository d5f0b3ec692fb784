"""Processes that score hypotheses end with the process that started them."""

import subprocess
import sys

import processes
from commands import ROOT

METRIC = ("bleu", "en", None)


def test_workers_end_with_their_parent_however_it_ends():
    program = (
        "import multiprocessing, os, time; from fairseq_seqkd.selection import pool as scoring\n"
        f"scorer = scoring.Scorer({METRIC!r}, workers=2)\n"
        "[scores() for scores in [scorer.submit([(['a b'], 'a')]) for _ in range(8)]]\n"
        "print(*(p.pid for p in multiprocessing.active_children()), flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert pids
    processes.wait_until(lambda: not any(map(processes.is_running, pids)))
