"""What several subcommands do: keep libraries quiet, look at output files before the work, show how far they are."""

import os
import sys
import tempfile
from pathlib import Path

from fairseq_seqkd.errors import Refusal


def quieten():
    """Keeps the chatter of libraries out of the progress lines. It comes before fairseq, which sets up logging at INFO."""
    import logging
    import warnings

    logging.basicConfig(level=logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\b")


def check_output(*paths):
    """Refuses an output file that cannot be written, before any work is done for it."""
    for path in paths:
        if path is None:
            continue
        if not str(path):
            raise Refusal(
                "the name of an output file is empty, such as a script's variable that was never set; name a file"
            )
        if Path(path).is_dir():
            raise Refusal(f"{path} is a directory; name a file")
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise Refusal(f"{path} cannot be written: its folder does not exist; make it first")
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise Refusal(f"{path} cannot be written: {error.strerror or error}") from None


def parse_checkpoint(text):
    """(name, seed or None, path) of one CHECKPOINT: PATH, NAME=PATH or NAME@SEED=PATH. A file's own name may hold "="."""
    if "=" not in text or Path(text).exists():
        return Path(text).absolute().parent.name, None, text
    label, path = text.split("=", 1)
    name, _, seed = label.rpartition("@") if "@" in label else (label, "", None)
    if seed is not None:
        if not seed.isascii() or not seed.isdigit():
            raise Refusal(
                f"the seed in {text!r} is {seed!r}, it must be a whole number: NAME@SEED=PATH"
            )
        seed = int(seed)
    if not name or not path:
        raise Refusal(f"{text!r} is no checkpoint; write PATH, NAME=PATH or NAME@SEED=PATH")
    return name, seed, path


def parse_models(texts):
    """[(name, path)] of MODEL arguments, which are CHECKPOINTs without seeds."""
    models = {}
    for text in texts:
        name, seed, path = parse_checkpoint(text)
        name = name if seed is None else f"{name}@{seed}"
        if name in models:
            raise Refusal(f"two models are named {name}; tell them apart with NAME=PATH")
        models[name] = path
    return list(models.items())


def add_limits(parser):
    """Adds fairseq's limit of a translation's length, the same for every command that translates to compare."""
    parser.add_argument(
        "--max-len-a",
        type=float,
        default=1.2,
        metavar="A",
        help="a search ends after A * source tokens + B",
    )
    parser.add_argument(
        "--max-len-b", type=int, default=10, metavar="B", help="tokens (defaults: A 1.2, B 10)"
    )


def add_json(parser):
    parser.add_argument(
        "--json", action="store_true", help="print what is said, and more, as JSON for scripts"
    )


def say(arguments, content, text):
    """Prints a command's result: JSON of `content` with --json, else `text`, a string or several lines."""
    import json

    if arguments.json:
        put(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        put(text if isinstance(text, str) else "\n".join(text))


def put(text, end="\n"):
    """Prints to standard output, as `put_bytes` does; what a terminal has no letters for, such as ŷ, is a question mark there."""
    letters = sys.stdout.encoding or "utf-8"
    text = text.encode(letters, errors="replace").decode(letters)
    return _put(lambda: print(text, end=end, flush=True))


def put_bytes(content):
    """Writes to standard output, and returns whether anybody reads on: `head` has had enough. Raises Refusal where it is full."""
    return _put(lambda: (sys.stdout.buffer.write(content), sys.stdout.buffer.flush()))


def _put(write):
    try:
        write()
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nothing is left to flush at the end
        if not isinstance(error, BrokenPipeError):
            raise Refusal(f"standard output cannot be written: {error.strerror or error}") from None
        return False
    return True


def progress_of_batches(label):
    """(batches, what is done with them) -> the batches, lists of sentences; a terminal sees the rate and the time left."""
    from tqdm import tqdm

    def show(batches, what):
        total = sum(map(len, batches))
        with tqdm(
            total=total, desc=f"{label}: {what}", unit=" sentences", disable=None, leave=False
        ) as bar:
            for batch in batches:
                yield batch
                bar.update(len(batch))

    return show


def progress_of_tests(tests):
    """The same for bootstrap tests, a list."""
    return progress_of_list(tests, "bootstrap tests", " systems")


def progress_of_corpora(corpora):
    """The same for corpora whose statistics are counted, a list."""
    return progress_of_list(corpora, "statistics", " corpora")


def progress_of_list(things, what, unit):
    from tqdm import tqdm

    return tqdm(things, desc=what, unit=unit, disable=None, leave=False)
