"""``seqkd prune``: set the smallest weights of a checkpoint to zero."""

import argparse
from typing import TYPE_CHECKING, Any, Dict, List

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_output
from fairseq_seqkd.commands.console import print_result, quieten
from fairseq_seqkd.errors import Problems

if TYPE_CHECKING:
    from fairseq_seqkd.compression.pruning import Matrix

# As in compression/pruning.py, which needs torch.
SCHEMES = ("class-blind", "class-uniform", "class-distribution")


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd prune`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "prune",
        example="seqkd prune student.pt --sparsity 0.8 -o pruned.pt",
        help="set the smallest weights of a checkpoint to zero",
        description="Prunes the matrices of a checkpoint by magnitude (See et al. 2016), including "
        "embeddings and the output layer. Biases and layer norms are not pruned; tied matrices "
        "count once. Prints a table of the matrices. The pruned checkpoint has no optimizer state. "
        "Retrain it with fairseq-train --finetune-from-model PRUNED --freeze-zeros.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint to read")
    parser.add_argument(
        "--sparsity",
        type=float,
        required=True,
        metavar="SHARE",
        help="share of the weights to set to zero, between 0 and 1, e.g. 0.8",
    )
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        default=SCHEMES[0],
        help="which weights are the smallest: of all matrices (class-blind), of each matrix "
        "(class-uniform), or below one multiple of each matrix's standard deviation "
        "(class-distribution) (default: %(default)s)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="do not prune matrices whose name matches, e.g. '*embed*'; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="pruned checkpoint to write; required without --dry-run",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table and write nothing (default: off)"
    )
    add_json_option(
        parser, "matrices, a list of {names, weights, zeros}; params, nonzero_params, output"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the pruned checkpoint, and prints a row for each matrix."""
    problems = Problems()
    if not 0 < arguments.sparsity < 1:
        problems.add(f"--sparsity is {arguments.sparsity}, it must be between 0 and 1, e.g. 0.8")
    if not arguments.output and not arguments.dry_run:
        problems.add("-o FILE is missing; name the checkpoint to write, or pass --dry-run")
    with problems.collect():
        check_output(arguments.output)
    problems.refuse()
    quieten()
    from fairseq_seqkd.checkpoint import Checkpoint, write
    from fairseq_seqkd.compression import pruning

    checkpoint = Checkpoint(arguments.checkpoint)
    pruned, spared = pruning.matrices(checkpoint.weights, arguments.exclude)
    pruning.choose(pruned, arguments.sparsity, arguments.scheme)
    result = pruning.apply(checkpoint.state, pruned)
    nonzero, params = pruning.count(result["model"])
    content = {
        "matrices": [as_json(matrix) for matrix in (*pruned, *spared)],
        "params": params,
        "nonzero_params": nonzero,
    }
    lines = [table(pruned, spared), f"of {params:,} parameters {nonzero:,} are not zero"]
    if not arguments.dry_run:
        write(arguments.output, result)
        content["output"] = arguments.output
        lines.append(
            f"{arguments.output} is written; retrain it with --finetune-from-model "
            f"{arguments.output} --freeze-zeros"
        )
    print_result(arguments, content, lines)


def as_json(matrix: "Matrix") -> Dict[str, Any]:
    """Returns a matrix as `seqkd prune --json` prints it."""
    return {"names": matrix.names, "weights": matrix.weights.numel(), "zeros": matrix.zeros}


def table(pruned: "List[Matrix]", spared: "List[Matrix]") -> str:
    """Returns a table with the names, weights, zeros and sparsity of each matrix."""
    from tabulate import tabulate

    def row(names: str, weights: int, zeros: int) -> List[str]:
        return [names, f"{weights:,}", f"{zeros:,}", f"{zeros / weights:.1%}"]

    rows = [row(", ".join(m.names), m.weights.numel(), m.zeros) for m in pruned]
    rows += [[", ".join(m.names), f"{m.weights.numel():,}", "not pruned", ""] for m in spared]
    weights, zeros = sum(m.weights.numel() for m in pruned), sum(m.zeros for m in pruned)
    return tabulate(
        [*rows, row("all pruned", weights, zeros)],
        headers=("matrix", "weights", "zeros", "share"),
        colalign=("left", "right", "right", "right"),
        tablefmt="plain",
        disable_numparse=True,
    )
