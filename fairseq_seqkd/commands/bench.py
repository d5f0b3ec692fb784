"""``seqkd bench``: measure how fast models translate, with fairseq and CTranslate2."""

import argparse
import datetime
import sys
import tempfile
from pathlib import Path
from typing import List

from fairseq_seqkd.commands.arguments import (
    add_command,
    add_json_option,
    add_length_limit_options,
    check_at_least_one,
    check_output,
    parse_models,
)
from fairseq_seqkd.commands.console import print_result, quieten
from fairseq_seqkd.commands.text_options import EPILOG, TextOptions, add_text_options
from fairseq_seqkd.engines.length_limit import check_length_options
from fairseq_seqkd.errors import Problems, Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd bench`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "bench",
        usage="seqkd bench MODEL [MODEL ...] --data DIR [options]",
        example="seqkd bench Teacher=teacher.pt Student=student.pt --data data-bin -o speed.json",
        epilog=EPILOG,
        help="measure how fast models translate, with fairseq and CTranslate2",
        description="Measures source words per second on one thread, as in Table 2 of the paper. "
        "Each model translates the whole split with each engine and beam size, in a process of "
        "its own. The contenders take turns.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="checkpoint, as PATH or NAME=PATH (default name: that of its folder); the others are "
        "compared with the first one",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data-bin with the split")
    parser.add_argument("--split", default="test", help="split to translate (default: %(default)s)")
    parser.add_argument(
        "--engines",
        default="fairseq,ctranslate2-float32,ctranslate2-int8",
        metavar="LIST",
        help="engines to measure, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--beams",
        default="1,5",
        metavar="LIST",
        help="beam sizes to measure, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="number of measurements of each contender, at least 1 (default: %(default)s)",
    )
    add_text_options(parser)
    add_length_limit_options(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="JSON file to write, for `seqkd report`"
    )
    add_json_option(parser, "speeds, data_sha256, settings, counted, machine, versions, date")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measures, writes the file after every round, and prints the table."""
    problems = Problems()
    with problems.collect():
        beams = parse_beams(arguments.beams)
    with problems.collect():
        check_at_least_one(arguments, "--rounds")
    with problems.collect():
        check_output(arguments.output)
        check_replaced(arguments.output)
    with problems.collect():
        check_length_options(arguments.max_len_a, arguments.max_len_b)
    with problems.collect():
        models = parse_models(arguments.models)
    with problems.collect():
        decoders = TextOptions(arguments, "bench")
    with problems.collect():
        engines = check_engines(arguments.engines)
    problems.refuse()
    quieten()
    from tqdm import tqdm

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.corpus.atomic import whole_file
    from fairseq_seqkd.corpus.json_text import tree
    from fairseq_seqkd.evaluation import speed, systems
    from fairseq_seqkd.evaluation.records import Bench, Identity, Speed, to_json
    from fairseq_seqkd.report import table2

    fairseq_seqkd.register()
    options = systems.Options(
        arguments.split,
        arguments.max_len_a,
        arguments.max_len_b,
        decoders.post_process(arguments.post_process),
        decoders,
    )
    prepared = []
    for name, path in models:
        with problems.collect():
            identity = Identity(name, None)
            prepared.append(systems.prepare(Checkpoint(path), arguments.data, options, identity))
    problems.refuse()
    first = prepared[0]
    bench = Bench(
        speeds=[],
        data_sha256=first.data_sha256,
        settings=speed.common_settings(first.settings),
        counted=speed.counted(first),
        machine=systems.machine(systems.choose_device(cpu=True)),
        versions=speed.versions(engines),
        date=datetime.date.today().isoformat(),
    )

    def keep(speeds: List[Speed]) -> None:
        bench.speeds = speeds
        if arguments.output:
            with whole_file(arguments.output) as file:
                file.write(to_json(bench).encode())

    with tempfile.TemporaryDirectory(prefix="seqkd-bench-") as folder:
        benchmark = speed.Benchmark(prepared, engines, beams, Path(folder))
        total = arguments.rounds * len(benchmark.contenders)
        with tqdm(total=total, unit=" runs", disable=None, leave=False) as bar:

            def report(text: str) -> None:
                bar.write(text, file=sys.stderr)
                bar.update()

            speed.run(benchmark, arguments.rounds, report, keep)
    for system, engine in benchmark.left_out:
        print(
            f"{system.identity} is no Transformer, so {engine} cannot hold it: not measured",
            file=sys.stderr,
        )
    print_result(arguments, tree(bench), table2.markdown(bench).rstrip("\n"))


def check_engines(text: str) -> List[str]:
    """Parses --engines, and reports a type that this machine cannot compute in.

    Raises:
        Refusal: an engine does not exist, is named twice, or is not installed.
    """
    from fairseq_seqkd.engines import FAIRSEQ, int8_support
    from fairseq_seqkd.engines.ctranslate2_support import check_installed
    from fairseq_seqkd.evaluation.speed import CONTENDERS

    names = text.split(",")
    if len(set(names)) != len(names):
        raise Refusal(f"--engines is {text!r}, it names an engine twice")
    for name in names:
        if name not in CONTENDERS:
            raise Refusal(f"--engines: {name!r} is none of {', '.join(CONTENDERS)}")
        if name == FAIRSEQ:
            continue
        computed = int8_support.computed_as(CONTENDERS[name])
        check_installed(computed, on_gpu=False, instead="measure with --engines fairseq")
        if computed != CONTENDERS[name]:
            print(f"{name} is computed in {computed}: {int8_support.WITHOUT_VNNI}", file=sys.stderr)
    return names


def check_replaced(output: str) -> None:
    """Refuses to replace a file of another command, which may have taken hours to measure."""
    if output is None or not Path(output).exists():
        return
    from fairseq_seqkd.evaluation.records import Bench, read

    if not isinstance(read(output), Bench):
        raise Refusal(
            f"{output} exists, and `seqkd bench` did not write it; name another file with -o"
        )


def parse_beams(text: str) -> List[int]:
    """Returns [1, 5] for "1,5".

    Raises:
        Refusal: it is something else.
    """
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words) or len(set(words)) != len(words):
        raise Refusal(
            f"--beams is {text!r}, it must be different positive numbers, separated by commas"
        )
    return [int(word) for word in words]
