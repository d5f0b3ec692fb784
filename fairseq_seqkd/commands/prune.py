"""`seqkd prune`: sets the smallest weights of a checkpoint to zero.

seqkd prune student.pt --sparsity 0.8 -o pruned.pt
"""

import argparse

from fairseq_seqkd.commands.console import add_json, check_output, quieten, say
from fairseq_seqkd.errors import Refusal

SCHEMES = (
    "class-blind",
    "class-uniform",
    "class-distribution",
)  # as in pruning.py, which needs torch


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "prune",
        help="set the smallest weights of a checkpoint to zero",
        description="Magnitude pruning (See et al. 2016) of every matrix of a checkpoint, embeddings and output layer included; "
        "biases and layer norms are left alone, tied matrices are one. The result is a stock checkpoint without optimizer "
        "state. Retrain it with --finetune-from-model PRUNED --freeze-zeros.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--sparsity",
        type=float,
        required=True,
        metavar="SHARE",
        help="of the weights that become zero, as 0.8",
    )
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        default=SCHEMES[0],
        help="the smallest of all weights (class-blind, the default), of each matrix (class-uniform), or below one multiple of "
        "each matrix's standard deviation (class-distribution)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave matrices alone whose name matches, as '*embed*'",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the pruned checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print the table and write nothing")
    add_json(parser)


def run(arguments):
    """Prints a row for each matrix, and writes the pruned checkpoint."""
    if not 0 < arguments.sparsity < 1:
        raise Refusal(
            f"--sparsity is {arguments.sparsity}, it must lie between 0 and 1, such as 0.8"
        )
    if not arguments.output and not arguments.dry_run:
        raise Refusal(
            "-o FILE is missing: it says where the pruned checkpoint goes; or look with --dry-run"
        )
    check_output(arguments.output)
    quieten()
    from fairseq_seqkd.checkpoint import Checkpoint, write
    from fairseq_seqkd.compression import pruning

    checkpoint = Checkpoint(arguments.checkpoint)
    pruned, spared = pruning.classes(checkpoint.weights, arguments.exclude)
    pruning.choose(pruned, arguments.sparsity, arguments.scheme)
    result = pruning.apply(checkpoint.state, pruned)
    nonzero, total = pruning.count(result["model"])
    content = {
        "matrices": [*map(facts, pruned), *map(facts, spared)],
        "params": total,
        "nonzero_params": nonzero,
    }
    lines = [table(pruned, spared, nonzero, total)]
    if not arguments.dry_run:
        write(arguments.output, result)
        content["output"] = arguments.output
        lines.append(
            f"{arguments.output} is written; retrain it with --finetune-from-model {arguments.output} --freeze-zeros"
        )
    say(arguments, content, lines)


def facts(matrix):
    return {"names": matrix.names, "weights": matrix.weights.numel(), "zeros": matrix.zeros}


def table(pruned, spared, nonzero, total):
    """A line for each matrix: its names, weights, zeros and their share."""
    rows = [("matrix", "weights", "zeros", "share")]
    rows += [
        (
            ", ".join(c.names),
            f"{c.weights.numel():,}",
            f"{c.zeros:,}",
            f"{c.zeros / c.weights.numel():.1%}",
        )
        for c in pruned
    ]
    rows += [(", ".join(c.names), f"{c.weights.numel():,}", "left alone", "") for c in spared]
    weights, zeros = sum(c.weights.numel() for c in pruned), sum(c.zeros for c in pruned)
    rows.append(("together", f"{weights:,}", f"{zeros:,}", f"{zeros / weights:.1%}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    right = lambda row: [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]  # noqa: E731
    lines = ["  ".join([row[0].ljust(widths[0]), *right(row)]).rstrip() for row in rows]
    return "\n".join([*lines, f"of {total:,} parameters {nonzero:,} are not zero"])
