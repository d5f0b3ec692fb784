"""Counts what a process writes below a folder, and lets one of the writes fail as on a bad disk."""

import atexit
import builtins
import errno
import io
import os
from pathlib import Path
from typing import Any, Iterator, Optional, Union


class FailingWrites:
    """The writes of this process to files below a folder.

    Args:
        folder: the folder.
        fail: the write that fails, from 1; None: no one does.
        count_file: where the number of writes is put when the process ends.
    """

    def __init__(
        self, folder: Union[str, Path], fail: Optional[int], count_file: Union[str, Path]
    ) -> None:
        self.folder, self.fail, self.count = str(folder), fail, 0
        atexit.register(lambda: Path(count_file).write_text(str(self.count)))

    def step(self) -> None:
        """Counts a write, and fails if its turn has come."""
        self.count += 1
        if self.count == self.fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def install(self) -> "FailingWrites":
        """Replaces open() and os.sendfile() of this process."""
        open_file, sendfile = io.open, os.sendfile

        def counting_open(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            opened = open_file(file, mode, *args, **more)
            writes = not isinstance(file, int) and set(mode) & set("wax+")
            return (
                CountedFile(opened, self)
                if writes and str(file).startswith(self.folder)
                else opened
            )

        def counting_sendfile(*args: Any) -> int:
            self.step()
            return sendfile(*args)

        io.open = builtins.open = counting_open  # type: ignore[assignment]
        os.sendfile = counting_sendfile  # type: ignore[assignment]
        return self


class CountedFile:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, writes: FailingWrites) -> None:
        self._file, self._writes = file, writes

    def write(self, content: Any) -> int:
        self._writes.step()
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "CountedFile":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)
