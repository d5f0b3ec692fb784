"""The command `seqkd`: everything around distillation that is not fairseq-train or fairseq-generate.

    seqkd evaluate Teacher=teacher.pt Student@1=work/student-1/checkpoint_last.pt --data data-bin -o results.json
    seqkd report results.json -o report.md

Importing fairseq takes four seconds, so whatever needs it is imported inside the subcommands.
"""

import argparse
import datetime
import sys
import time
from pathlib import Path

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.version import __version__


def main(argv=None):
    """Runs a subcommand and returns its exit code; a Refusal ends the process with 1 and its sentence."""
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("fairseq_seqkd: interrupted; what was written is whole, run the same command again to go on", file=sys.stderr)
        return 130


def make_parser():
    parser = argparse.ArgumentParser(
        prog="seqkd", description="Sequence-level knowledge distillation (Kim & Rush 2016) with fairseq: evaluation and reports."
    )
    parser.add_argument("--version", action="version", version=f"fairseq_seqkd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_evaluate(commands)
    add_report(commands)
    return parser


# seqkd evaluate


def add_evaluate(commands):
    parser = commands.add_parser(
        "evaluate",
        help="measure checkpoints: BLEU, perplexity, probability of the mode, speed",
        description="Measures checkpoints on every sentence of a split, with one length limit for all of them.",
    )
    parser.set_defaults(run=evaluate)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file of fairseq-train; NAME=PATH or NAME@SEED=PATH names its row (default: the name of its folder)",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data-bin with the gold targets of the split")
    parser.add_argument("--split", default="test", help="split to measure on (default: %(default)s)")
    parser.add_argument("--name", help="name of the row, when a single checkpoint is given")
    parser.add_argument("--seed", type=int, help="the seed it was trained with, when a single checkpoint is given")
    parser.add_argument(
        "--post-process",
        metavar="P",
        help="how subwords are joined, as fairseq's --post-process; none: not at all (default: seen from the dictionary)",
    )
    parser.add_argument("--max-len-a", type=float, default=1.2, metavar="A", help="a search ends after A * source tokens + B")
    parser.add_argument("--max-len-b", type=int, default=10, metavar="B", help="tokens (defaults: A 1.2, B 10)")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU, even where there is one")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="results as JSON; a file that is there is continued, nothing is measured twice"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")


def evaluate(arguments):
    """Measures every checkpoint that is not in the output file yet, and prints them all."""
    requests = parse_requests(arguments)
    check_output(arguments.output)
    quieten()
    import fairseq_seqkd
    from fairseq_seqkd.evaluation import results, systems, table

    fairseq_seqkd.register()
    device = systems.choose_device(arguments.cpu)
    known = results.Results(arguments.output)
    prepared = []
    for name, seed, path in requests:
        system = systems.prepare(
            path, arguments.data, arguments.split, arguments.post_process, arguments.max_len_a, arguments.max_len_b
        )
        known.check(system.facts(device))
        prepared.append((name, seed, system))
    for i, (name, seed, system) in enumerate(prepared):
        label = name if seed is None else f"{name} (seed {seed})"
        print(f"[{i + 1}/{len(prepared)}] {label}: ", end="", file=sys.stderr, flush=True)
        try:
            result = evaluate_one(name, seed, system, device, known)
        except BaseException:
            print(file=sys.stderr)  # ends the line, so that the sentence that follows stands alone
            raise
        known.add(result)
    if arguments.json:
        print(table.to_json({"results": known.all()}), end="")
    else:
        print(table.markdown_table(table.make_rows(known.all())))


def quieten():
    """Keeps the chatter of libraries out of the progress lines. It comes before fairseq, which sets up logging at INFO."""
    import logging
    import warnings

    logging.basicConfig(level=logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\b")


def evaluate_one(name, seed, system, device, known):
    """A result: an earlier one of the same measurement, under this name, or a new one. Ends the progress line."""
    from fairseq_seqkd.evaluation.measure import measure

    facts = system.facts(device)
    earlier = known.known(facts)
    if earlier:
        print("already measured", file=sys.stderr)
        return {**earlier, "name": name, "seed": seed, "checkpoint": system.path}
    begun = time.monotonic()
    measured = measure(system, device)
    print(
        f"BLEU {measured['bleu_greedy']:.2f} greedy, {measured['bleu_beam5']:.2f} beam 5, perplexity {measured['ppl']:.2f} "
        f"({measured['sentences']:,} sentences, {time.monotonic() - begun:.0f} s)",
        file=sys.stderr,
    )
    today = datetime.date.today().isoformat()
    return {"name": name, "seed": seed, "checkpoint": system.path, **measured, **facts, "date": today}


def parse_requests(arguments):
    """[(name, seed or None, path)] of the CHECKPOINT arguments. Raises Refusal for names that do not tell them apart."""
    if len(arguments.checkpoints) > 1 and (arguments.name is not None or arguments.seed is not None):
        raise Refusal("--name and --seed are for a single checkpoint; with several, write NAME@SEED=PATH for each")
    requests = []
    for text in arguments.checkpoints:
        name, seed, path = parse_checkpoint(text)
        name = name if arguments.name is None else arguments.name
        seed = seed if arguments.seed is None else arguments.seed
        if (name, seed) in [request[:2] for request in requests]:
            raise Refusal(
                f"two checkpoints are named {name}{'' if seed is None else f'@{seed}'}; tell them apart with NAME=PATH or "
                "NAME@SEED=PATH"
            )
        requests.append((name, seed, path))
    return requests


def parse_checkpoint(text):
    """(name, seed or None, path) of one CHECKPOINT: PATH, NAME=PATH or NAME@SEED=PATH. A file's own name may hold "="."""
    if "=" not in text or Path(text).exists():
        return Path(text).absolute().parent.name, None, text
    label, path = text.split("=", 1)
    name, _, seed = label.rpartition("@") if "@" in label else (label, "", None)
    if seed is not None:
        try:
            seed = int(seed)
        except ValueError:
            raise Refusal(f"the seed in {text!r} is {seed!r}, it must be a whole number: NAME@SEED=PATH") from None
    if not name or not path:
        raise Refusal(f"{text!r} is no checkpoint; write PATH, NAME=PATH or NAME@SEED=PATH")
    return name, seed, path


def check_output(*paths):
    """Refuses an output file that cannot be written, before any work is done for it."""
    for path in paths:
        if path and Path(path).is_dir():
            raise Refusal(f"{path} is a directory; name a file")
        if path and not Path(path).absolute().parent.is_dir():
            raise Refusal(f"{path} cannot be written: its folder does not exist; make it first")


# seqkd report


def add_report(commands):
    parser = commands.add_parser(
        "report",
        help="Table 1 of the paper from results of `seqkd evaluate`",
        description="Makes Table 1 from results of `seqkd evaluate`. Results of one name and several seeds are one row. The "
        "row named Student is the one that gains are over; with a row named Seq-KD, the paper's claims are checked.",
    )
    parser.set_defaults(run=report)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="JSON files of `seqkd evaluate -o`")
    parser.add_argument("-o", "--output", metavar="FILE", help="the report as Markdown (default: printed)")
    parser.add_argument("--json", metavar="FILE", help="the same numbers as JSON, not rounded")
    parser.add_argument("--title", help="title of the report")


def report(arguments):
    """Writes the report, or prints it where no file is named."""
    from fairseq_seqkd.evaluation import results, table

    check_output(arguments.output, arguments.json)
    made = table.make_report([result for path in arguments.results for result in results.read(path)], arguments.title)
    if arguments.json:
        write_text(arguments.json, table.to_json(made))
    if arguments.output:
        write_text(arguments.output, table.to_markdown(made))
    else:
        print(table.to_markdown(made), end="")


def write_text(path, text):
    from fairseq_seqkd.corpus.files import whole_file

    with whole_file(path) as file:
        file.write(text.encode())
