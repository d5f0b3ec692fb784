"""Arguments and options that several subcommands share, their help texts and their checks."""

import argparse
import tempfile
import textwrap
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Union

from fairseq_seqkd.errors import Problems, Refusal


class CheckpointArgument(NamedTuple):
    """One CHECKPOINT of a command line.

    Attributes:
        name: the name of its row in tables.
        seed: the seed of its training, or None if the argument names none.
        path: the checkpoint file.
    """

    name: str
    seed: Optional[int]
    path: str


class ModelArgument(NamedTuple):
    """One MODEL of a command line: a checkpoint and the name of its row in tables."""

    name: str
    path: str


class HelpFormatter(argparse.HelpFormatter):
    """Wraps help texts between words only, and keeps paragraphs of several lines as they are."""

    def _split_lines(self, text: str, width: int) -> List[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph if "\n" in paragraph else "\n".join(self._split_lines(paragraph, width))
            for paragraph in text.split("\n\n")
        )


def add_command(
    subcommands: argparse._SubParsersAction, name: str, example: str, epilog: str = "", **texts: Any
) -> argparse.ArgumentParser:
    """Adds the parser of a subcommand, whose help text ends with an example.

    Args:
        subcommands: where subcommands are added.
        name: the name of the subcommand.
        example: one or more command lines, one a line.
        epilog: a paragraph before the example.
        texts: more arguments of `argparse.ArgumentParser`, e.g. help and description.
    """
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    paragraphs = [*([epilog] if epilog else []), f"Example:\n{lines}"]
    return subcommands.add_parser(
        name, epilog="\n\n".join(paragraphs), formatter_class=HelpFormatter, **texts
    )


def parse_checkpoint(text: str) -> CheckpointArgument:
    """Parses PATH, NAME=PATH or NAME@SEED=PATH. A path that exists may contain "=" itself.

    Raises:
        Refusal: the name, the path or the seed is missing, or the seed is not a whole number.
    """
    if "=" not in text or Path(text).exists():
        return CheckpointArgument(Path(text).absolute().parent.name, None, text)
    label, path = text.split("=", 1)
    name, at, digits = label.rpartition("@") if "@" in label else (label, "", "")
    if at and not digits.isdecimal():
        raise Refusal(
            f"the seed in {text!r} is {digits!r}, it must be a whole number >= 0: NAME@SEED=PATH"
        )
    if not name or not path:
        raise Refusal(f"{text!r} names no checkpoint; write PATH, NAME=PATH or NAME@SEED=PATH")
    return CheckpointArgument(name, int(digits) if at else None, path)


def parse_models(texts: Sequence[str]) -> List[ModelArgument]:
    """Parses the MODEL arguments of a command line, which are PATH or NAME=PATH.

    Raises:
        Refusal: an argument is not of this form, or two have the same name.
    """
    models: List[ModelArgument] = []
    for text in texts:
        checkpoint = parse_checkpoint(text)
        name = checkpoint.name
        if checkpoint.seed is not None:
            name = f"{name}@{checkpoint.seed}"
        if name in (model.name for model in models):
            raise Refusal(f"two models are named {name}; give them different names with NAME=PATH")
        models.append(ModelArgument(name, checkpoint.path))
    return models


def add_length_limit_options(parser: argparse.ArgumentParser) -> None:
    """Adds --max-len-a and --max-len-b, with the same defaults in every command that translates."""
    parser.add_argument(
        "--max-len-a",
        type=float,
        default=1.2,
        metavar="A",
        help="a translation has at most A * source tokens + B tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--max-len-b",
        type=int,
        default=10,
        metavar="B",
        help="see --max-len-a (default: %(default)s)",
    )


def add_json_option(parser: argparse.ArgumentParser, content: str = "") -> None:
    """Adds --json, which `console.print_result` obeys.

    Args:
        parser: the parser of a command.
        content: the keys that are printed.
    """
    keys = f": {content}" if content else ""
    parser.add_argument("--json", action="store_true", help=f"print the result as JSON{keys}")


def check_output(*paths: Union[str, Path, None]) -> None:
    """Checks that output files can be written, before any work is done for them.

    Args:
        paths: the files; None for an option that was not given.

    Raises:
        Refusal: a name is empty, names a directory, or lies in a directory that cannot be written.
    """
    problems, folders = Problems(), set()
    for path in paths:
        if path is None:
            continue
        folder = Path(path).absolute().parent
        with problems.collect():
            if not str(path):
                raise Refusal(
                    "the name of an output file is empty (an unset variable of a script?); name a "
                    "file"
                )
            if Path(path).is_dir():
                raise Refusal(f"{path} is a directory; name a file")
            if folder not in folders:
                folders.add(folder)
                _check_folder(folder, path)
    problems.refuse()


def _check_folder(folder: Path, path: Union[str, Path]) -> None:
    if not folder.is_dir():
        raise Refusal(f"{path} cannot be written: its folder does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror or error}") from None


def check_at_least_one(arguments: argparse.Namespace, *options: str) -> None:
    """Checks that options which count something are 1 or more.

    Args:
        arguments: the parsed command line.
        options: names of options, e.g. "--beam". An option that is None is not checked.

    Raises:
        Refusal: an option is 0 or less.
    """
    problems = Problems()
    for option in options:
        value = getattr(arguments, option.lstrip("-").replace("-", "_"))
        if value is not None and value < 1:
            problems.add(f"{option} is {value}, it must be at least 1")
    problems.refuse()
