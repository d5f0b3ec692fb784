"""`seqkd bench`: how fast models translate, with fairseq and CTranslate2: Table 2 of the paper.

seqkd bench Teacher=teacher.pt Student=student.pt --data data-bin -o speed.json
"""

import argparse
import datetime
import sys
from pathlib import Path

from fairseq_seqkd.commands.console import (
    add_json,
    add_limits,
    check_output,
    parse_models,
    quieten,
    say,
)
from fairseq_seqkd.commands.text_options import OF_DECODERS, Decoders, add_decoders
from fairseq_seqkd.errors import Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "bench",
        help="how fast models translate, with fairseq and CTranslate2: Table 2 of the paper",
        description="Measures source words a second on one thread: greedy and beam 5, fairseq and CTranslate2 in float32 and "
        "int8. Every contender translates the whole split, each in its turn, and in a process of its own.",
        usage="seqkd bench MODEL [MODEL ...] --data DIR [options]",  # what is unknown here must not come first
        epilog=OF_DECODERS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="checkpoints, PATH or NAME=PATH (default: the name of its folder); the first one is compared with",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="data-bin whose split is translated"
    )
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--engines",
        default="fairseq,ctranslate2-float32,ctranslate2-int8",
        metavar="LIST",
        help="separated by commas (default: %(default)s)",
    )
    parser.add_argument("--beams", default="1,5", metavar="LIST", help="default: %(default)s")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="how often everything is measured (default: %(default)s)",
    )
    add_decoders(parser)
    add_limits(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the measurements as JSON, for `seqkd report`"
    )
    add_json(parser)


def run(arguments):
    """Measures, writes the JSON after every round, and prints the table."""
    beams = whole_numbers("--beams", arguments.beams)
    if arguments.rounds < 1:
        raise Refusal(f"--rounds is {arguments.rounds}, it must be at least 1")
    check_output(arguments.output)
    check_replaced(arguments.output)
    models, decoders = parse_models(arguments.models), Decoders(arguments, "bench")
    quieten()
    from tqdm import tqdm

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.corpus.atomic import whole_file
    from fairseq_seqkd.engines import int8_support
    from fairseq_seqkd.engines.ctranslate2_support import check_installed
    from fairseq_seqkd.evaluation import records, speed, systems
    from fairseq_seqkd.evaluation.results import to_json
    from fairseq_seqkd.report import table2 as speed_table

    fairseq_seqkd.register()
    wanted = arguments.engines.split(",")
    if len(set(wanted)) != len(wanted):
        raise Refusal(f"--engines is {arguments.engines!r}, it names an engine twice")
    for engine in wanted:
        if engine not in speed.CONTENDERS:
            raise Refusal(f"--engines: {engine!r} is none of {', '.join(speed.CONTENDERS)}")
        if engine != speed.FAIRSEQ:
            compute_type = speed.CONTENDERS[engine]
            computed = int8_support.computed_as(compute_type)
            check_installed(computed, on_gpu=False, instead="measure with --engines fairseq")
            if computed != compute_type:
                print(
                    f"{engine} is computed in {computed}: {int8_support.WITHOUT_VNNI}",
                    file=sys.stderr,
                )
    how = {"max_len_a": arguments.max_len_a, "max_len_b": arguments.max_len_b}
    how |= {"post_process": decoders.post_process(arguments.post_process), "decoders": decoders}
    named = [
        (name, systems.prepare(Checkpoint(path), arguments.data, arguments.split, **how))
        for name, path in models
    ]
    facts = named[0][1].facts(systems.choose_device(cpu=True))
    facts = {
        "data_sha256": facts["data_sha256"],
        "settings": {
            key: value for key, value in facts["settings"].items() if key != "max_tokens"
        },  # each engine has its own
        "counted": speed.counted(named[0][1]),
        "machine": facts["machine"],
        "versions": {**facts["versions"], **speed.version_of_ctranslate2(wanted)},
        "date": datetime.date.today().isoformat(),
    }

    def keep(speeds):
        if arguments.output:
            with whole_file(arguments.output) as file:
                file.write(to_json({"speeds": speeds, **facts}).encode())

    with tqdm(desc="measurements", unit=" runs", disable=None, leave=False) as bar:

        def said(text, total):
            bar.total = total
            bar.write(text, file=sys.stderr)
            bar.update()

        found, left_out = speed.run(named, wanted, beams, arguments.rounds, said, keep)
    for name, engine in left_out:
        print(
            f"{name} is no Transformer, so {engine} cannot hold it: not measured", file=sys.stderr
        )
    made = {"speeds": found, **facts}
    say(arguments, made, speed_table.markdown(records.decode(made)).rstrip("\n"))


def check_replaced(output):
    """Refuses to write over a file that is none of `seqkd bench`: results of `seqkd evaluate` are not measured in a moment."""
    if output is None or not Path(output).exists():
        return
    from fairseq_seqkd.evaluation.results import read_json

    if "speeds" not in read_json(output):
        raise Refusal(
            f"{output} is there already, and `seqkd bench` did not make it; name another file with -o"
        )


def whole_numbers(option, text):
    """[1, 5] of "1,5". Raises Refusal for anything else."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words) or len(set(words)) != len(words):
        raise Refusal(
            f"{option} is {text!r}, it must be different positive numbers, separated by commas"
        )
    return [int(word) for word in words]
