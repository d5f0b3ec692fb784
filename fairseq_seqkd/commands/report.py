"""``seqkd report``: the paper's tables and figures from measurements, or from a run folder."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_output
from fairseq_seqkd.commands.console import ProgressBar, print_text, quieten
from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from fairseq_seqkd.report.records import Report

PAGE, JSON = (".html", ".htm"), ".json"


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd report`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "report",
        example="seqkd report results.json speed.json -o report.md -o report.html",
        help="make the paper's tables, figures and an HTML page",
        description="Makes Table 1 from results of `seqkd evaluate`, Table 2 from those of "
        "`seqkd bench`, and Table 3 if evaluated models are pruned. Results of one name and "
        "several seeds are one row. Gains are measured from the row named Student. With a row "
        "named Seq-KD, the paper's claims are judged.",
        epilog="A run folder adds its pipeline, the curves of its trainings, statistics of its "
        "training targets, and beams of the teacher. Its file run.json names them; the recipes "
        "write it, docs/evaluate-prune-deploy.md shows how to.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RUN",
        help="files of `seqkd evaluate -o` and `seqkd bench -o`, or run folders with a run.json",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="write the report: FILE.html is a page with figures, FILE.json has the numbers, any "
        "other file is Markdown; may be repeated (default: print Markdown)",
    )
    add_json_option(parser, "title, rows, claims, pairs, table2, table3")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw BLEU against remaining weights of pruned models, as SVG, PNG or PDF",
    )
    parser.add_argument("--title", help="title of the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the report to files, or prints it.

    Raises:
        Refusal: an output cannot be written, or the measurements do not belong together.
    """
    outputs = [*arguments.output, *filter(None, [arguments.plot])]
    check_output(*outputs)
    inputs = {Path(path).resolve() for path in arguments.results}
    for path in outputs:
        if Path(path).resolve() in inputs:
            raise Refusal(f"{path} is an input of the report; write to another file")
    quieten()
    from fairseq_seqkd.evaluation.records import to_json
    from fairseq_seqkd.report import figures, report, table3

    if arguments.plot or any(path.endswith(PAGE) for path in outputs):
        figures.load()  # a missing library shows before the work
    content = make_report(arguments)
    if arguments.plot:
        if not content.table3:
            raise Refusal("--plot draws the cost of pruning, but no result is of a pruned model")
        figures.save(arguments.plot, figures.pruning_drawer(table3.series(content.table3)))
    for path in arguments.output:
        write(path, content)
    if arguments.json:
        print_text(to_json(content.as_json()), end="")
    elif not arguments.output:
        print_text(report.to_markdown(content), end="")


def make_report(arguments: argparse.Namespace) -> "Report":
    """Reads the inputs and makes the report."""
    from fairseq_seqkd.report import report, run_folder, sections

    inputs = run_folder.read(arguments.results)
    folders = [Path(path).resolve().name for path in arguments.results if Path(path).is_dir()]
    title = arguments.title or (f"Distillation in {', '.join(folders)}" if folders else None)
    content = report.make_report(inputs.measurements, inputs.benches, title, inputs.comparisons)
    if folders:
        content.details = sections.make_details(inputs, ProgressBar("corpora", "statistics"))
        for remark in content.details.remarks:
            print(f"left out: {remark}", file=sys.stderr)
    return content


def write(path: str, content: "Report") -> None:
    """Writes a report in the format of the file's ending."""
    from fairseq_seqkd.corpus.atomic import whole_file
    from fairseq_seqkd.evaluation.records import to_json
    from fairseq_seqkd.report import page, report

    if path.endswith(PAGE):
        text = page.render(content)
    elif path.endswith(JSON):
        text = to_json(content.as_json())
    else:
        text = report.to_markdown(content)
    with whole_file(path) as file:
        file.write(text.encode())
