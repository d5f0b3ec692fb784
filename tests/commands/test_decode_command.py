"""`seqkd decode`: what workers are told, how it ends when they refuse, die or are stopped, and the
same bytes in the end.

Most tests put a few lines of Python in the place of fairseq-generate; the last ones start the real
thing.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import folders
import manifests
import processes
import pytest
import stopping
import toys
from commands import BIN, PLUGIN, environment_with, refusal, run_here

from fairseq_seqkd import cli
from fairseq_seqkd.commands import decode, decode_display
from fairseq_seqkd.corpus import progress
from fairseq_seqkd.errors import Refusal

TRAIN = 509  # sentences of the tiny training split


def parse(*words):
    return cli.parse_arguments(["decode", *words])


def job(options, workers, gpus=None):
    return decode.DecodeJob(Path("out"), options, workers, gpus)


# What the workers are told.


@pytest.mark.trap(13)
def test_what_is_not_ours_goes_to_fairseq_as_it_is():
    words = [
        "data-bin",
        "--path",
        "a.pt:b.pt",
        "--lenpen",
        "-0.5",
        "-s",
        "de",
        "--model-overrides",
        "{'x': 1}",
        "--post-process=@@ ",
        "--num-workers",
        "3",
        "--fp16",
        "--distill-dir",
        "out",
        "--seed",
        "1",
    ]
    arguments = parse(*words[:5], "--workers", "7", *words[5:], "--gpus", "0,2")
    assert (arguments.workers, arguments.gpus, arguments.fairseq_options) == (7, "0,2", words)
    added = ["--user-dir", str(PLUGIN), "--task", "teacher_decoding"]
    share = ["--distributed-world-size", "7", "--distributed-rank", "3"]
    assert job(words, 7).command(3) == [*decode.GENERATE, *words, *added, *share]
    given = [*words, "--user-dir=elsewhere", "--task", "teacher_decoding"]
    assert job(given, 1).command(0)[len(decode.GENERATE) : -4] == given


@pytest.mark.trap(18)
def test_a_worker_has_one_thread_and_its_gpu(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    environment = job([], 4).environment(3)
    assert tuple(
        environment[name] for name in ("OMP_NUM_THREADS", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES")
    ) == (
        "1",
        "3",
        "5",
    )
    assert job([], 4, "0,2").environment(3)["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_by_default_a_worker_for_each_gpu_else_for_each_core(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,GPU-f3")
    assert decode.default_workers(cpu=False) == 3
    assert decode.default_workers(cpu=False, gpus="4") == 1
    assert decode.default_workers(cpu=True) == cores
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert decode.default_workers(cpu=False) == cores


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["bin"], "--distill-dir is missing"),
        (["bin", "--distill-dir", "out", "--workers", "0"], "--workers is 0"),
        (["bin", "--distill-dir", "out", "--distributed-rank", "1"], "leave it out"),
        (["bin", "--distill-dir", "out", "--task", "translation"], "not translation"),
        (["bin", "--distill-dir", "out", "--cpu", "--gpus", "0"], "contradict"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal, match=sentence):
        cli.main(["decode", *words])
    assert not list(tmp_path.iterdir())


def test_all_that_contradicts_is_reported_at_once():
    words = ["bin", "--workers", "0", "--cpu", "--gpus", "0", "--task", "translation"]
    with pytest.raises(Refusal) as refused:
        cli.main(["decode", *words])
    assert [sentence.split()[0] for sentence in refused.value.sentences] == [
        "--workers",
        "--gpus",
        "seqkd",
        "--distill-dir",
    ]


def test_logs_are_beside_the_directory_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = decode.parse_job(parse("bin", "--distill-dir", "a/b/"))
    assert (named.folder, named.logs) == (Path("a/b"), Path("a/b.logs"))
    here = decode.parse_job(parse("bin", "--distill-dir=."))
    assert here.logs == tmp_path.with_name(tmp_path.name + ".logs")


# Workers that are a few lines of Python.

FAKE = (
    f"""
CONTENT = {manifests.content(format="fairseq_seqkd/1")}
"""
    + """
import json, os, signal, sys, time
from pathlib import Path
from fairseq_seqkd.corpus.atomic import whole_file

words = sys.argv[1:]
out = Path(words[words.index("--distill-dir") + 1])
rank = int(words[words.index("--distributed-rank") + 1])
notes = out.parent / "notes"
notes.mkdir(exist_ok=True)
(notes / f"{rank}.{os.getpid()}").touch()
first = len(list(notes.glob(f"{rank}.*"))) == 1


def state(complete):
    out.mkdir(exist_ok=True)
    with whole_file(out / "manifest.json") as file:
        file.write(json.dumps({**CONTENT, "complete": complete}).encode())


def part(number):
    (out / "parts").mkdir(parents=True, exist_ok=True)
    (out / "parts" / f"{number:06d}.part").touch()


"""
)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a script in the place of fairseq-generate; returns the command line that runs it in a
    process of its own.
    """
    monkeypatch.setattr(decode, "PAUSE", 0.02)

    def put(body):
        script = tmp_path / "fake.py"
        script.write_text(FAKE + body)
        monkeypatch.setattr(decode, "GENERATE", [sys.executable, str(script)])
        code = (
            "import sys; from fairseq_seqkd import cli; from fairseq_seqkd.commands "
            "import decode, workers; "
        )
        code += (
            f"workers.PATIENCE = 1000; decode.GENERATE = [sys.executable, "
            f"{str(script)!r}]; sys.exit(cli.main(sys.argv[1:]))"
        )
        return [sys.executable, "-c", code, *words(tmp_path)]

    return put


def words(tmp_path, workers=3):
    return ["decode", "--workers", str(workers), "bin", "--distill-dir", str(tmp_path / "out")]


def pids(tmp_path):
    return [int(note.name.split(".")[1]) for note in (tmp_path / "notes").iterdir()]


def test_a_complete_directory_is_exit_0_and_its_signature(tmp_path, fake, capsys):
    fake("state(complete=rank == 2)\ntime.sleep(0.2 * rank)\nstate(complete=True)")
    assert cli.main(words(tmp_path)) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/out is complete | teacher:fake|beam:5\n"
    assert f"{tmp_path}/out.logs/worker-0.log" in printed.err.splitlines()[0]
    assert sorted(log.name for log in (tmp_path / "out.logs").iterdir()) == [
        f"worker-{rank}.log" for rank in range(3)
    ]
    assert len(pids(tmp_path)) == 3
    assert cli.main(words(tmp_path)) == 0  # one worker is enough to see that nothing is left
    assert (
        len(pids(tmp_path)) == 4
        and "250 of 250 sentences were there before" in capsys.readouterr().err
    )


def test_a_refusal_is_said_once_and_stops_the_others(tmp_path, fake, capsys):
    fake(
        "if rank: time.sleep(0.5 if rank == 1 else 60)\nsys.exit('fairseq_seqkd: --nbest 9 "
        "asks for more')"
    )
    with pytest.raises(Refusal) as refusal:
        cli.main(words(tmp_path))
    assert refusal.value.code == "fairseq_seqkd: --nbest 9 asks for more"
    assert "--nbest 9" not in capsys.readouterr().err
    assert not any(map(processes.exists, pids(tmp_path)))


def test_an_earlier_runs_refusal_is_not_this_ones(tmp_path, fake):
    fake("sys.exit('fairseq_seqkd: earlier')")
    with pytest.raises(Refusal, match="earlier"):
        cli.main(words(tmp_path, workers=1))
    fake("raise ValueError('now')")
    with pytest.raises(Refusal, match=r"worker 0 ended with code 1 \(ValueError: now\)"):
        cli.main(words(tmp_path, workers=1))
    assert "earlier" in (tmp_path / "out.logs" / "worker-0.log").read_text()  # logs are added to


def test_what_fairseqs_own_parser_says_is_a_refusal_too(tmp_path, fake):
    fake(
        "import argparse; argparse.ArgumentParser(prog='generate.py').error('unrecognized "
        "arguments: --typo')"
    )
    with pytest.raises(
        Refusal, match="^fairseq_seqkd: fairseq-generate: unrecognized arguments: --typo$"
    ):
        cli.main(words(tmp_path))


def test_a_workers_death_is_made_good_at_the_end(tmp_path, fake, capsys):
    fake(
        "state(False)\nif rank == 1 and first: os.kill(os.getpid(), signal.SIGKILL)\nif not "
        "first: state(True)"
    )
    assert cli.main(words(tmp_path)) == 0
    errors = capsys.readouterr().err
    assert "worker 1 was killed (SIGKILL)" in errors and "worker 1 is started again" in errors
    assert len(pids(tmp_path)) == 4


def test_a_death_that_the_others_made_good_needs_nothing(tmp_path, fake, capsys):
    fake("state(False)\nif rank == 1: sys.exit(3)\ntime.sleep(0.5)\nstate(True)")
    assert cli.main(words(tmp_path)) == 0
    assert (
        "worker 1 ended with code 3; the others go on" in capsys.readouterr().err
        and len(pids(tmp_path)) == 3
    )


def test_who_dies_again_and_again_is_given_up(tmp_path, fake):
    fake("print('out of memory', flush=True)\nif rank == 1: sys.exit(3)")
    with pytest.raises(
        Refusal,
        match=r"not complete: worker 1 ended with code 3 \(out of memory\), as did 2 before it",
    ):
        cli.main(words(tmp_path))
    assert len(pids(tmp_path)) == 5


def test_what_workers_elsewhere_hold_is_said(tmp_path, fake):
    fake("state(False)")
    with pytest.raises(Refusal, match="started elsewhere"):
        cli.main(words(tmp_path))
    assert len(pids(tmp_path)) == 3


LISTENS = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    (notes.parent / f"clean-{rank}").touch()
"""


def stop(tmp_path, process, number, times=1):
    """Sends a signal once all workers are there; returns what was printed."""
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(processes.exists, pids(tmp_path)))
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.5)
    return process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_stops_all_and_is_one_sentence(tmp_path, fake, number):
    command = fake("(notes.parent / f'ready-{rank}').touch()" + LISTENS)
    # As a shell starts its background jobs: deaf to Ctrl-C. The workers are to hear it all the
    # same.
    deaf = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **deaf
    )
    out, errors = stop(tmp_path, process, number)
    assert process.returncode == 130 and out == ""
    assert [line for line in errors.splitlines() if not line.startswith("3 workers")] == [
        "fairseq_seqkd: interrupted; files written so far are complete, run the same command "
        "to continue"
    ]
    assert len(list(tmp_path.glob("clean-*"))) == 3 and not any(
        map(processes.exists, pids(tmp_path))
    )


def test_who_does_not_listen_is_killed_at_the_second_request(tmp_path, fake):
    deaf = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "(notes.parent / f'ready-{rank}').touch()\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen(
        fake(deaf), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stop(tmp_path, process, signal.SIGTERM, times=2)
    assert process.returncode == 130 and not any(map(processes.exists, pids(tmp_path)))


# What is shown.


def test_progress_is_read_from_the_parts(tmp_path):
    assert progress.read(tmp_path) is None
    said = manifests.content()["signature"]
    manifests.write(tmp_path, manifests.content())
    assert progress.read(tmp_path) == progress.Progress(250, 0, False, said)
    (tmp_path / "parts").mkdir()
    for name in ("000000.part", "000002.part", "000001.lock", ".000001.part.x.partial"):
        (tmp_path / "parts" / name).touch()
    assert progress.read(tmp_path) == progress.Progress(
        250, 150, False, said
    )  # the last part has 50
    manifests.write(tmp_path, manifests.content(complete=True))
    shutil.rmtree(tmp_path / "parts")
    assert progress.read(tmp_path) == progress.Progress(250, 250, True, said)


def test_the_rate_counts_what_came_since_the_start(capsys, monkeypatch):
    display = decode_display.Display(progress.Progress(1000, 400, False, ""))
    display.done = 500
    assert display.line(1000, 20) == "500 of 1,000 sentences, 5.0 per second, 01:40 left"
    display.done = 400
    assert display.line(1000, 20) == "400 of 1,000 sentences, 0.0 per second, ? left"
    display.done = 1000
    assert display.line(1000, 20).startswith("1,000 of 1,000 sentences; ")
    display.done = 400
    monkeypatch.setattr(decode_display, "LINE_INTERVAL", 0)
    display.update(progress.Progress(1000, 600, False, ""))
    display.update(progress.Progress(1000, 0, False, ""))  # its parts have been merged
    assert [line[:8] for line in capsys.readouterr().err.splitlines()] == ["600 of 1", "600 of 1"]


def test_on_a_terminal_it_is_one_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    display = decode_display.Display(progress.Progress(1000, 400, False, ""))
    with display:
        display.start -= 20
        display.update(progress.Progress(1000, 500, False, ""))
    (drawn,) = [
        line for line in terminal.getvalue().replace("\r", "\n").splitlines() if "500/1000" in line
    ][:1]
    assert re.search(r"50%.*500/1000 \[00:20<01:[34]\d, +[45]\.\d+ sentences/s\]", drawn)


# The real thing.


def real(tiny, teacher, out, workers=2):
    """The words of a command line that is toys.decode's, with the two options that seqkd decode
    adds left out.
    """
    return [
        "decode",
        "--workers",
        str(workers),
        *toys.decode_command(tiny, teacher, out, user_dir=None, task=None),
    ]


def stopped(command, out, parts):
    """Starts two workers that stop by themselves once so many parts are there, and waits for that.

    Returns the process and the workers, by rank. Who begins later does not stop.
    """
    flag, pipes = (
        out.parent / "stops",
        {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
    )
    flag.touch()
    hook = stopping.environment(out.parent / "hook", out / "parts", parts, flag)
    process, until = (
        subprocess.Popen(command, **pipes, env=environment_with(**hook)),
        time.monotonic() + 120,
    )
    while time.monotonic() < until and process.poll() is None:
        log = (out / "decoding.log").read_text() if (out / "decoding.log").is_file() else ""
        workers = {
            int(rank): int(pid) for pid, rank in re.findall(r" (\d+) began as rank (\d) of 2", log)
        }
        if len(workers) == 2 and all(map(processes.is_stopped, workers.values())):
            flag.unlink()
            return process, workers
        time.sleep(0.005)
    process.terminate()
    raise AssertionError(f"they did not stop: {process.communicate(timeout=60)}")


def test_two_workers_of_which_one_is_killed_write_the_same_bytes(
    distilled, tiny, teacher, tmp_path
):
    out = tmp_path / "out"
    process, workers = stopped(
        [sys.executable, "-m", "fairseq_seqkd", *real(tiny, teacher, out)], out, parts=0
    )
    os.kill(workers[1], signal.SIGKILL)
    os.kill(workers[0], signal.SIGCONT)
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "worker 1 was killed (SIGKILL)" in errors
    assert printed == f"{out} is complete | {manifests.read(distilled)['signature']}\n"
    assert folders.tree(out) == folders.tree(distilled)


def test_refusals_of_the_real_thing_are_said_once(distilled, tiny, teacher, tmp_path):
    shutil.copytree(distilled, tmp_path / "out")
    for more, sentence in (
        (["--lenpen", "2"], "search.lenpen was 1.0, now 2.0"),
        (["--typo"], "unrecognized arguments: --typo"),
    ):
        command = [
            sys.executable,
            "-m",
            "fairseq_seqkd",
            *real(tiny, teacher, tmp_path / "out"),
            *more,
        ]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment_with(),
        )
        assert sentence in refusal(done) and done.returncode == 1
    assert folders.tree(tmp_path / "out") == folders.tree(distilled)


def signalled(pid):
    """Whether a process that is stopped has a signal waiting."""
    return any(int(processes.status(pid)[name], 16) for name in ("SigPnd", "ShdPnd"))


def test_interrupted_and_continued_it_writes_the_same_bytes(distilled, tiny, teacher, tmp_path):
    out, until = tmp_path / "out", time.monotonic() + 120
    command = [sys.executable, "-m", "fairseq_seqkd", *real(tiny, teacher, out)]
    process, workers = stopped(command, out, parts=1)
    process.send_signal(signal.SIGTERM)
    while not all(map(signalled, workers.values())) and time.monotonic() < until:
        time.sleep(0.005)
    for pid in workers.values():
        os.kill(pid, signal.SIGCONT)
    errors = process.communicate(timeout=60)[1]
    assert (
        process.returncode == 130
        and errors.count("fairseq_seqkd: ") == 1
        and "Traceback" not in errors
    )
    assert not any(map(processes.exists, workers.values()))
    done = progress.read(out)
    assert 0 < done.done < TRAIN and not done.complete
    again = subprocess.run(command, capture_output=True, text=True, env=environment_with())
    assert (
        again.returncode == 0
        and f"{done.done} of {TRAIN} sentences were there before" in again.stderr
    )
    assert folders.tree(out) == folders.tree(distilled)


@pytest.mark.slow
def test_torchrun_writes_the_same_bytes(distilled, tiny, teacher, tmp_path):
    words = toys.decode_command(tiny, teacher, tmp_path / "out")
    run_here("torchrun", "--standalone", "--nproc_per_node=2", BIN / "fairseq-generate", *words)
    assert folders.tree(tmp_path / "out") == folders.tree(distilled)
    log = (tmp_path / "out" / "decoding.log").read_text()
    assert "began as rank 0 of 2" in log and "began as rank 1 of 2" in log
