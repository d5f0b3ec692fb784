"""``seqkd decode``: decode with several processes on this machine, and one progress bar.

The processes share the directory as processes on several machines do: locks say who decodes which
part, and any process may die.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Sequence

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_at_least_one
from fairseq_seqkd.commands.console import print_result
from fairseq_seqkd.commands.decode_display import Display
from fairseq_seqkd.errors import Problems, Refusal

if TYPE_CHECKING:
    from fairseq_seqkd.commands.workers import Worker, WorkerPool

GENERATE = [sys.executable, "-m", "fairseq_cli.generate"]  # fairseq-generate of this Python
TASK = "teacher_decoding"
RESTARTS = 2  # of workers that die: one that dies a third time does so for a reason
PAUSE = 0.5  # seconds between two checks of the directory
WORLD_SIZE, RANK = "--distributed-world-size", "--distributed-rank"


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd decode`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "decode",
        usage="seqkd decode [-h] [--workers N] [--gpus LIST] ARGUMENTS OF fairseq-generate",
        example="seqkd decode --workers 2 data-bin --path teacher.pt --gen-subset train \\\n"
        "    --beam 5 --nbest 5 --distill-dir distilled",
        help="decode a split with a teacher, using several processes at once",
        description=f"Runs `fairseq-generate --task {TASK}` in several processes of one thread "
        "each. Options that are not listed here are passed on to fairseq-generate; --user-dir and "
        "--task are added. The translations are written to the --distill-dir, the logs of the "
        "processes to DISTILL_DIR.logs/. If interrupted, run the same command again to continue.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes, at least 1 (default: one per NVIDIA GPU; without a GPU, or with "
        "--cpu, one per core)",
    )
    parser.add_argument(
        "--gpus",
        metavar="LIST",
        help="GPUs to use, as in CUDA_VISIBLE_DEVICES, e.g. 0,2 (default: all)",
    )
    add_json_option(parser, "folder, complete, sentences, signature")
    parser.set_defaults(run=run, fairseq_options=[])


def run(arguments: argparse.Namespace) -> None:
    """Starts the workers, waits for them, and prints how the decode ended.

    Raises:
        Refusal: an option is wrong, a worker refused to work, or the directory is not complete.
        KeyboardInterrupt: somebody asked to stop. The workers have ended, too.
    """
    from fairseq_seqkd.commands.workers import StopRequests, WorkerPool
    from fairseq_seqkd.corpus import progress

    job = parse_job(arguments)
    with StopRequests() as requests:
        state = progress.read(job.folder)
        if state and state.complete:
            job = job._replace(workers=1)  # it compares the settings, and has nothing else to do
        with WorkerPool(job, requests) as pool, Display(state) as display:
            display.print(describe(job))
            if state and state.done:
                display.print(f"{state.done:,} of {state.sentences:,} sentences were there before")
            dead = wait(pool, list(range(job.workers)), job.folder, display)
            for _ in range(RESTARTS):
                # The other workers may have passed over the parts of the dead one: it decodes them.
                if not dead or is_complete(job.folder):
                    break
                rank = dead[0].rank
                display.print(f"{job.folder} is not complete: worker {rank} is started again")
                dead = wait(pool, [rank], job.folder, display)
    state = progress.read(job.folder)
    if state is None or not state.complete:
        raise Refusal(f"{job.folder} is not complete: {reason(dead)}")
    print_result(
        arguments,
        {
            "folder": str(job.folder),
            "complete": True,
            "sentences": state.sentences,
            "signature": state.signature,
        },
        text=f"{job.folder} is complete | {state.signature}",
    )


def wait(pool: "WorkerPool", ranks: List[int], folder: Path, display: Display) -> "List[Worker]":
    """Starts a worker for each rank and waits until all of them have ended.

    Returns:
        The workers that died.

    Raises:
        Refusal: a worker refused to work; the others would refuse, too.
        KeyboardInterrupt: somebody asked to stop.
    """
    from fairseq_seqkd.corpus import progress

    running = [pool.start(rank) for rank in ranks]
    dead = []
    while running:
        for worker in [worker for worker in running if worker.exit_code is not None]:
            running.remove(worker)
            refusal = worker.refusal()
            if refusal:
                raise Refusal(refusal)
            if worker.exit_code:
                dead.append(worker)
                others = "the others go on" if running else "none is left"
                display.print(f"worker {worker.rank} {worker.describe_end()}; {others}")
        if pool.requests.count:
            raise KeyboardInterrupt
        display.update(progress.read(folder))
        time.sleep(PAUSE)
    return dead


def is_complete(folder: Path) -> bool:
    """Returns whether a distilled directory is complete."""
    from fairseq_seqkd.corpus import progress

    state = progress.read(folder)
    return state is not None and state.complete


def describe(job: "DecodeJob") -> str:
    """Returns how many workers are started, and where their logs are."""
    several = job.workers > 1
    return (
        f"{job.workers} worker{'s' * several} for {job.folder}, "
        f"logs: {job.logs}/worker-0.log{' and so on' * several}"
    )


def reason(dead: "Sequence[Worker]") -> str:
    """Returns why a directory is not complete after all workers have ended."""
    if dead:
        return (
            f"worker {dead[0].rank} {dead[0].describe_end()}, as did {RESTARTS} before it; "
            f"see {dead[0].log}"
        )
    return "workers started elsewhere decode the last parts; run this command again if they die"


class DecodeJob(NamedTuple):
    """What the workers of a decode are started with.

    Attributes:
        folder: the --distill-dir.
        options: the arguments of fairseq-generate.
        workers: the number of processes.
        gpus: the GPUs to use, as in CUDA_VISIBLE_DEVICES; None for all.
    """

    folder: Path
    options: List[str]
    workers: int
    gpus: Optional[str] = None

    @property
    def logs(self) -> Path:
        """The folder of the workers' logs, beside the --distill-dir."""
        return self.folder.with_name(self.folder.name + ".logs")

    def command(self, rank: int) -> List[str]:
        """Returns the command line of a worker. The rank only says with which part it begins."""
        words = [*GENERATE, *self.options]
        plugin = Path(__file__).resolve().parent.parent
        for option, value in (("--user-dir", str(plugin)), ("--task", TASK)):
            if option_value(option, self.options) is None:
                words += [option, value]
        return [*words, WORLD_SIZE, str(self.workers), RANK, str(rank)]

    def environment(self, rank: int) -> Dict[str, str]:
        """Returns the environment of a worker: one thread, and the GPU of its local rank.

        Modules are not imported from the working directory.
        """
        gpus = {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": self.gpus}
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LOCAL_RANK": str(rank),
            "PYTHONSAFEPATH": "1",
            **gpus,
        }


def parse_job(arguments: argparse.Namespace) -> DecodeJob:
    """Checks the command line of ``seqkd decode``.

    Raises:
        Refusal: options contradict each other, or would not end in a distilled directory.
    """
    options: List[str] = arguments.fairseq_options
    problems = Problems()
    with problems.collect():
        check_at_least_one(arguments, "--workers")
    if arguments.gpus is not None and "--cpu" in options:
        problems.add("--gpus and --cpu contradict each other; leave one out")
    for option in (WORLD_SIZE, RANK):
        if option_value(option, options) is not None:
            problems.add(f"{option} is set by seqkd decode for each worker; leave it out")
    task = option_value("--task", options)
    if task not in (None, TASK):
        problems.add(
            f"seqkd decode runs --task {TASK}, not {task}; leave --task out, or use "
            "fairseq-generate"
        )
    folder = option_value("--distill-dir", options)
    if not folder:
        problems.add(
            "--distill-dir is missing; name the directory for the teacher's translations (write "
            "the option out in full)"
        )
    problems.refuse()
    path = Path(str(folder))
    return DecodeJob(
        folder=path if path.name not in ("", "..") else path.resolve(),
        options=options,
        workers=arguments.workers or default_workers("--cpu" in options, arguments.gpus),
        gpus=arguments.gpus,
    )


def option_value(option: str, words: Sequence[str]) -> Optional[str]:
    """Returns the last value of an option in a command line, or None."""
    value = None
    for word, following in zip(words, [*words[1:], None]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.split("=", 1)[1]
    return value


def default_workers(cpu: bool, gpus: Optional[str] = None) -> int:
    """Returns one worker per GPU, else one per core that this process may use.

    GPUs are counted without torch, whose import would take seconds.

    Args:
        cpu: whether GPUs are not to be used.
        gpus: the GPUs to use, as in CUDA_VISIBLE_DEVICES (default: that variable, else all).
    """
    if not cpu:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") if gpus is None else gpus
        if visible is None:
            devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
        else:
            devices = sum(device.strip() not in ("", "-1") for device in visible.split(","))
        if devices:
            return devices
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
