"""`seqkd evaluate`: measures checkpoints on a split, and keeps the results in a file that can be continued.

seqkd evaluate Teacher=teacher.pt Student@1=work/student-1/checkpoint_last.pt --data data-bin -o results.json
"""

import argparse
import datetime
import sys

from fairseq_seqkd.commands.console import (
    add_json,
    add_limits,
    check_output,
    parse_checkpoint,
    progress_of_batches,
    progress_of_tests,
    quieten,
    say,
)
from fairseq_seqkd.commands.text_options import OF_DECODERS, Decoders, add_decoders
from fairseq_seqkd.errors import Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "evaluate",
        help="measure checkpoints: BLEU, chrF, perplexity, probability of the mode, speed",
        description="Measures checkpoints on every sentence of a split, with one length limit for all of them, and tests with "
        "sacrebleu's paired bootstrap whether they differ. Several seeds of a name are one row, with mean and deviation.",
        usage="seqkd evaluate CHECKPOINT [CHECKPOINT ...] --data DIR [options]",  # what is unknown here must not come first
        epilog=OF_DECODERS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file of fairseq-train; NAME=PATH or NAME@SEED=PATH names its row (default: the name of its folder)",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="data-bin with the gold targets of the split"
    )
    parser.add_argument(
        "--split", default="test", help="split to measure on (default: %(default)s)"
    )
    parser.add_argument("--name", help="name of the row, when a single checkpoint is given")
    parser.add_argument(
        "--seed", type=int, help="the seed it was trained with, when a single checkpoint is given"
    )
    add_decoders(parser)
    add_limits(parser)
    parser.add_argument(
        "--cpu", action="store_true", help="do not use a GPU, even where there is one"
    )
    parser.add_argument(
        "--comet",
        metavar="MODEL",
        help="measure COMET too: a model of unbabel-comet, by name, or the file of its checkpoint",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where measurements are kept, by content, with the outputs; what is there is not measured again (default: "
        "fairseq_seqkd in $XDG_CACHE_HOME or ~/.cache)",
    )
    parser.add_argument("--again", action="store_true", help="measure again what is in the cache")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="results as JSON; a file that is there is continued"
    )
    add_json(parser)


def run(arguments):
    """Measures every checkpoint that is not in the cache yet, compares all pairs, and prints them."""
    requests = parse_requests(arguments)
    check_output(arguments.output)
    decoders = Decoders(arguments, "evaluate")
    post_process = decoders.post_process(arguments.post_process)
    quieten()
    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.evaluation import comet, records, results, systems
    from fairseq_seqkd.evaluation.cache import Cache
    from fairseq_seqkd.report import table1 as table

    fairseq_seqkd.register()
    device = systems.choose_device(arguments.cpu)
    found, cache = results.Results(arguments.output), Cache(arguments.cache)
    cache.prepare()
    prepared = []
    for name, seed, path in requests:
        system = systems.prepare(
            Checkpoint(path),
            arguments.data,
            arguments.split,
            post_process,
            arguments.max_len_a,
            arguments.max_len_b,
            decoders,
        )
        found.check({"name": name, "seed": seed, **system.facts(device)})
        prepared.append((name, seed, system))
    scorer = arguments.comet and comet.Scorer(
        arguments.comet, device, cache, [s for *_, s in prepared], arguments.again
    )
    if scorer:
        found.check_scorer(scorer.signature)
    for i, (name, seed, system) in enumerate(prepared):
        label = f"[{i + 1}/{len(prepared)}] {name if seed is None else f'{name} (seed {seed})'}"
        show = progress_of_batches(label)
        measured = measured_or_known(system, device, cache, arguments.again, show)
        if scorer:
            measured |= scorer.scores(system, measured["outputs"])
        print(f"{label}: {in_words(measured)}", file=sys.stderr)
        measured = {key: value for key, value in measured.items() if key != "outputs"}
        found.add(
            {
                "name": name,
                "seed": seed,
                "checkpoint": system.path,
                **measured,
                **system.facts(device),
            }
        )
    found.compare(compare(found.all(), prepared[0][2], cache))
    content = records.decode(found.content())
    report = table.make_report(content.results, pairs=content.pairs)
    notes = [note.markdown() for note in table.explain_stars(report)]
    say(arguments, found.content(), [table.markdown_table(report.rows), *notes])


def measured_or_known(system, device, cache, again, show):
    """The measurements of a System with its outputs, from the cache or new."""
    from fairseq_seqkd.evaluation import systems
    from fairseq_seqkd.evaluation.cache import key
    from fairseq_seqkd.evaluation.measure import measure

    name = key(system.facts(device))
    known = None if again else cache.get(name)
    if known:
        return {**known, "distillation_signature": system.distillation_signature}
    measured = {**measure(system, device, show), "date": datetime.date.today().isoformat()}
    systems.check_unchanged(system)
    cache.put(name, measured)
    return measured


def in_words(measured):
    comet = f", COMET {measured['comet_beam5']:.4f} beam 5" if "comet_beam5" in measured else ""
    return (
        f"BLEU {measured['bleu_greedy']:.2f} greedy, {measured['bleu_beam5']:.2f} beam 5{comet}, perplexity "
        f"{measured['ppl']:.2f} ({measured['sentences']:,} sentences, measured on {measured['date']})"
    )


def compare(found, system, cache):
    """The bootstrap tests of all pairs of results whose outputs are known, from the cache or new."""
    import sacrebleu

    from fairseq_seqkd.evaluation import results, significance, systems
    from fairseq_seqkd.evaluation.cache import key

    known = [cache.get(key({fact: result.get(fact) for fact in systems.FACTS})) for result in found]
    compared = [
        (r["name"], r.get("seed"), content["outputs"], r["checkpoint_sha256"])
        for r, content in zip(found, known)
        if content
    ]
    # By what was translated: a measurement that was made again may have other outputs under the same name.
    facts = {
        "pairs": [
            (name, seed, key(outputs), checkpoint) for name, seed, outputs, checkpoint in compared
        ]
    }
    judged_by = {
        "data": system.data_sha256,
        "settings": system.settings,
        "sacrebleu": sacrebleu.__version__,
    }
    kept_as = key(
        {**facts, **judged_by, "seed": significance.seed_of_the_test(), "holds": results.PAIR}
    )
    content = cache.get(kept_as)
    if content is None:
        references = systems.texts(system)[1]
        content = {
            "pairs": significance.compare(
                compared, references, system.settings["bleu_tokenizer"], progress_of_tests
            )
        }
        cache.put(kept_as, content)
    return content["pairs"]


def parse_requests(arguments):
    """[(name, seed or None, path)] of the CHECKPOINT arguments. Raises Refusal for names that do not tell them apart."""
    if len(arguments.checkpoints) > 1 and (
        arguments.name is not None or arguments.seed is not None
    ):
        raise Refusal(
            "--name and --seed are for a single checkpoint; with several, write NAME@SEED=PATH for each"
        )
    if arguments.seed is not None and arguments.seed < 0:
        raise Refusal(f"--seed is {arguments.seed}, it must be a whole number from 0 on")
    requests = []
    for text in arguments.checkpoints:
        name, seed, path = parse_checkpoint(text)
        name = name if arguments.name is None else arguments.name
        seed = seed if arguments.seed is None else arguments.seed
        if (name, seed) in [request[:2] for request in requests]:
            raise Refusal(
                f"two checkpoints are named {name}{'' if seed is None else f'@{seed}'}; tell them apart with NAME=PATH or "
                "NAME@SEED=PATH"
            )
        requests.append((name, seed, path))
    return requests
