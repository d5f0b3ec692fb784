"""`seqkd doctor`: what is installed, what is known to be wrong with it, and what to do about it."""

import argparse

from fairseq_seqkd.commands.console import add_json, quieten, say


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "doctor",
        help="what is installed, what is known to be wrong with it, and what to do",
        description="Tells which Python, fairseq, torch, CTranslate2 and sacrebleu are in use, and what is known to be wrong "
        "with them. The exit code is 1 where something prevents work.",
    )
    parser.set_defaults(run=run)
    add_json(parser)


def run(arguments):
    """Prints the findings. Returns 1 where one is an error."""
    quieten()
    from fairseq_seqkd.commands import diagnosis

    found = diagnosis.examine()
    say(arguments, {"findings": found}, in_words(found))
    return int(any(finding["level"] == "error" for finding in found))


def in_words(found):
    """A line for every finding, and one for what to do about it."""
    width = max(len(finding["what"]) for finding in found)
    for finding in found:
        mark = {"ok": "ok     ", "warning": "known  ", "error": "WRONG  "}[finding["level"]]
        yield f"{mark} {finding['what']:<{width}}  {finding['says']}"
        if finding["do"]:
            yield f"{'':<{8 + width}}  -> {finding['do']}"
