"""What several subcommands do: keep libraries quiet, and look at output files before the work."""

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
        if path and Path(path).is_dir():
            raise Refusal(f"{path} is a directory; name a file")
        if path and not Path(path).absolute().parent.is_dir():
            raise Refusal(f"{path} cannot be written: its folder does not exist; make it first")
