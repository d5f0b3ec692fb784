"""A directory of a teacher's work: begun with one set of settings, filled in parts, completed.

Any number of workers fill it, and the last one completes it. It holds::

    manifest.json            settings; `complete` is false until everything is there
    parts/000012.part        a committed part; parts/000012.lock is held while a worker is at it
    decoding.log             who worked when: the only file that differs between two runs

Once all parts are there, they are replaced by the results of a search, or of --score-reference::

    hypotheses.safetensors   every n-best list
    seq_kd/ seq_inter/       the views

    distributions.safetensors
"""

import contextlib
import datetime
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Callable, Iterator, Set, Union

from msgspec.structs import replace

from fairseq_seqkd.corpus import array_files, manifest
from fairseq_seqkd.corpus.atomic import remove_partials
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.corpus.manifest import FileFacts, Manifest, WorkManifest
from fairseq_seqkd.corpus.settings import AnySettings, differences
from fairseq_seqkd.corpus.stores import PartBlock, store_class
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.version import __version__

logger = logging.getLogger(__name__)


class Distilled:
    """Claims, commits and completes the parts of one directory.

    Args:
        folder: the --distill-dir.
        settings: the settings of the work; they decide what the directory will hold.
        parts: the number of parts.
    """

    def __init__(self, folder: Union[str, Path], settings: AnySettings, parts: int) -> None:
        self.folder, self.settings, self.parts = Path(folder), settings, parts
        self.manifest = manifest.begun(settings, __version__)  # while parts are missing
        self.store = store_class(self.manifest)
        self.parts_folder = self.folder / "parts"
        self.complete = False

    @property
    def signature(self) -> str:
        """One line that says how the work is done, see `settings.signature`."""
        return self.manifest.signature

    def check(self) -> None:
        """Checks that the directory is new, or was begun with these settings. Changes nothing.

        Raises:
            Refusal: the directory holds something else, or lacks files although it is complete.
        """
        present = manifest.read(self.folder)
        if present is None:
            self._refuse_foreign_files()
            return
        self._compare(present)
        self.complete = present.complete
        if self.complete:
            names = [self.store.NAME, *(getattr(present, "views", None) or [])]
            missing = [name for name in names if not (self.folder / name).exists()]
            if missing:
                raise Refusal(
                    f"{self.folder} says that it is complete, but {', '.join(missing)} is missing; "
                    "restore it, or remove the directory and run the command again"
                )

    def _refuse_foreign_files(self) -> None:
        # Names that begin with a dot may be those of another worker that begins at this moment.
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        foreign = any(not file.name.startswith(".") for file in files)
        if foreign and manifest.read(self.folder) is None:
            raise Refusal(
                f"--distill-dir {self.folder} has files in it, but no {manifest.NAME}; name a new "
                "or empty one"
            )

    def _compare(self, present: Manifest) -> None:
        if type(present) is not type(self.manifest):
            raise Refusal(
                f"--distill-dir {self.folder} holds something else ({manifest.kind(present)}); "
                "name another one"
            )
        changes = differences(
            {"version": present.version, **tree(present.settings)},
            {"version": __version__, **tree(self.settings)},
        )
        if changes:
            advice = "use the same ones to continue it, or name a new directory"
            if not present.complete and not self.done():
                advice += " (no part of this one is finished: nothing is lost if you remove it)"
            raise Refusal(
                f"--distill-dir {self.folder} was begun with other settings: "
                f"{'; '.join(changes)}; {advice}"
            )

    def begin(self) -> None:
        """Creates the directory, or continues it.

        Raises:
            Refusal: the directory cannot be written, or fails `check`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.check()
            with lock(self.folder / ".lock", wait=True):
                self.check()
                if manifest.read(self.folder) is None:
                    manifest.write(self.folder, self.manifest)
                if not self.complete:
                    self.parts_folder.mkdir(exist_ok=True)
                for part in sorted(self.damaged()):
                    logger.warning("%s is damaged; removed, to be done again", self.path(part))
                    self.path(part).unlink(missing_ok=True)
        except OSError as error:
            raise Refusal(
                f"--distill-dir {self.folder} cannot be used: {error.strerror or error}"
            ) from None

    def note(self, text: str) -> None:
        """Adds a line to decoding.log, which says who worked when."""
        now = datetime.datetime.now().isoformat(timespec="seconds")
        try:
            with (self.folder / "decoding.log").open("a", encoding="utf-8") as log:
                log.write(f"{now} {socket.gethostname()} {os.getpid()} {text}\n")
        except OSError as error:
            logger.warning("%s/decoding.log cannot be written: %s", self.folder, error)

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.parts_folder / f"{part:06d}.part"

    def done(self) -> Set[int]:
        """Returns the committed parts."""
        if self.complete:
            return set(range(self.parts))
        return {int(file.stem) for file in self.parts_folder.glob("*.part") if file.stem.isdigit()}

    def damaged(self) -> Set[int]:
        """Returns the committed parts whose files are cut short, e.g. by a failing disk."""
        if self.complete:
            return set()
        return {part for part in self.done() if not array_files.is_whole(self.path(part))}

    @contextlib.contextmanager
    def claim(self, part: int) -> Iterator[bool]:
        """Yields whether this process should do a part: no other worker is at it or has done it."""
        # Without the folder of the parts, another worker has completed the directory.
        if self.path(part).exists() or not self.parts_folder.is_dir():
            yield False
            return
        lock_path = self.parts_folder / f"{part:06d}.lock"
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(lock(lock_path))
            except Refusal:
                if not self._is_completed_by_another():
                    raise
                held = False
            # Checked again under the lock: another worker may have committed it in between.
            yield held and not self.path(part).exists()
            if held:
                lock_path.unlink(missing_ok=True)

    def commit(self, part: int, block: PartBlock) -> None:
        """Writes a part."""
        try:
            block.write(self.path(part))
        except Refusal:
            if self._is_completed_by_another():
                return
            raise
        self.note(f"part {part} committed, {len(block)} sentences")

    def finish(self, build: Callable[[Any, Any], WorkManifest]) -> bool:
        """Completes the directory if all parts are there.

        Args:
            build: given the store and the manifest of the complete directory, writes what is made
                from the store, and returns the manifest with its results.

        Returns:
            Whether the directory is complete.
        """
        with lock(self.folder / ".lock", wait=True):
            if not self._is_completed_by_another():
                if set(range(self.parts)) - self.done():
                    return False
                try:
                    self._assemble(build)
                except Refusal:
                    # On a file system without locks another worker may have completed the
                    # directory, and removed the parts, at the same time.
                    if not self._is_completed_by_another():
                        raise
            self.complete = True
            shutil.rmtree(self.parts_folder, ignore_errors=True)
        return True

    def _is_completed_by_another(self) -> bool:
        present = manifest.read(self.folder)
        return present is not None and present.complete

    def _assemble(self, build: Callable[[Any, Any], WorkManifest]) -> None:
        remove_partials(self.folder)
        parts = [self.path(part) for part in range(self.parts)]
        self.store.merge(parts, self.folder / self.store.NAME)
        store, expected = self.store(self.folder), self.settings.stored_sentences
        if len(store) != expected:
            raise Refusal(
                f"{self.folder} holds {len(store):,} sentences instead of {expected:,}; remove it "
                "and begin anew"
            )
        facts = FileFacts(store.path.stat().st_size, sha256(store.path))
        content = replace(self.manifest, complete=True, store=facts)
        manifest.write(self.folder, build(store, content))
        self.note("finished")


def check_disk_space(option: str, folder: Union[str, Path], parts_bytes: float) -> None:
    """Refuses to begin if the disk cannot hold the parts of a directory and its store.

    Args:
        option: the option that named the folder.
        folder: the directory. Its parts may exist already.
        parts_bytes: the estimated size of all parts.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    written = sum(part.stat().st_size for part in Path(folder).glob("parts/*.part"))
    needed, free = 2 * int(parts_bytes) - written, shutil.disk_usage(existing).free
    if free < needed:
        raise Refusal(
            f"the disk of {option} {folder} has {free / 1e6:,.0f} MB free, about "
            f"{needed / 1e6:,.0f} MB are needed; free some space, lower --nbest or --topk, or name "
            "a directory elsewhere"
        )
