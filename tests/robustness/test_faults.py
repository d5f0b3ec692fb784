"""Decodes whose workers die, whose disks fill, and whose files are cut, end with the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import time

import processes
import pytest
import stopping
import toys
from commands import refusal, start_process
from folders import tree

from fairseq_seqkd.corpus import progress

WITHOUT_LOCKS = """
import errno, fcntl, socket

def no_lock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = no_lock
socket.gethostname = lambda: "another-machine"  # no byte may depend on it
"""


def start(command, prepare=""):
    return start_process("fairseq-generate", *command, prepare=prepare)


def finish(worker):
    """Waits for a worker. Returns its exit code."""
    worker.communicate()
    return worker.returncode


def decode_and_kill(command, parts_folder, parts, pause):
    """Kills a decode before it names the part after the first `parts`, or `pause` seconds later."""
    worker = start(command, prepare=stopping.at_parts_code(parts_folder, parts))
    while processes.is_running(worker.pid) and not processes.is_stopped(worker.pid):
        time.sleep(0.005)
    if pause:
        os.kill(worker.pid, signal.SIGCONT)
        time.sleep(pause)
    worker.kill()


def test_eight_kills_a_cut_part_and_two_workers_of_one_rank(distilled, tiny, teacher, tmp_path):
    out, rng = tmp_path / "out", random.Random(8)
    parts, command = out / "parts", toys.decode_command(tiny, teacher, out, part_size=64)
    killed_at = []
    for turn, wanted in enumerate((0, 1, 2, 4, 5, 6, 5, 7)):
        decode_and_kill(command, parts, wanted, rng.uniform(0, 0.2) if turn % 2 else 0)
        committed = sorted(parts.glob("*.part"))
        killed_at.append(len(committed))
        if progress.read(out).complete:
            shutil.rmtree(out)  # it was faster than the kill
        for part in committed[4:]:  # there must be work for the next one
            part.unlink()
    assert len(set(killed_at)) > 2, killed_at
    shutil.rmtree(out, ignore_errors=True)
    decode_and_kill(command, parts, 5, 0)
    newest = max(parts.glob("*.part"), key=lambda part: part.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size * 2 // 3)
    workers = [start(command) for _ in range(2)]
    assert [finish(worker) for worker in workers] == [0, 0]
    assert tree(out) == tree(distilled)


def test_without_locks_the_same_work_is_done_twice_with_the_same_bytes(
    distilled, tiny, teacher, tmp_path
):
    """Two workers of one directory on a file system without locks, one of which finishes while the
    other is in the middle.
    """
    out = tmp_path / "out"
    command = toys.decode_command(tiny, teacher, out, part_size=64)

    slow = start(command, WITHOUT_LOCKS + stopping.at_parts_code(out / "parts", 3))
    processes.wait_until(
        lambda: processes.is_stopped(slow.pid) or slow.poll() is not None, seconds=240
    )
    assert processes.is_stopped(slow.pid)
    assert finish(start(command, WITHOUT_LOCKS)) == 0
    assert tree(out) == tree(distilled)
    os.kill(slow.pid, signal.SIGCONT)
    assert finish(slow) == 0
    assert tree(out) == tree(distilled)
    assert "another-machine" in (out / "decoding.log").read_text()


@pytest.mark.slow
def test_a_cut_part_is_named_and_done_again(distilled, tiny, teacher, tmp_path):
    out = tmp_path / "out"
    worker = toys.decode_until(3, tiny, teacher, out)
    worker.kill()
    part = sorted((out / "parts").glob("*.part"))[1]
    os.truncate(part, 100)
    printed = toys.decode(tiny, teacher, out).stdout
    assert f"{part} is damaged: it is removed, and decoded again" in printed
    assert tree(out) == tree(distilled)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    """Writes until nothing more fits; returns the file."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_and_emptied_it_goes_on(
    distilled, tiny, teacher, tmp_path, small_disk
):
    out = small_disk / "out"
    worker = toys.decode_until(2, tiny, teacher, out)
    filler = fill(small_disk)
    printed = processes.resume(worker)
    sentence = refusal(subprocess.CompletedProcess([], worker.returncode, printed))
    assert "cannot be" in sentence and "No space left" in sentence
    again = toys.decode(tiny, teacher, out, check=False)
    assert "MB free" in refusal(again) or "No space left" in refusal(again)
    filler.unlink()
    toys.decode(tiny, teacher, out)
    assert tree(out) == tree(distilled)
