"""Files and folders that are complete or absent: written beside their place, synced, renamed."""

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO, Iterator, Union

from fairseq_seqkd.errors import Refusal

PARTIAL = ".partial"  # the ending of unfinished files, which may be removed at any time


@contextlib.contextmanager
def whole_file(path: Union[str, Path]) -> Iterator[BinaryIO]:
    """Opens a binary file for writing. It gets its name once the block ends without an error.

    Raises:
        Refusal: the file cannot be written.
    """
    path = Path(path)
    partial = _partial(path)
    with _refusing_errors(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Union[str, Path]) -> Iterator[Path]:
    """Yields a new folder, which replaces `path` once the block ends without an error.

    Raises:
        Refusal: the folder cannot be written.
    """
    path = Path(path)
    partial, replaced = _partial(path), _partial(path)
    with _refusing_errors(path):
        try:
            partial.mkdir(parents=True)
            yield partial
            for file in partial.iterdir():
                sync_file(file)
            sync_folder(partial)
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
            sync_folder(path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")


@contextlib.contextmanager
def _refusing_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"{path} cannot be written: {error.strerror or error}; what was finished before is safe"
        ) from error


def remove_partials(folder: Union[str, Path]) -> None:
    """Removes unfinished files of killed processes. The caller must be alone in the folder."""
    for leftover in Path(folder).glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def sync_file(path: Union[str, Path]) -> None:
    """Makes the content of a file durable."""
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Union[str, Path]) -> None:
    """Makes the renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
