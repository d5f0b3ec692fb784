"""``seqkd doctor``: check the installation."""

import argparse
from typing import TYPE_CHECKING, Iterator, Mapping

from fairseq_seqkd.commands.arguments import add_command, add_json_option
from fairseq_seqkd.commands.console import print_result, quieten

if TYPE_CHECKING:
    from fairseq_seqkd.commands.diagnosis import Finding

MARKS = {"ok": "ok     ", "warning": "known  ", "error": "WRONG  "}


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd doctor`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "doctor",
        example="seqkd doctor",
        help="check the installation, and say what to do about known problems",
        description="Checks Python, fairseq, torch, CTranslate2, sacrebleu, NumPy, the number of "
        "threads and the GPUs. Prints one line for each: 'ok', 'known' for a known problem that "
        "can be avoided, or 'WRONG' for an error that prevents work; and what to do about it. The "
        "exit code is 1 if there is an error.",
    )
    add_json_option(parser, "findings, a list of {what, level, says, do}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings. Returns 1 if one of them is an error."""
    quieten()
    from fairseq_seqkd.commands import diagnosis

    findings = diagnosis.examine()
    content = {"findings": [finding.as_json(name) for name, finding in findings.items()]}
    print_result(arguments, content, in_words(findings))
    return int(any(finding.level == diagnosis.ERROR for finding in findings.values()))


def in_words(findings: "Mapping[str, Finding]") -> Iterator[str]:
    """Yields a line for each finding, and one for what to do about it."""
    width = max(map(len, findings))
    for name, finding in findings.items():
        yield f"{MARKS[finding.level]} {name:<{width}}  {finding.state}"
        if finding.advice:
            yield f"{'':<{8 + width}}  -> {finding.advice}"
