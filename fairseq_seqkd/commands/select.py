"""`seqkd select`: the data-bins of a finished decode made anew, by another similarity, from shorter lists, with filters.

seqkd select distilled --data data-bin -o distilled.chrf --similarity chrf
"""

import argparse
from pathlib import Path

from fairseq_seqkd.commands.console import add_json, quieten, say
from fairseq_seqkd.errors import Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "select",
        usage="seqkd select DISTILLED --data DIR -o NEW [--nbest N] [--json] [OPTIONS OF teacher_decoding]",
        help="other views of the same translations, without decoding again",
        description="Takes the n-best lists of a finished decode and chooses from them anew. The new directory is, byte for "
        "byte, the one that decoding with these options would have left. Interrupted, the same command continues.",
        epilog="Options of teacher_decoding are spelled as for decoding, and have its defaults, not the values of that decode. "
        "They are --similarity, --similarity-tokenizer, --similarity-workers, --select, --filter-length-ratio, --filter-copy, "
        "--filter-repeats, --filter-score, --filter-empty; and how text is made: --post-process, --bpe, --tokenizer.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, fairseq_options=[])
    parser.add_argument(
        "distilled",
        metavar="DISTILLED",
        help="the --distill-dir of a finished decode; it is not changed",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="the data-bin that was decoded"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="NEW",
        help="directory for the lists and their views",
    )
    parser.add_argument(
        "--nbest",
        type=int,
        metavar="N",
        help="choose from the first N of each list only (default: all)",
    )
    add_json(parser)


def run(arguments):
    if Path(arguments.output).absolute() == Path(arguments.distilled).absolute():
        raise Refusal(f"-o {arguments.output} is the directory that is read; name a new one")
    quieten()
    import fairseq_seqkd

    fairseq_seqkd.register()
    from tqdm import tqdm

    from fairseq_seqkd.decoding.reselect import reselect

    made = reselect(
        arguments.distilled,
        arguments.data,
        arguments.output,
        arguments.nbest,
        arguments.fairseq_options,
        lambda parts: tqdm(parts, unit=" parts", disable=None, leave=False),
    )
    content = {
        "folder": arguments.output,
        "sentences": made.sentences,
        "views": made.views,
        "counts": made.counts,
        "signature": made.signature,
    }
    say(
        arguments,
        content,
        f"{arguments.output}: views {', '.join(made.views)} of {made.sentences:,} sentences | {made.signature}",
    )
