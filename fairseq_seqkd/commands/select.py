"""``seqkd select``: rebuild the views of a finished decode with other selection options."""

import argparse
from pathlib import Path

from fairseq_seqkd.commands.arguments import add_command, add_json_option
from fairseq_seqkd.commands.console import ProgressBar, print_result, quieten
from fairseq_seqkd.errors import Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd select`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "select",
        usage="seqkd select DISTILLED --data DIR -o NEW [--nbest N] [--json] [selection options]",
        example="seqkd select distilled --data data-bin -o distilled.chrf --similarity chrf",
        epilog="Selection options are those of the task teacher_decoding: --similarity, "
        "--similarity-tokenizer, --similarity-workers, --select, --filter-length-ratio, "
        "--filter-copy, --filter-repeats, --filter-score, --filter-empty, --post-process, --bpe, "
        "--tokenizer. Their defaults are those of the task, not the values of the decode.",
        help="rebuild the views of a decode with other selection options",
        description="Selects from the n-best lists of a finished decode, without decoding again. A "
        "view is a distilled data set: seq_kd/ holds the teacher's 1-best, seq_inter/ the "
        "hypotheses most similar to the reference. The new directory is, byte for byte, the one "
        "that decoding with these options would have written. If interrupted, run the same "
        "command again to continue.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "distilled",
        metavar="DISTILLED",
        help="--distill-dir of a finished decode; it is not changed",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data-bin that was decoded")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="NEW",
        help="directory to write, with the n-best lists and the views",
    )
    parser.add_argument(
        "--nbest",
        type=int,
        metavar="N",
        help="keep only the N best hypotheses of each sentence, at least 1 (default: all)",
    )
    add_json_option(parser, "folder, sentences, views, counts, signature")
    parser.set_defaults(run=run, fairseq_options=[])


def run(arguments: argparse.Namespace) -> None:
    """Writes the new directory, and prints its views and its signature."""
    if Path(arguments.output).absolute() == Path(arguments.distilled).absolute():
        raise Refusal("-o and DISTILLED are the same directory; pass a new directory to -o")
    quieten()
    import fairseq_seqkd
    from fairseq_seqkd.decoding.reselect import reselect

    fairseq_seqkd.register()
    manifest = reselect(
        arguments.distilled,
        arguments.data,
        arguments.output,
        arguments.nbest,
        arguments.fairseq_options,
        ProgressBar("batches"),
    )
    views = manifest.views or []
    print_result(
        arguments,
        {
            "folder": arguments.output,
            "sentences": manifest.sentences,
            "views": views,
            "counts": manifest.counts,
            "signature": manifest.signature,
        },
        text=f"{arguments.output}: views {', '.join(views)} of {manifest.sentences:,} sentences "
        f"| {manifest.signature}",
    )
