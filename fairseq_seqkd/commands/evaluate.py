"""``seqkd evaluate``: measure checkpoints on a split, and keep the results in a file."""

import argparse
import sys
from typing import TYPE_CHECKING, List

from fairseq_seqkd.commands.arguments import (
    CheckpointArgument,
    add_command,
    add_json_option,
    add_length_limit_options,
    check_output,
    parse_checkpoint,
)
from fairseq_seqkd.commands.console import BatchProgressBar, ProgressBar, print_result, quieten
from fairseq_seqkd.commands.text_options import EPILOG, TextOptions, add_text_options
from fairseq_seqkd.engines.length_limit import check_length_options
from fairseq_seqkd.errors import Problems

if TYPE_CHECKING:
    from fairseq_seqkd.evaluation.cache import Cache
    from fairseq_seqkd.evaluation.records import Comparison, Measurement
    from fairseq_seqkd.evaluation.systems import System


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd evaluate`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "evaluate",
        usage="seqkd evaluate CHECKPOINT [CHECKPOINT ...] --data DIR [options]",
        example="seqkd evaluate Teacher=teacher.pt Student@1=student.pt --data data-bin "
        "-o results.json",
        epilog=EPILOG,
        help="measure BLEU, chrF, perplexity, the mode's probability and speed",
        description="Measures checkpoints on every sentence of a split, with one length limit for "
        "all. Differences are tested with sacrebleu's paired bootstrap. Checkpoints of one name "
        "and several seeds are one row, with mean and standard deviation.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="checkpoint, as PATH, NAME=PATH or NAME@SEED=PATH (default name: that of its folder)",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="data-bin with the gold targets of the split"
    )
    parser.add_argument(
        "--split", default="test", help="split to measure on (default: %(default)s)"
    )
    parser.add_argument("--name", help="name of the row, for a single checkpoint")
    parser.add_argument(
        "--seed", type=int, help="seed of the training, at least 0, for a single checkpoint"
    )
    add_text_options(parser)
    add_length_limit_options(parser)
    parser.add_argument(
        "--cpu", action="store_true", help="use the CPU, even if there is a GPU (default: off)"
    )
    parser.add_argument(
        "--comet",
        metavar="MODEL",
        help="measure COMET, too, with a model of unbabel-comet: its name or its checkpoint file",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="directory of measurements and outputs, by content; what it holds is not measured "
        "again (default: fairseq_seqkd in $XDG_CACHE_HOME or ~/.cache)",
    )
    parser.add_argument(
        "--again", action="store_true", help="measure again what is in the cache (default: off)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="JSON file to write, or to continue if it exists"
    )
    add_json_option(parser, "results, pairs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measures what is not in the cache, compares all pairs, and prints the table."""
    problems = Problems()
    with problems.collect():
        requests = parse_requests(arguments)
    with problems.collect():
        check_output(arguments.output)
    with problems.collect():
        check_length_options(arguments.max_len_a, arguments.max_len_b)
    with problems.collect():
        decoders = TextOptions(arguments, "evaluate")
    problems.refuse()
    quieten()
    import msgspec

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.corpus.json_text import tree
    from fairseq_seqkd.evaluation import comet, measure, systems
    from fairseq_seqkd.evaluation.cache import Cache
    from fairseq_seqkd.evaluation.records import Identity
    from fairseq_seqkd.evaluation.results import Results
    from fairseq_seqkd.report import table1

    fairseq_seqkd.register()
    device = systems.choose_device(arguments.cpu)
    results, cache = Results(arguments.output), Cache(arguments.cache)
    options = systems.Options(
        arguments.split,
        arguments.max_len_a,
        arguments.max_len_b,
        decoders.post_process(arguments.post_process),
        decoders,
    )
    prepared = []
    for name, seed, path in requests:
        with problems.collect():
            identity = Identity(name, seed)
            system = systems.prepare(Checkpoint(path), arguments.data, options, identity)
            results.check(system.describe(device))
            prepared.append(system)
    problems.refuse()
    scorer = None
    if arguments.comet:
        scorer = comet.Scorer(arguments.comet, device, cache, prepared, arguments.again)
        results.check_scorer(scorer.signature)
    for number, system in enumerate(prepared, start=1):
        name, seed = system.identity
        label = f"[{number}/{len(prepared)}] {name if seed is None else f'{name} (seed {seed})'}"
        bar = BatchProgressBar(label)
        measurement, outputs = measure.measure_or_reuse(system, device, cache, arguments.again, bar)
        if scorer:
            scores = scorer.scores(system, outputs)
            measurement = msgspec.structs.replace(measurement, **tree(scores))
        print(f"{label}: {in_words(measurement)}", file=sys.stderr)
        results.add(measurement)
    results.compare(compare(results.evaluation.results, prepared[0], cache))
    evaluation = results.evaluation
    report = table1.make_report(evaluation.results, pairs=evaluation.pairs)
    notes = [note.markdown() for note in table1.explain_stars(report)]
    print_result(arguments, tree(evaluation), [table1.markdown_table(report.rows), *notes])


def in_words(measurement: "Measurement") -> str:
    """Describes a measurement in one line."""
    comet = measurement.comet_beam5
    return (
        f"BLEU {measurement.bleu_greedy:.2f} greedy, {measurement.bleu_beam5:.2f} beam 5"
        f"{'' if comet is None else f', COMET {comet:.4f} beam 5'}, perplexity "
        f"{measurement.ppl:.2f} ({measurement.sentences:,} sentences, measured on "
        f"{measurement.date})"
    )


def compare(
    measurements: "List[Measurement]", system: "System", cache: "Cache"
) -> "List[Comparison]":
    """Compares all measurements whose outputs are in the cache.

    Args:
        measurements: the results.
        system: one of the systems, for the references.
        cache: the outputs, and the comparisons that are known.
    """
    import contextlib

    import msgspec
    import sacrebleu

    from fairseq_seqkd.corpus.json_text import tree
    from fairseq_seqkd.evaluation import significance
    from fairseq_seqkd.evaluation.cache import key
    from fairseq_seqkd.evaluation.records import Comparison

    outputs = []
    for measurement in measurements:
        known = cache.get(key(measurement.facts))
        if known:
            sha256 = measurement.checkpoint_sha256
            outputs.append(significance.Outputs(measurement.identity, sha256, known["outputs"]))
    # By what was translated: a measurement that was made again may have other outputs.
    facts = {
        "pairs": [
            (*entry.identity, key(entry.texts), entry.checkpoint_sha256) for entry in outputs
        ],
        "data": system.data_sha256,
        "settings": tree(system.settings),
        "sacrebleu": sacrebleu.__version__,
        "seed": significance.bootstrap_seed(),
        "holds": Comparison.__struct_fields__,
    }
    name = key(facts)
    content = cache.get(name)
    if content:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(content["pairs"], List[Comparison])
    references, tokenizer = system.texts()[1], system.settings.bleu_tokenizer
    progress = ProgressBar("systems", "bootstrap tests")
    comparisons = significance.compare(outputs, references, tokenizer, progress)
    cache.put(name, {"pairs": tree(comparisons)})
    return comparisons


def parse_requests(arguments: argparse.Namespace) -> List[CheckpointArgument]:
    """Parses the CHECKPOINT arguments, --name and --seed.

    Raises:
        Refusal: two checkpoints have the same name and seed.
    """
    problems = Problems()
    single = arguments.name is not None or arguments.seed is not None
    problems.require(
        len(arguments.checkpoints) == 1 or not single,
        "--name and --seed are for a single checkpoint; with several, write NAME@SEED=PATH for "
        "each",
    )
    problems.require(
        arguments.seed is None or arguments.seed >= 0,
        f"--seed is {arguments.seed}, it must be at least 0",
    )
    requests: List[CheckpointArgument] = []
    for text in arguments.checkpoints:
        name, seed, path = parse_checkpoint(text)
        name = name if arguments.name is None else arguments.name
        seed = seed if arguments.seed is None else arguments.seed
        problems.require(
            all((name, seed) != (request.name, request.seed) for request in requests),
            f"two checkpoints are named {name}{'' if seed is None else f'@{seed}'}; tell them "
            "apart with NAME=PATH or NAME@SEED=PATH",
        )
        requests.append(CheckpointArgument(name, seed, path))
    problems.refuse()
    return requests
