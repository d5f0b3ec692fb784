"""`seqkd compress` and `seqkd restore`: a pruned checkpoint as a compact file, and back.

seqkd compress pruned.pt -o pruned.sparse
seqkd restore pruned.sparse -o pruned.pt
"""

import argparse
from pathlib import Path

from fairseq_seqkd.commands.console import add_json, check_output, quieten, say


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "compress",
        help="a pruned checkpoint as a compact file",
        description="Writes a checkpoint without its zeros, as a bitmap and the other values, and without its optimizer's "
        "state. `seqkd restore` brings it back, bit by bit.",
    )
    parser.set_defaults(run=compress)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    parser.add_argument(
        "--fp16", action="store_true", help="store values in 16 bits: half the size, and rounded"
    )
    add_json(parser)
    parser = subcommands.add_parser(
        "restore",
        help="the checkpoint that a compact file holds",
        description="Writes the stock checkpoint of which `seqkd compress` made a compact file.",
    )
    parser.set_defaults(run=restore)
    parser.add_argument("sparse", metavar="FILE")
    parser.add_argument("-o", "--output", required=True, metavar="CHECKPOINT")
    add_json(parser)


def compress(arguments):
    check_output(arguments.output)
    quieten()
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.compression import compressed as sparse
    from fairseq_seqkd.compression import pruning

    checkpoint = Checkpoint(arguments.checkpoint)
    sparse.compress(checkpoint.state, arguments.output, arguments.fp16)
    nonzero, total = pruning.count(checkpoint.weights)
    before, after = Path(arguments.checkpoint).stat().st_size, Path(arguments.output).stat().st_size
    say(
        arguments,
        {
            "output": arguments.output,
            "bytes": after,
            "share": after / before,
            "params": total,
            "nonzero_params": nonzero,
        },
        f"{arguments.output}: {after:,} bytes, {after / before:.1%} of {arguments.checkpoint}; of {total:,} parameters "
        f"{nonzero:,} are not zero",
    )


def restore(arguments):
    check_output(arguments.output)
    quieten()
    from fairseq_seqkd.checkpoint import write
    from fairseq_seqkd.compression import compressed as sparse

    write(arguments.output, sparse.restore(arguments.sparse))
    content = {"output": arguments.output, "bytes": Path(arguments.output).stat().st_size}
    say(arguments, content, f"{arguments.output} is written")
