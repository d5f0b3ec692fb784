"""`seqkd decode`: several workers of `fairseq-generate --task teacher_decoding` on this machine, and one progress bar.

    seqkd decode --workers 2 data-bin --path teacher.pt --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

The workers share the directory as workers on several machines do: locks say who does what, and any of them may die.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from fairseq_seqkd.commands.console import add_json, say
from fairseq_seqkd.errors import Refusal

GENERATE = [sys.executable, "-m", "fairseq_cli.generate"]  # fairseq-generate, of this Python
TASK = "teacher_decoding"
SECOND_TRIES = 2  # a worker that dies again is no accident
PAUSE = 0.5  # seconds between two looks at the directory
PLAIN_LINES = 10  # seconds between two, where standard error is no terminal
OURS = ("--distributed-world-size", "--distributed-rank")


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "decode",
        usage="seqkd decode [-h] [--workers N] [--gpus LIST] ARGUMENTS OF fairseq-generate",
        help="the teacher's translations, by several processes at once",
        description=f"Runs `fairseq-generate --task {TASK}` in several processes with one thread each. What is not listed "
        "here goes to fairseq-generate as it is; --user-dir and --task are added. The workers' logs are in "
        "DISTILL_DIR.logs/. Run it again to continue.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, fairseq_options=[])
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one for each NVIDIA GPU; without any, or with --cpu, one for each core)",
    )
    parser.add_argument(
        "--gpus", metavar="LIST", help="GPUs to use, as CUDA_VISIBLE_DEVICES: 0,2 (default: all)"
    )
    add_json(parser)


def run(arguments):
    """Starts the workers, watches them, and says how it ended. A Refusal of one worker ends all of them."""
    from fairseq_seqkd.commands.workers import Workers, requests_to_stop

    folder = check_arguments(arguments)
    size = arguments.workers or default_workers(
        "--cpu" in arguments.fairseq_options, arguments.gpus
    )
    logs = folder.with_name(folder.name + ".logs")
    with requests_to_stop() as requests:
        from fairseq_seqkd.corpus import progress

        before = progress.read(folder)
        if before and before.complete:
            size = 1  # it compares the settings, and has nothing else to do
        display = Display(before)
        display.say(
            f"{size} worker{'s' * (size > 1)} for {folder}, logs: {logs}/worker-0.log{' and so on' * (size > 1)}"
        )
        if before and before.done:
            display.say(f"{before.done:,} of {before.sentences:,} sentences were there before")
        with Workers(
            lambda rank: command(arguments.fairseq_options, rank, size),
            lambda rank: environment(rank, arguments.gpus),
            logs,
            requests,
        ) as workers:
            dead = watch(workers, [workers.start(rank) for rank in range(size)], folder, display)
            for _ in range(SECOND_TRIES):
                # A dead worker's parts are free again, but the others may have passed over them before.
                if not dead or is_complete(folder):
                    break
                display.say(f"{folder} is not complete: worker {dead[0].rank} is started again")
                dead = watch(workers, [workers.start(dead[0].rank)], folder, display)
        display.close()
    state = progress.read(folder)
    if state and state.complete:
        content = {
            "folder": str(folder),
            "complete": True,
            "sentences": state.sentences,
            "signature": state.signature,
        }
        say(arguments, content, f"{folder} is complete | {state.signature}")
    elif dead:
        raise Refusal(
            f"{folder} is not complete: worker {dead[0].rank} {dead[0].end()}, as did {SECOND_TRIES} before it; see {dead[0].log}"
        )
    else:
        raise Refusal(
            f"{folder} is not complete: the rest is in the hands of workers that were started elsewhere; "
            "run this again if they die"
        )


def watch(workers, team, folder, display):
    """Waits until every worker of the team has ended, and returns those that died."""
    from fairseq_seqkd.corpus import progress

    waiting, dead = list(team), []
    while waiting:
        for worker in [worker for worker in waiting if worker.code is not None]:
            waiting.remove(worker)
            if worker.refusal():
                display.close()
                raise Refusal(worker.refusal())
            if worker.code:
                dead.append(worker)
                display.say(
                    f"worker {worker.rank} {worker.end()}; "
                    + ("the others go on" if waiting else "none is left")
                )
        if workers.requests:
            display.close()
            raise KeyboardInterrupt
        display.show(progress.read(folder))
        time.sleep(PAUSE)
    return dead


def is_complete(folder):
    from fairseq_seqkd.corpus import progress

    state = progress.read(folder)
    return bool(state and state.complete)


# What the workers are told.


def check_arguments(arguments):
    """The distilled directory, out of fairseq-generate's arguments. Refuses what would not end in one."""
    rest = arguments.fairseq_options
    if arguments.workers is not None and arguments.workers < 1:
        raise Refusal(f"--workers is {arguments.workers}, it must be at least 1")
    if arguments.gpus is not None and "--cpu" in rest:
        raise Refusal("--gpus and --cpu contradict each other; leave one out")
    for option in OURS:
        if value_of(option, rest) is not None:
            raise Refusal(f"{option} is what seqkd decode gives to its workers; leave it out")
    task = value_of("--task", rest)
    if task not in (None, TASK):
        raise Refusal(
            f"seqkd decode runs --task {TASK}, not {task}; leave --task out, or use fairseq-generate"
        )
    if not value_of("--distill-dir", rest):
        raise Refusal(
            "--distill-dir is missing: it says where the teacher's translations go (write the option out in full)"
        )
    folder = Path(value_of("--distill-dir", rest))
    return folder if folder.name not in ("", "..") else folder.resolve()


def value_of(option, words):
    """The last value of an option among the words of a command line, or None."""
    found = None
    for word, following in zip(words, [*words[1:], None]):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.split("=", 1)[1]
    return found


def default_workers(cpu, gpus=None):
    """One worker for each GPU, else for each core that this process may use. Importing torch would be slow, so files tell."""
    if not cpu:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES") if gpus is None else gpus
        if listed is None:
            devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
        else:
            devices = len(
                [device for device in listed.split(",") if device.strip() not in ("", "-1")]
            )
        if devices:
            return devices
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(rest, rank, size):
    """The command line of one worker. The rank only says where to begin."""
    words = [*GENERATE, *rest]
    for option, value in (("--user-dir", Path(__file__).resolve().parent.parent), ("--task", TASK)):
        if value_of(option, rest) is None:
            words += [option, str(value)]
    return [*words, OURS[0], str(size), OURS[1], str(rank)]


def environment(rank, gpus=None):
    """One thread each; the task picks its GPU by the local rank. The working directory is no place for modules."""
    found = {**os.environ, "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank), "PYTHONSAFEPATH": "1"}
    return found if gpus is None else {**found, "CUDA_VISIBLE_DEVICES": gpus}


# What is shown.


class Display:
    """One progress bar on a terminal, a plain line now and then elsewhere. The rate counts what came since the start."""

    def __init__(self, before):
        self.first = before.done if before else 0
        self.done, self.begun, self.last_line, self.bar = self.first, time.time(), time.time(), None

    def say(self, text):
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    def show(self, state):
        """state: corpus.progress.Progress, or None while there is none."""
        if state is None:
            return
        self.done = max(self.done, state.done)  # while it is finished, its parts go away
        if sys.stderr.isatty():
            self._draw(state.sentences)
        elif time.time() - self.last_line >= PLAIN_LINES:
            self.last_line = time.time()
            self.say(self.line(state.sentences, time.time() - self.begun))

    def line(self, sentences, elapsed):
        """The plain line after so many seconds."""
        from tqdm import tqdm

        if self.done == sentences:
            return (
                f"{self.done:,} of {sentences:,} sentences; what remains is to check and to finish"
            )
        rate = (self.done - self.first) / elapsed if elapsed else 0.0
        left = tqdm.format_interval((sentences - self.done) / rate) if rate else "?"
        return f"{self.done:,} of {sentences:,} sentences, {rate:.1f} a second, {left} left"

    def _draw(self, sentences):
        from tqdm import tqdm

        if self.bar is None:
            width, height = (
                shutil.get_terminal_size()
            )  # 80 x 24 where a terminal does not know; tqdm would show nothing
            self.bar = tqdm(
                total=sentences,
                initial=self.first,
                unit=" sentences",
                smoothing=0,
                ncols=width,
                nrows=height,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]",
            )
            self.bar.start_t = self.begun
        self.bar.n = self.done
        self.bar.refresh()

    def close(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None
