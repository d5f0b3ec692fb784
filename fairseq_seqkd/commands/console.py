"""What subcommands print: results as text or JSON, bytes, and progress bars."""

import argparse
import json
import os
import sys
from typing import Any, Callable, Iterable, Iterator, List, Sequence, Union

from fairseq_seqkd.commands import arguments as _arguments
from fairseq_seqkd.errors import Refusal


def quieten() -> None:
    """Keeps the log messages and warnings of libraries out of a command's output.

    Call it before fairseq is imported, which sets up logging at the level INFO.
    """
    import logging
    import warnings

    logging.basicConfig(level=logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\b")


def print_result(
    arguments: argparse.Namespace, content: Any, text: Union[str, Iterable[str]]
) -> None:
    """Prints the result of a command.

    Args:
        arguments: the parsed command line; its `json` decides which form is printed.
        content: the result, as what `json.dumps` takes.
        text: the result in words: a string, or lines.
    """
    if arguments.json:
        print_text(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        print_text(text if isinstance(text, str) else "\n".join(text))


def print_text(text: str, end: str = "\n") -> bool:
    """Prints to standard output. Characters that the terminal lacks become question marks.

    Returns:
        False if nobody reads the output any more (`seqkd ... | head`).

    Raises:
        Refusal: the output cannot be written, e.g. because the disk is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    printable = text.encode(encoding, errors="replace").decode(encoding)
    return _write(lambda: print(printable, end=end, flush=True))


def print_bytes(content: bytes) -> bool:
    """Writes bytes to standard output; returns and raises as `print_text` does."""

    def write() -> None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    return _write(write)


def _write(write: Callable[[], None]) -> bool:
    try:
        write()
    except OSError as error:
        # Python flushes standard output once more when it exits: let that succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Refusal(f"standard output cannot be written: {error.strerror or error}") from None
        return False
    return True


class ProgressBar:
    """Shows a progress bar on a terminal while items are processed; prints nothing elsewhere.

    Example::

        for sentence in ProgressBar("sentences")(range(1000)):
            ...

    Args:
        unit: what is counted, e.g. "sentences".
        label: what the bar begins with.
    """

    def __init__(self, unit: str, label: str = "") -> None:
        self.unit = unit
        self.label = label

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        """Iterates over the items. The total is known if they have a length."""
        from tqdm import tqdm

        return iter(tqdm(items, desc=self.label, unit=f" {self.unit}", disable=None, leave=False))


class BatchProgressBar:
    """A progress bar that counts the sentences of batches.

    Args:
        label: what the bar begins with, e.g. "[1/3] Student".
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, batches: Sequence[List[Any]], action: str) -> Iterator[List[Any]]:
        """Iterates over batches, which are lists of sentences.

        Args:
            batches: the batches.
            action: what is done with them, e.g. "greedy".
        """
        from tqdm import tqdm

        bar = tqdm(
            total=sum(map(len, batches)),
            desc=f"{self.label}: {action}",
            unit=" sentences",
            disable=None,
            leave=False,
        )
        with bar:
            for batch in batches:
                yield batch
                bar.update(len(batch))


# The names of before, for modules that have not moved yet.
add_json = _arguments.add_json_option
add_limits = _arguments.add_length_limit_options
check_output = _arguments.check_output
parse_checkpoint = _arguments.parse_checkpoint
parse_models = _arguments.parse_models
say, put, put_bytes = print_result, print_text, print_bytes
progress_of_batches = BatchProgressBar
progress_of_tests = ProgressBar("systems", "bootstrap tests")
progress_of_corpora = ProgressBar("corpora", "statistics")
