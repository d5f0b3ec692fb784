"""``seqkd export``: export a student to a folder that translates text without fairseq or torch."""

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional

from fairseq_seqkd.commands.arguments import (
    add_command,
    add_json_option,
    add_length_limit_options,
    check_at_least_one,
    check_output,
)
from fairseq_seqkd.commands.console import print_result, quieten
from fairseq_seqkd.errors import Problems, Refusal

if TYPE_CHECKING:
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.deployment.config import SubwordKind

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
    """Adds the parser of ``seqkd export`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "export",
        example="seqkd export student.pt --quantization int8 --sentencepiece-model spm.model "
        "-o student.ct2",
        help="export a student to a folder that translates without fairseq",
        description="Writes a folder with a CTranslate2 model, the subword model and seqkd.json, "
        "for `seqkd translate`. Before the folder appears, its greedy translations and "
        "log-probabilities are compared with those of fairseq.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint of the student")
    parser.add_argument(
        "--to",
        choices=("ctranslate2",),
        default="ctranslate2",
        help="engine to export to (default: %(default)s)",
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
        help="data-bin with the dictionaries and the split (default: the student's training data)",
    )
    parser.add_argument(
        "--split",
        default="valid",
        help="split whose sources are compared, unless --check is given (default: %(default)s)",
    )
    add_text_arguments(parser)
    parser.add_argument(
        "--beam",
        type=int,
        default=1,
        metavar="K",
        help="beam size of `seqkd translate`, at least 1 (default: %(default)s, greedy)",
    )
    add_length_limit_options(parser)
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="source text to compare on, one sentence per line, instead of the split",
    )
    parser.add_argument(
        "--check-sentences",
        type=int,
        default=200,
        metavar="N",
        help="number of sentences to compare on, at least 1 (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="folder to write (default: the checkpoint's name, ending in .ctranslate2)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a folder of `seqkd export` (default: off)"
    )
    add_json_option(
        parser, "output, bytes, quantization, sentences, same, bleu, nats_a_token, worst"
    )
    parser.set_defaults(run=run)


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how text is segmented."""
    subwords = parser.add_mutually_exclusive_group()
    subwords.add_argument(
        "--sentencepiece-model",
        metavar="FILE",
        help="SentencePiece model that segments the source",
    )
    subwords.add_argument(
        "--bpe-codes",
        metavar="FILE",
        help="BPE codes that segment the source, of subword-nmt or fastBPE",
    )
    subwords.add_argument(
        "--no-subwords",
        action="store_true",
        help="expect text that is segmented already (default: off)",
    )
    parser.add_argument(
        "--tokenizer",
        choices=("moses",),
        help="tokenise the source and detokenise the translation with sacremoses (default: none)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder, and prints how its translations agree with those of fairseq."""
    output = check_arguments(arguments)
    lines = read_lines(arguments.check, arguments.check_sentences) if arguments.check else None
    quieten()
    import msgspec

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.deployment import export
    from fairseq_seqkd.engines.ctranslate2_support import check_installed
    from fairseq_seqkd.evaluation import systems

    fairseq_seqkd.register()
    check_installed("float32", on_gpu=False, instead="then export again")
    checkpoint = Checkpoint(arguments.checkpoint, role="student")
    data = arguments.data or training_data(checkpoint)
    limits = systems.Options(arguments.split, arguments.max_len_a, arguments.max_len_b)
    system = systems.prepare(checkpoint, data, limits)
    subwords = subword_model(arguments, system.sides[systems.SOURCE].post_process)
    options = export.ExportOptions(
        quantization=arguments.quantization,
        beam=arguments.beam,
        subwords=subwords.kind,
        subword_file=subwords.file,
        tokenizer=arguments.tokenizer,
        check_lines=lines,
        check_sentences=arguments.check_sentences,
    )
    agreement = export.export(system, output, options)
    size = sum(file.stat().st_size for file in output.iterdir())
    print_result(
        arguments,
        {
            "output": str(output),
            "bytes": size,
            "quantization": arguments.quantization,
            **msgspec.to_builtins(agreement),
        },
        text=f"{output}: {size:,} bytes, {arguments.quantization} | {agreement.same} of "
        f"{agreement.sentences} greedy translations are fairseq's, BLEU {agreement.bleu:.1f} "
        f"against them; log-probabilities differ by {agreement.nats_per_token:.1g} nats per token",
    )


def check_arguments(arguments: argparse.Namespace) -> Path:
    """Checks the command line, and returns the folder to write.

    Raises:
        Refusal: a number is too small, a file does not exist, or the folder cannot be written.
    """
    problems = Problems()
    with problems.collect():
        check_at_least_one(arguments, "--beam", "--check-sentences")
    file = arguments.sentencepiece_model or arguments.bpe_codes
    if file and not Path(file).is_file():
        problems.add(f"there is no {file}; name the subword model of the student's data")
    checkpoint = Path(arguments.checkpoint)
    if not checkpoint.name:
        problems.add(f"{arguments.checkpoint!r} names no checkpoint; name a file of fairseq-train")
        checkpoint = Path("checkpoint")
    output = Path(arguments.output or checkpoint.with_suffix(".ctranslate2")).resolve()
    with problems.collect():
        check_folder(output, arguments.force)
    problems.refuse()
    return output


def check_folder(output: Path, force: bool) -> None:
    """Checks that a folder may be written.

    Raises:
        Refusal: there is a folder that `seqkd export` did not write, or that --force should
            replace; or the folder cannot be written.
    """
    if not output.exists():
        check_output(output)
    elif not (output / "seqkd.json").is_file():
        raise Refusal(
            f"{output} exists, and `seqkd export` did not write it; name another folder with -o"
        )
    elif not force:
        raise Refusal(
            f"{output} exists; name another folder with -o, or pass --force to replace it"
        )


def read_lines(path: str, count: int) -> List[str]:
    """Returns the first lines of a text file that are not empty.

    Raises:
        Refusal: the file cannot be read, is not UTF-8, or has no text.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = list(islice((line.rstrip("\r\n") for line in file if line.strip()), count))
    except OSError as error:
        raise Refusal(f"--check {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refusal(f"--check {path} is not UTF-8 text; convert it") from None
    if not lines:
        raise Refusal(f"--check {path} has no text; name a file of source sentences")
    return lines


def training_data(checkpoint: "Checkpoint") -> str:
    """Returns the data-bin that a checkpoint was trained on.

    Raises:
        Refusal: the checkpoint does not name it, or it does not exist any more.
    """
    folder, path = next(iter(checkpoint.data_folders), None), checkpoint.path
    if folder is None:
        raise Refusal(f"{path} does not name its training data; name a data-bin with --data")
    if not folder.is_dir():
        raise Refusal(
            f"the training data of {path} are not at {folder} any more; name a data-bin with --data"
        )
    return str(folder)


class SubwordModel(NamedTuple):
    """The subword model of a student: its kind and file, or None if text is segmented already."""

    kind: "Optional[SubwordKind]"
    file: Optional[Path]


def subword_model(arguments: argparse.Namespace, post_process: Optional[str]) -> SubwordModel:
    """Returns the subword model that the command line names.

    Args:
        arguments: the parsed command line.
        post_process: how the subwords of the source are joined; None if it has no subwords.

    Raises:
        Refusal: the source has subwords, and no model was named.
    """
    from fairseq_seqkd.deployment.subwords import SENTENCEPIECE, kind_of_codes

    if arguments.sentencepiece_model:
        return SubwordModel(SENTENCEPIECE, Path(arguments.sentencepiece_model))
    if arguments.bpe_codes:
        return SubwordModel(kind_of_codes(Path(arguments.bpe_codes)), Path(arguments.bpe_codes))
    if post_process and not arguments.no_subwords:
        is_sentencepiece = post_process == SENTENCEPIECE
        option = "--sentencepiece-model" if is_sentencepiece else "--bpe-codes"
        raise Refusal(
            f"the student reads subwords: name with {option} the model that its data were "
            "segmented with, or pass --no-subwords if your text is segmented already"
        )
    return SubwordModel(None, None)
