"""`seqkd report`: the paper's tables from results of `seqkd evaluate` and `seqkd bench`.

seqkd report results.json speed.json -o report.md
"""

from fairseq_seqkd.commands.shared import check_output
from fairseq_seqkd.errors import Refusal


def add(commands):
    parser = commands.add_parser(
        "report",
        help="the paper's tables from results of `seqkd evaluate` and `seqkd bench`",
        description="Makes Table 1 from results of `seqkd evaluate`, Table 2 from those of `seqkd bench`, and Table 3 where "
        "evaluated models are pruned. Results of one name and several seeds are one row. The row named Student is the one that "
        "gains are over; with a row named Seq-KD, the paper's claims are checked.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="JSON files of `seqkd evaluate -o` and `seqkd bench -o`")
    parser.add_argument("-o", "--output", metavar="FILE", help="the report as Markdown (default: printed)")
    parser.add_argument("--json", metavar="FILE", help="the same numbers as JSON, not rounded")
    parser.add_argument("--plot", metavar="FILE", help="BLEU against remaining weights of pruned models, as SVG, PNG or PDF")
    parser.add_argument("--title", help="title of the report")


def run(arguments):
    """Writes the report, or prints it where no file is named."""
    from fairseq_seqkd.evaluation import pruning_table, report, results

    check_output(arguments.output, arguments.json, arguments.plot)
    found, speeds, pairs = [], [], []
    for path in arguments.results:
        content = results.read_json(path)
        if "speeds" in content:
            speeds.append(results.speeds(content, path))
        else:
            found += results.of(content, path)
            pairs += results.pairs_of(content, path)
    made = report.make(found, speeds, arguments.title, pairs)
    if arguments.plot:
        if not made.get("table3"):
            raise Refusal("--plot draws what pruning costs, and none of these results is of a pruned model")
        pruning_table.plot(made["table3"], arguments.plot)
    if arguments.json:
        write_text(arguments.json, report.to_json(made))
    if arguments.output:
        write_text(arguments.output, report.to_markdown(made))
    else:
        print(report.to_markdown(made), end="")


def write_text(path, text):
    from fairseq_seqkd.corpus.files import whole_file

    with whole_file(path) as file:
        file.write(text.encode())
