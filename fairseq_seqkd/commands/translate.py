"""`seqkd translate`: lines of text through a deployed student.

seqkd translate student.ct2 < input.de > output.en
"""

import argparse
import sys

from fairseq_seqkd.commands.console import put_bytes
from fairseq_seqkd.errors import Refusal

AT_A_TIME = 1 << 17  # bytes: some thousand lines, enough to make batches of like lengths from


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "translate",
        help="translate lines of text with an exported student",
        description="Translates standard input, a sentence a line, with a folder that `seqkd export` made. Lines out are in the "
        "order of lines in, and as many.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="FOLDER", help="what `seqkd export` made")
    parser.add_argument(
        "--beam",
        type=int,
        metavar="K",
        help="beam (default: the folder's, as `seqkd export --beam` wrote it)",
    )
    parser.add_argument(
        "--lenpen",
        type=float,
        metavar="P",
        help="length penalty of a beam search (default: the folder's)",
    )
    parser.add_argument(
        "--compute-type",
        default="default",
        metavar="T",
        help="CTranslate2's (default: the weights', or float32 if int8 saturates here)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads (default: %(default)s)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default="cpu", help="default: %(default)s"
    )


def run(arguments):
    """Translates until the input ends. Returns 0, also where the reader of the output went away."""
    for name in ("beam", "threads"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise Refusal(f"--{name} is {getattr(arguments, name)}, it must be at least 1")
    if sys.stdin is None:
        raise Refusal("standard input is closed, and lines to translate come from there")
    from fairseq_seqkd.deployment.translate import Translator

    how = {
        "compute_type": arguments.compute_type,
        "threads": arguments.threads,
        "device": arguments.device,
    }
    translator = Translator(arguments.folder, arguments.beam, arguments.lenpen, **how)
    for chunk in lines_as_they_come(sys.stdin.buffer):
        if not put_bytes("".join(f"{line}\n" for line in translator.lines(chunk)).encode()):
            break
    if translator.cut:
        most = translator.folder.max_source_tokens
        print(
            f"{translator.cut:,} lines have more than {most:,} tokens, which the model reads: their ends are lost",
            file=sys.stderr,
        )


def lines_as_they_come(stream):
    """Yields lists of lines, as many as are there: who writes a line and waits gets its translation.

    Lines end with a line feed and nothing else; what is no UTF-8 is marked, and does not stop the others.
    """
    rest = bytearray()
    while content := stream.read1(AT_A_TIME):
        rest += content
        if b"\n" in content:
            *lines, rest = rest.split(b"\n")
            yield [line.rstrip(b"\r").decode("utf-8", errors="replace") for line in lines]
    if rest:
        yield [rest.rstrip(b"\r").decode("utf-8", errors="replace")]
