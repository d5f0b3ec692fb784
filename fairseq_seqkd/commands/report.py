"""`seqkd report`: Table 1 of the paper from results of `seqkd evaluate`.

    seqkd report results.json -o report.md
"""

from fairseq_seqkd.commands.shared import check_output


def add(commands):
    parser = commands.add_parser(
        "report",
        help="Table 1 of the paper from results of `seqkd evaluate`",
        description="Makes Table 1 from results of `seqkd evaluate`. Results of one name and several seeds are one row. The "
        "row named Student is the one that gains are over; with a row named Seq-KD, the paper's claims are checked.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="JSON files of `seqkd evaluate -o`")
    parser.add_argument("-o", "--output", metavar="FILE", help="the report as Markdown (default: printed)")
    parser.add_argument("--json", metavar="FILE", help="the same numbers as JSON, not rounded")
    parser.add_argument("--title", help="title of the report")


def run(arguments):
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
