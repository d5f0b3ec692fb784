"""The command `seqkd`: everything around distillation that is not fairseq-train or fairseq-generate.

Each subcommand has its file in commands/; this one keeps what they have in common: parsing, and how they end.
"""

import argparse
import sys

from fairseq_seqkd.commands import (
    bench,
    compress,
    decode,
    doctor,
    evaluate,
    export,
    inspect,
    prune,
    report,
    select,
    text,
    translate,
)
from fairseq_seqkd.version import __version__

COMMANDS = (
    decode,
    inspect,
    select,
    text,
    prune,
    compress,
    export,
    translate,
    evaluate,
    bench,
    report,
    doctor,
)  # in the order of --help


def main(argv=None):
    """Runs a subcommand and returns its exit code; a Refusal ends the process with 1 and its sentence."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not hasattr(arguments, "rest"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest  # what fairseq knows and we need not
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print(
            "fairseq_seqkd: interrupted; what was written is whole, and the same command goes on where it can",
            file=sys.stderr,
        )
        return 130


def make_parser():
    parser = argparse.ArgumentParser(
        prog="seqkd",
        description="Sequence-level knowledge distillation (Kim & Rush 2016) with fairseq: what surrounds it.",
    )
    parser.add_argument("--version", action="version", version=f"fairseq_seqkd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
