"""`seqkd evaluate`: measures checkpoints on a split, and keeps the results in a file that can be continued.

seqkd evaluate Teacher=teacher.pt Student@1=work/student-1/checkpoint_last.pt --data data-bin -o results.json
"""

import datetime
import sys
import time

from fairseq_seqkd.commands.shared import check_output, parse_checkpoint, quieten
from fairseq_seqkd.errors import Refusal


def add(commands):
    parser = commands.add_parser(
        "evaluate",
        help="measure checkpoints: BLEU, perplexity, probability of the mode, speed",
        description="Measures checkpoints on every sentence of a split, with one length limit for all of them.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file of fairseq-train; NAME=PATH or NAME@SEED=PATH names its row (default: the name of its folder)",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data-bin with the gold targets of the split")
    parser.add_argument("--split", default="test", help="split to measure on (default: %(default)s)")
    parser.add_argument("--name", help="name of the row, when a single checkpoint is given")
    parser.add_argument("--seed", type=int, help="the seed it was trained with, when a single checkpoint is given")
    parser.add_argument(
        "--post-process",
        metavar="P",
        help="how subwords are joined, as fairseq's --post-process; none: not at all (default: seen from the dictionary)",
    )
    parser.add_argument("--max-len-a", type=float, default=1.2, metavar="A", help="a search ends after A * source tokens + B")
    parser.add_argument("--max-len-b", type=int, default=10, metavar="B", help="tokens (defaults: A 1.2, B 10)")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU, even where there is one")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="results as JSON; a file that is there is continued, nothing is measured twice"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")


def run(arguments):
    """Measures every checkpoint that is not in the output file yet, and prints them all."""
    requests = parse_requests(arguments)
    check_output(arguments.output)
    quieten()
    import fairseq_seqkd
    from fairseq_seqkd.evaluation import results, systems, table

    fairseq_seqkd.register()
    device = systems.choose_device(arguments.cpu)
    known = results.Results(arguments.output)
    prepared = []
    for name, seed, path in requests:
        system = systems.prepare(
            path, arguments.data, arguments.split, arguments.post_process, arguments.max_len_a, arguments.max_len_b
        )
        known.check(system.facts(device))
        prepared.append((name, seed, system))
    for i, (name, seed, system) in enumerate(prepared):
        label = name if seed is None else f"{name} (seed {seed})"
        print(f"[{i + 1}/{len(prepared)}] {label}: ", end="", file=sys.stderr, flush=True)
        try:
            result = evaluate_one(name, seed, system, device, known)
        except BaseException:
            print(file=sys.stderr)  # ends the line, so that the sentence that follows stands alone
            raise
        known.add(result)
    if arguments.json:
        print(results.to_json(known.all()), end="")
    else:
        print(table.markdown_table(table.make_rows(known.all())))


def evaluate_one(name, seed, system, device, known):
    """A result: an earlier one of the same measurement, under this name, or a new one. Ends the progress line."""
    from fairseq_seqkd.evaluation.measure import measure

    facts = system.facts(device)
    earlier = known.known(facts)
    if earlier:
        print("already measured", file=sys.stderr)
        return {**earlier, "name": name, "seed": seed, "checkpoint": system.path}
    begun = time.monotonic()
    measured = measure(system, device)
    print(
        f"BLEU {measured['bleu_greedy']:.2f} greedy, {measured['bleu_beam5']:.2f} beam 5, perplexity {measured['ppl']:.2f} "
        f"({measured['sentences']:,} sentences, {time.monotonic() - begun:.0f} s)",
        file=sys.stderr,
    )
    today = datetime.date.today().isoformat()
    return {"name": name, "seed": seed, "checkpoint": system.path, **measured, **facts, "date": today}


def parse_requests(arguments):
    """[(name, seed or None, path)] of the CHECKPOINT arguments. Raises Refusal for names that do not tell them apart."""
    if len(arguments.checkpoints) > 1 and (arguments.name is not None or arguments.seed is not None):
        raise Refusal("--name and --seed are for a single checkpoint; with several, write NAME@SEED=PATH for each")
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
