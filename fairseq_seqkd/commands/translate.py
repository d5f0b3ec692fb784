"""``seqkd translate``: translate lines of text with an exported student."""

import argparse
import sys
from typing import BinaryIO, Iterator, List

from fairseq_seqkd.commands.arguments import add_command, check_at_least_one
from fairseq_seqkd.commands.console import print_bytes

READ_SIZE = 1 << 17  # bytes: some thousand lines, enough to batch sentences of similar length


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd translate`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "translate",
        example="seqkd translate student.ct2 < input.de > output.en",
        help="translate lines of text with an exported student",
        description="Reads sentences from standard input, one per line, and writes their "
        "translations to standard output, one per line and in the same order. Neither fairseq nor "
        "torch is needed.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder written by `seqkd export`")
    parser.add_argument(
        "--beam",
        type=int,
        metavar="K",
        help="beam size, at least 1 (default: that given to `seqkd export`)",
    )
    parser.add_argument(
        "--lenpen",
        type=float,
        metavar="P",
        help="length penalty of beam search: > 1 favours longer, < 1 shorter translations "
        "(default: that of the folder)",
    )
    parser.add_argument(
        "--compute-type",
        default="default",
        metavar="T",
        help="type that CTranslate2 computes in, e.g. int8 (default: the type of the weights, or "
        "float32 where int8 overflows on this CPU)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="number of threads, at least 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="where to compute; 'auto' uses a GPU if there is one (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Translates until the input ends, or until nobody reads the output any more."""
    check_at_least_one(arguments, "--beam", "--threads")
    from fairseq_seqkd.deployment.translate import Translator

    translator = Translator(
        arguments.folder,
        arguments.beam,
        arguments.lenpen,
        compute_type=arguments.compute_type,
        threads=arguments.threads,
        device=arguments.device,
    )
    for lines in read_lines(sys.stdin.buffer):
        translations = translator.translate(lines)
        if not print_bytes("".join(f"{line}\n" for line in translations).encode()):
            break
    if translator.truncated:
        limit = translator.config.max_source_tokens
        print(
            f"{translator.truncated:,} lines were cut at {limit:,} tokens, the longest source that "
            "the model reads",
            file=sys.stderr,
        )


def read_lines(stream: BinaryIO) -> Iterator[List[str]]:
    """Yields lists of lines as soon as they arrive: a program may write a line and wait for it.

    Only a line feed ends a line. Bytes that are not UTF-8 become replacement characters.
    """
    incomplete = b""
    while content := stream.read1(READ_SIZE):  # type: ignore[attr-defined]
        incomplete += content
        if b"\n" in content:
            *lines, incomplete = incomplete.split(b"\n")
            yield [decode(line) for line in lines]
    if incomplete:
        yield [decode(incomplete)]


def decode(line: bytes) -> str:
    """Returns a line as text, without a carriage return at its end."""
    return line.rstrip(b"\r").decode("utf-8", errors="replace")
