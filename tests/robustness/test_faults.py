"""What may happen to a decode of hours: workers die at any moment, disks fill and cut files, two workers take one rank."""

import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import fairseq_cli.generate  # noqa: F401  (loaded once, before the forks)
import helpers
import pytest
import stopping

import fairseq_seqkd
from fairseq_seqkd.corpus import progress

fairseq_seqkd.register()


def fork(*words, prepare=lambda: None):
    """Decodes in a process of its own; `prepare` runs there first."""

    def work():
        prepare()
        return helpers.generate(words)

    return helpers.fork(work)


def decode_and_kill(command, parts_folder, parts, pause):
    """SIGKILL before the part after the first so many gets its name, or, where a pause is given, so many seconds later."""
    child = fork(*command, prepare=lambda: stopping.at_parts(parts_folder, parts))
    while helpers.is_running(child) and not helpers.is_stopped(child):
        time.sleep(0.005)
    if pause:
        os.kill(child, signal.SIGCONT)
        time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    helpers.wait(child)


def test_eight_kills_a_cut_part_and_two_workers_of_one_rank(distilled, tiny, teacher, tmp_path):
    out, rng = tmp_path / "out", random.Random(8)
    parts, command = out / "parts", helpers.decode_command(tiny, teacher, out, part_size=64)
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
    workers = [fork(*command) for _ in range(2)]
    assert [helpers.wait(worker) for worker in workers] == [0, 0]
    assert helpers.tree(out) == helpers.tree(distilled)


def test_without_locks_the_same_work_is_done_twice_with_the_same_bytes(
    distilled, tiny, teacher, tmp_path
):
    """Two workers of one directory on a file system without locks, one of which finishes while the other is in the middle."""
    out = tmp_path / "out"
    command = helpers.decode_command(tiny, teacher, out, part_size=64)

    def without_locks():
        def no_lock(*arguments):
            raise OSError(errno.ENOLCK, "No locks available")

        fcntl.flock = no_lock
        socket.gethostname = lambda: "another-machine"  # of which no byte may tell

    slow = fork(*command, prepare=lambda: (without_locks(), stopping.at_parts(out / "parts", 3)))
    helpers.wait_until(
        lambda: helpers.is_stopped(slow) or not helpers.is_running(slow), seconds=240
    )
    assert helpers.is_stopped(slow)
    assert helpers.wait(fork(*command, prepare=without_locks)) == 0
    assert helpers.tree(out) == helpers.tree(distilled)
    os.kill(slow, signal.SIGCONT)
    assert helpers.wait(slow) == 0
    assert helpers.tree(out) == helpers.tree(distilled)
    assert "another-machine" in (out / "decoding.log").read_text()


@pytest.mark.slow
def test_a_cut_part_is_named_and_done_again(distilled, tiny, teacher, tmp_path):
    out = tmp_path / "out"
    worker = helpers.decode_until(3, tiny, teacher, out)
    worker.kill()
    worker.communicate()
    part = sorted((out / "parts").glob("*.part"))[1]
    os.truncate(part, 100)
    printed = helpers.decode(tiny, teacher, out).stdout
    assert f"{part} is damaged: it is removed, and decoded again" in printed
    assert helpers.tree(out) == helpers.tree(distilled)


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
    worker = helpers.decode_until(2, tiny, teacher, out)
    filler = fill(small_disk)
    printed = helpers.tell(worker)
    sentence = helpers.refusal(subprocess.CompletedProcess([], worker.returncode, printed))
    assert "cannot be" in sentence and "No space left" in sentence
    again = helpers.decode(tiny, teacher, out, check=False)
    assert "MB free" in helpers.refusal(again) or "No space left" in helpers.refusal(again)
    filler.unlink()
    helpers.decode(tiny, teacher, out)
    assert helpers.tree(out) == helpers.tree(distilled)
