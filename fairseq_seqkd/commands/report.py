"""`seqkd report`: the paper's tables and figures from results of `seqkd evaluate` and `seqkd bench`, or from a whole folder.

seqkd report RUN_DIR -o report.html
"""

import argparse
import sys
from pathlib import Path

from fairseq_seqkd.commands.console import check_output, progress_of_corpora, put, quieten
from fairseq_seqkd.errors import Refusal

PAGE, JSON = (".html", ".htm"), ".json"


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "report",
        help="the paper's tables and figures, as a page, Markdown or JSON",
        description="Makes Table 1 from results of `seqkd evaluate`, Table 2 from those of `seqkd bench`, and Table 3 where "
        "evaluated models are pruned. Results of one name and several seeds are one row. The row named Student is the one that "
        "gains are over; with a row named Seq-KD, the paper's claims are checked. From a folder it takes what belongs together, "
        "and adds the pipeline, the curves of the trainings, statistics of the corpora and the teacher's beams.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RUN",
        help="a folder of experiments, or JSON files of `seqkd evaluate -o` and `seqkd bench -o`",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="the report: FILE.html a page with figures that needs no network, FILE.json the numbers, any other Markdown; may be "
        "given several times (default: Markdown, printed)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the numbers there too, whatever else is written or printed",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="BLEU against remaining weights of pruned models, as SVG, PNG or PDF",
    )
    parser.add_argument("--title", help="title of the report")


def run(arguments):
    """Writes the reports, or prints one where no file is named."""
    outputs = [*arguments.output, *([arguments.json] if arguments.json else [])]
    check_output(*outputs, arguments.plot)
    read = {Path(path).resolve() for path in arguments.results}
    for path in filter(None, (*outputs, arguments.plot)):
        if Path(path).resolve() in read:
            raise Refusal(
                f"{path} is what the report is made from; name another file for the report"
            )
    quieten()
    from fairseq_seqkd.report import figures, report, run_folder
    from fairseq_seqkd.report import sections as details
    from fairseq_seqkd.report import table3 as pruning_table

    if arguments.plot or any(path.endswith(PAGE) for path in outputs):
        figures.load()  # what is missing shows before the work
    found = run_folder.look(arguments.results)
    folders = [Path(path).resolve().name for path in arguments.results if Path(path).is_dir()]
    title = arguments.title or (f"Distillation in {', '.join(folders)}" if folders else None)
    made = report.make(found.results, found.speeds, title, found.pairs)
    if folders:
        made |= details.of(found, made["rows"], progress_of_corpora)
        for remark in found.remarks:
            print(f"left out: {remark}", file=sys.stderr)
    if arguments.plot:
        if not made.get("table3"):
            raise Refusal(
                "--plot draws what pruning costs, and none of these results is of a pruned model"
            )
        figures.save(arguments.plot, figures.draw_pruning(pruning_table.series(made["table3"])))
    for path in outputs:
        write_text(
            path, render(made, path == arguments.json or path.endswith(JSON), path.endswith(PAGE))
        )
    if not arguments.output:
        put(report.to_markdown(made), end="")


def render(made, as_json, as_page):
    from fairseq_seqkd.evaluation.results import to_json
    from fairseq_seqkd.report import page, report

    return to_json(made) if as_json else page.render(made) if as_page else report.to_markdown(made)


def write_text(path, text):
    from fairseq_seqkd.corpus.atomic import whole_file

    with whole_file(path) as file:
        file.write(text.encode())
