"""``seqkd compress`` and ``seqkd restore``: a checkpoint as a small file, and back."""

import argparse
from pathlib import Path

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_output
from fairseq_seqkd.commands.console import print_result, quieten


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parsers of ``seqkd compress`` and ``seqkd restore`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "compress",
        example="seqkd compress pruned.pt -o student.compressed",
        help="store a pruned checkpoint as a small file",
        description="Compresses a checkpoint with lzma, without its optimizer state. Zeros take "
        "almost no space. `seqkd restore` turns the file into a checkpoint again, bit by bit "
        "unless --fp16 is given.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="checkpoint to read, e.g. from `seqkd prune`"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="round the weights to 16 bits, which takes less space (default: off)",
    )
    add_json_option(parser, "output, bytes, share (of the checkpoint), params, nonzero_params")
    parser.set_defaults(run=compress)

    parser = add_command(
        subcommands,
        "restore",
        example="seqkd restore student.compressed -o student.pt",
        help="restore the checkpoint from a file of `seqkd compress`",
        description="Writes the checkpoint that `seqkd compress` has stored, for fairseq to load.",
    )
    parser.add_argument("compressed", metavar="FILE", help="file written by `seqkd compress`")
    parser.add_argument(
        "-o", "--output", required=True, metavar="CHECKPOINT", help="checkpoint to write"
    )
    add_json_option(parser, "output, bytes")
    parser.set_defaults(run=restore)


def compress(arguments: argparse.Namespace) -> None:
    """Writes the compressed file, and prints its size."""
    check_output(arguments.output)
    quieten()
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.compression import compressed, pruning

    checkpoint = Checkpoint(arguments.checkpoint)
    compressed.compress(checkpoint.state, arguments.output, arguments.fp16)
    nonzero, params = pruning.count(checkpoint.weights)
    size = Path(arguments.output).stat().st_size
    share = size / Path(arguments.checkpoint).stat().st_size
    print_result(
        arguments,
        {
            "output": arguments.output,
            "bytes": size,
            "share": share,
            "params": params,
            "nonzero_params": nonzero,
        },
        text=f"{arguments.output}: {size:,} bytes, {share:.1%} of {arguments.checkpoint}; "
        f"of {params:,} parameters {nonzero:,} are not zero",
    )


def restore(arguments: argparse.Namespace) -> None:
    """Writes the checkpoint."""
    check_output(arguments.output)
    quieten()
    from fairseq_seqkd.compression import compressed

    compressed.restore(arguments.compressed, arguments.output)
    size = Path(arguments.output).stat().st_size
    print_result(
        arguments,
        {"output": arguments.output, "bytes": size},
        text=f"{arguments.output}: {size:,} bytes",
    )
