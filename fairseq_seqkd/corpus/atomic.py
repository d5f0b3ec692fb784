"""Files that are whole or absent: written beside, synced, renamed. And hashes, and locks that die with their owner."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from pathlib import Path

from fairseq_seqkd.errors import Refusal

PARTIAL = ".partial"  # the ending of everything that is not finished; such files may be removed at any time


@contextlib.contextmanager
def whole_file(path):
    """Opens a binary file that appears under its name, complete and on disk, when the block ends without an error."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise Refusal(
            f"{path} cannot be written: {error.strerror or error}; what was finished before is safe"
        ) from error
    finally:
        if beside.exists():
            beside.unlink()


@contextlib.contextmanager
def whole_folder(path):
    """Yields a new folder that takes the place of `path` when the block ends without an error."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        beside.mkdir(parents=True)
        yield beside
        for file in beside.iterdir():
            sync_file(file)
        sync_folder(beside)
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        if path.exists():
            path.rename(old)
        beside.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise Refusal(
            f"{path} cannot be written: {error.strerror or error}; what was finished before is safe"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_partials(folder):
    """Removes what killed processes left half-written. Only for whoever is alone in the folder."""
    for leftover in Path(folder).glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def sync_file(path):
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path):
    """Makes a rename in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(*paths):
    """One hash over the contents of files, in order, read in blocks."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(path, wait=False):
    """Yields whether this process holds the lock. The kernel lets go of it when the process ends, however it ends.

    On a file system without locks everybody gets it: work is then done twice, with the same bytes, and nothing breaks.
    Args: path: a file, which is made where it is not there, or a folder.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY if Path(path).is_dir() else os.O_RDWR | os.O_CREAT, 0o644
        )
    except OSError as error:
        raise Refusal(
            f"{path} cannot be made: {error.strerror or error}; what was finished before is safe"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            # EBADF: over NFS what is open for reading only, such as a folder, has no exclusive locks.
            if error.errno not in (
                errno.ENOLCK,
                errno.ENOTSUP,
                errno.ENOSYS,
                errno.EINVAL,
                errno.EBADF,
            ):
                raise
            held = True
        yield held
    finally:
        os.close(descriptor)
