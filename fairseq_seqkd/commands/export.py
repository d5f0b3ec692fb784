"""`seqkd export`: a student as a folder that translates text without fairseq or torch.

seqkd export student.pt --to ctranslate2 --quantization int8 --sentencepiece-model spm.model -o student.ct2
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from fairseq_seqkd.commands.console import add_json, add_limits, check_output, quieten, say
from fairseq_seqkd.errors import Refusal

TYPES = (
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
)


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "export",
        help="a student as a folder that translates text without fairseq",
        description="Writes a folder that `seqkd translate` and CTranslate2 run: the model, the subword model and the settings. "
        "Before it appears, its translations are compared with fairseq's.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--to",
        choices=("ctranslate2",),
        default="ctranslate2",
        help="for which engine (default: %(default)s)",
    )
    parser.add_argument(
        "--quantization",
        choices=TYPES,
        default="float32",
        help="type of the weights (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data-bin with the dictionaries and the split (default: what it was trained on)",
    )
    parser.add_argument(
        "--split",
        default="valid",
        help="split whose sources are translated for comparison, unless --check names others (default: %(default)s)",
    )
    subwords = parser.add_mutually_exclusive_group()
    subwords.add_argument(
        "--sentencepiece-model", metavar="FILE", help="what cuts the source into pieces"
    )
    subwords.add_argument(
        "--bpe-codes",
        metavar="FILE",
        help="codes of subword-nmt, or of fastBPE; told apart by their first line",
    )
    subwords.add_argument(
        "--no-subwords",
        action="store_true",
        help="the text to translate will be cut into pieces already",
    )
    parser.add_argument(
        "--tokenizer",
        choices=("moses",),
        help="undo and do sacremoses' tokenisation around the pieces",
    )
    parser.add_argument(
        "--beam",
        type=int,
        default=1,
        metavar="K",
        help="beam of the folder (default: %(default)s, greedy)",
    )
    add_limits(parser)
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="compare on this text, a sentence a line, instead of the split",
    )
    parser.add_argument(
        "--check-sentences",
        type=int,
        default=200,
        metavar="N",
        help="how many are compared (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="default: the checkpoint's name, ending in .ctranslate2",
    )
    parser.add_argument("--force", action="store_true", help="replace a folder that is there")
    add_json(parser)


def run(arguments):
    """Writes the folder, and prints how its translations agree with fairseq's."""
    for name in ("beam", "check_sentences"):
        if getattr(arguments, name) < 1:
            raise Refusal(
                f"--{name.replace('_', '-')} is {getattr(arguments, name)}, it must be at least 1"
            )
    if not Path(arguments.checkpoint).name:
        raise Refusal(f"{arguments.checkpoint!r} is no checkpoint; name a file of fairseq-train")
    output = Path(
        arguments.output or Path(arguments.checkpoint).with_suffix(".ctranslate2")
    ).resolve()
    check_folder(output, arguments.force)
    lines = read_lines(arguments.check, arguments.check_sentences) if arguments.check else None
    quieten()
    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.deployment import export
    from fairseq_seqkd.engines.ctranslate2_support import check_installed
    from fairseq_seqkd.evaluation import systems

    fairseq_seqkd.register()
    check_installed("float32", on_gpu=False, instead="then export again")
    checkpoint = Checkpoint(arguments.checkpoint)
    data = arguments.data or trained_on(checkpoint)
    system = systems.prepare(
        checkpoint, data, arguments.split, None, arguments.max_len_a, arguments.max_len_b
    )
    options = text_options(arguments, system.source_join)
    agreement = export.export(
        system,
        arguments.quantization,
        output,
        options,
        arguments.beam,
        lines,
        arguments.check_sentences,
    )
    size = sum(file.stat().st_size for file in output.iterdir())
    say(
        arguments,
        {
            "output": str(output),
            "bytes": size,
            "quantization": arguments.quantization,
            **asdict(agreement),
        },
        f"{output}: {size:,} bytes, {arguments.quantization} | {agreement.same} of {agreement.sentences} greedy translations "
        f"are fairseq's, BLEU {agreement.bleu:.1f} against them; log-probabilities differ by {agreement.nats_a_token:.1g} nats a "
        "token",
    )


def check_folder(output, force):
    """Refuses to write where something else is: --force replaces what `seqkd export` made, and nothing more."""
    from fairseq_seqkd.deployment.config import FILE

    if not output.exists():
        check_output(output)
    elif not (output / FILE).is_file():
        raise Refusal(
            f"{output} is there already, and `seqkd export` did not make it; name another folder with -o"
        )
    elif not force:
        raise Refusal(
            f"{output} is there already; name another folder with -o, or replace it with --force"
        )


def read_lines(path, count):
    """The first lines of a text that are not empty. Raises Refusal where there are none."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = [
                line.rstrip("\r\n")
                for line, _ in zip((line for line in file if line.strip()), range(count))
            ]
    except OSError as error:
        raise Refusal(f"--check {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refusal(f"--check {path} is no UTF-8 text") from None
    if not lines:
        raise Refusal(f"--check {path} has no text")
    return lines


def trained_on(checkpoint):
    """The data-bin that a checkpoint was trained on, where it is still there."""
    path, folder = checkpoint.path, next(iter(checkpoint.data_folders), None)
    if folder is None:
        raise Refusal(
            f"{path} does not say on what data it was trained; name a data-bin with --data"
        )
    if not folder.is_dir():
        raise Refusal(
            f"the data that {path} was trained on are not at {folder} any more; name a data-bin with --data"
        )
    return str(folder)


def text_options(arguments, joined_by):
    """How text becomes pieces. Raises Refusal where the source dictionary's pieces want a model that was not named.

    Args: joined_by: of the source.
    """
    from fairseq_seqkd.deployment.config import FASTBPE, SENTENCEPIECE, SUBWORD_NMT

    options = {"tokenizer": arguments.tokenizer, "subwords": None, "subword_file": None}
    file = arguments.sentencepiece_model or arguments.bpe_codes
    if file:
        if not Path(file).is_file():
            raise Refusal(
                f"there is no {file}; name the model that the student's data were cut with"
            )
        with Path(file).open("rb") as codes:
            columns = len(codes.readline(1000).split(b" "))  # fastBPE: two pieces and their count
        options["subwords"] = (
            SENTENCEPIECE
            if arguments.sentencepiece_model
            else FASTBPE
            if columns == 3
            else SUBWORD_NMT
        )
        options["subword_file"] = file
    elif joined_by and not arguments.no_subwords:
        how = "--sentencepiece-model" if joined_by == SENTENCEPIECE else "--bpe-codes"
        raise Refusal(
            f"the student reads pieces of words: name with {how} the model that its data were cut with, or say --no-subwords "
            "if your text is cut already"
        )
    return options
