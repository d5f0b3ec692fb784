"""Locks between processes: the kernel releases them when their owner ends, however it ends."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Iterator, Union

from fairseq_seqkd.errors import Refusal

# What flock raises on a file system without locks. EBADF: over NFS a file that is open for reading
# only, such as a folder, has no exclusive locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


@contextlib.contextmanager
def lock(path: Union[str, Path], wait: bool = False) -> Iterator[bool]:
    """Locks a file or folder, and yields whether this process holds the lock.

    On a file system without locks every process gets it. Work is then done twice, with the same
    bytes.

    Args:
        path: a folder, or a file, which is created if it does not exist.
        wait: whether to wait until the lock is free.

    Raises:
        Refusal: the file cannot be created.
    """
    try:
        flags = os.O_RDONLY if Path(path).is_dir() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        raise Refusal(
            f"{path} cannot be made: {error.strerror or error}; what was finished before is safe"
        ) from error
    try:
        yield _acquire(descriptor, wait)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
