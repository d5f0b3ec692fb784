"""The command ``seqkd``: everything around distillation that is not fairseq-train or -generate.

Each subcommand has its file in commands/. This file parses the command line and runs one of them.
"""

import argparse
import sys
from typing import Optional, Sequence

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

INTERRUPTED = "interrupted; files written so far are complete, run the same command to continue"


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs a subcommand.

    Args:
        words: the command line without the program's name (default: that of this process).

    Returns:
        The exit code: 0 for success, 130 if interrupted by Ctrl-C, else what the subcommand says.

    Raises:
        Refusal: something is wrong with the input. It ends the process with exit code 1.
    """
    arguments = parse_arguments(words)
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print(f"fairseq_seqkd: {INTERRUPTED}", file=sys.stderr)
        return 130


def parse_arguments(words: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parses a command line.

    Options that a command does not know are kept in `fairseq_options` if the command passes
    options on to fairseq. Otherwise they are an error, with exit code 2.
    """
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(words)
    if hasattr(arguments, "fairseq_options"):
        arguments.fairseq_options = unknown
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of ``seqkd`` with all of its subcommands."""
    parser = argparse.ArgumentParser(
        prog="seqkd",
        description="Sequence-level knowledge distillation (Kim & Rush 2016) with fairseq. "
        "Teachers and students are trained by fairseq-train; these commands do everything else.",
        epilog="`seqkd COMMAND --help` describes a command, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"fairseq_seqkd {__version__}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subcommands)
    return parser
