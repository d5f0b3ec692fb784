"""A directory of a teacher's work: begun with one set of settings, filled part by part by any number of workers, finished.

manifest.json            settings; `complete` is false until everything is there
parts/000012.part        committed work; parts/000012.lock is held while somebody works on it
decoding.log             who worked when: the only file that differs between two runs

and, once all parts are there (they are then removed), after a search
hypotheses.safetensors   every n-best list
seq_kd/ seq_inter/       the views

or, after scoring given targets (--score-reference)
distributions.safetensors
"""

import contextlib
import datetime
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import ClassVar, Dict, Protocol, Sequence, Type, Union

from fairseq_seqkd.corpus import array_files, manifest
from fairseq_seqkd.corpus.atomic import remove_partials
from fairseq_seqkd.corpus.distribution_store import DistributionStore
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.version import __version__

logger = logging.getLogger(__name__)


class Store(Protocol):
    """A finished store, merged from the parts of a directory."""

    NAME: ClassVar[str]  # of the file
    path: Path

    def __init__(self, folder: Union[str, Path]) -> None:
        """Opens the store of a directory."""

    @staticmethod
    def merge(parts: Sequence[Path], out: Path) -> None:
        """Writes a store from parts, in order."""

    def __len__(self) -> int:
        """Returns the number of sentences."""


class PartBlock(Protocol):
    """The content of one part."""

    def write(self, path: Path) -> None:
        """Writes the part."""

    def __len__(self) -> int:
        """Returns the number of sentences."""


# By the kind of a directory.
STORES: Dict[str, Type[Store]] = {
    manifest.DISTILLED: NBestStore,
    manifest.DISTRIBUTIONS: DistributionStore,
}


class Distilled:
    """Claims, commits and completes the parts of one directory. Args: kind: manifest.DISTILLED or manifest.DISTRIBUTIONS."""

    def __init__(self, folder, settings, parts, kind=manifest.DISTILLED):
        self.folder, self.settings, self.parts, self.kind = Path(folder), settings, parts, kind
        self.store = STORES[kind]
        self.parts_folder = self.folder / "parts"
        self.complete = False

    @property
    def signature(self):
        return manifest.signature(self.settings, __version__)

    def look(self):
        """Refuses a directory that was begun with other settings, or that holds something else. Changes nothing."""
        found = manifest.read(self.folder)
        if found is None:
            self._refuse_foreign_files()
        else:
            self.complete = bool(found.get("complete"))
            self._compare(found)
        if self.complete:
            missing = [
                name
                for name in (self.store.NAME, *found.get("views", []))
                if not (self.folder / name).exists()
            ]
            if missing:
                raise Refusal(
                    f"{self.folder} says that it is complete, but {', '.join(missing)} is missing; restore it, or remove "
                    "the directory and run the command again"
                )

    def begin(self):
        """Creates the directory, or continues it; refuses what `look` refuses."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.look()
            with lock(self.folder / ".lock", wait=True):
                self.look()
                if manifest.read(self.folder) is None:
                    manifest.write(self.folder, self._manifest(complete=False))
                if not self.complete:
                    self.parts_folder.mkdir(exist_ok=True)
                for part in sorted(self.damaged()):
                    logger.warning(
                        "%s is damaged: it is removed, and decoded again", self.path(part)
                    )
                    self.path(part).unlink(missing_ok=True)
        except OSError as error:
            raise Refusal(
                f"--distill-dir {self.folder} cannot be used: {error.strerror or error}"
            ) from None

    def _manifest(self, **more):
        return {
            "kind": self.kind,
            "version": __version__,
            "signature": self.signature,
            "settings": self.settings,
            "sentences": self.settings["data"]["sentences"],
            **more,
        }

    def _refuse_foreign_files(self):
        # Names that begin with a dot may be those of another worker that begins at this moment.
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        if (
            any(not file.name.startswith(".") for file in files)
            and manifest.read(self.folder) is None
        ):
            raise Refusal(
                f"--distill-dir {self.folder} has files in it, but no {manifest.NAME}; name a new or empty one"
            )

    def note(self, text):
        """Adds a line to the log of who worked when; the only file here that may differ between two runs."""
        now = datetime.datetime.now().isoformat(timespec="seconds")
        try:
            with (self.folder / "decoding.log").open("a", encoding="utf-8") as log:
                log.write(f"{now} {socket.gethostname()} {os.getpid()} {text}\n")
        except OSError as error:
            logger.warning("%s/decoding.log cannot be written: %s", self.folder, error)

    def _compare(self, found):
        if found.get("kind") != self.kind:
            raise Refusal(
                f"--distill-dir {self.folder} holds something else ({found.get('kind')}); name another one"
            )
        changes = manifest.differences(
            {"version": found.get("version"), **(found.get("settings") or {})},
            {"version": __version__, **self.settings},
        )
        if changes:
            raise Refusal(
                f"--distill-dir {self.folder} was begun with other settings: {'; '.join(changes)}; "
                "use the same ones to continue it, or name a new directory"
                + (
                    ""
                    if self.done()
                    else " (no part of this one is finished: nothing is lost if you remove it)"
                )
            )

    def path(self, part):
        return self.parts_folder / f"{part:06d}.part"

    def done(self):
        """The parts that are committed."""
        if self.complete:
            return set(range(self.parts))
        return {int(file.stem) for file in self.parts_folder.glob("*.part") if file.stem.isdigit()}

    def damaged(self):
        """The parts that are committed but cut short, as a failing disk leaves them: their work is to be done again."""
        if self.complete:
            return set()
        return {part for part in self.done() if not array_files.is_whole(self.path(part))}

    @contextlib.contextmanager
    def claim(self, part):
        """Yields whether this process should do the part: nobody else is at it, and it is not there yet."""
        lock_path = self.parts_folder / f"{part:06d}.lock"
        if (
            self.path(part).exists() or not self.parts_folder.is_dir()
        ):  # without parts/, another worker has finished
            yield False
            return
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(lock(lock_path))
            except Refusal:
                if not self._finished_by_another():
                    raise
                held = False
            # Looked at again under the lock: another worker may have committed it in between.
            yield held and not self.path(part).exists()
            if held:
                lock_path.unlink(missing_ok=True)

    def commit(self, part, block):
        """Writes a part, whole or not at all."""
        try:
            block.write(self.path(part))
        except Refusal:
            if self._finished_by_another():
                return
            raise
        self.note(f"part {part} committed, {len(block)} sentences")

    def finish(self, build):
        """Makes the store, and what is made of it, and the manifest out of the parts, once all are there.

        Args: build: (store) -> what the manifest should say besides the settings; it may write views.
        Returns whether the directory is complete now; False where parts are still missing.
        """
        with lock(self.folder / ".lock", wait=True):
            if not self._finished_by_another():
                missing = set(range(self.parts)) - self.done()
                if missing:
                    return False
                try:
                    self._assemble(build)
                except Refusal:
                    # Where locks do not work another worker may have finished, and cleaned up, at the same time.
                    if not self._finished_by_another():
                        raise
            self.complete = True
            shutil.rmtree(self.parts_folder, ignore_errors=True)
        return True

    def _finished_by_another(self):
        found = manifest.read(self.folder)
        return bool(found and found.get("complete"))

    def _assemble(self, build):
        remove_partials(self.folder)
        self.store.merge(
            [self.path(part) for part in range(self.parts)], self.folder / self.store.NAME
        )
        store = self.store(self.folder)
        expected = self.settings["data"]["sentences"] - self.settings.get("scoring", {}).get(
            "too_long", 0
        )
        if len(store) != expected:
            raise Refusal(
                f"{self.folder} holds {len(store):,} sentences instead of {expected:,}; remove it and begin anew"
            )
        facts = {"bytes": store.path.stat().st_size, "sha256": sha256(store.path)}
        manifest.write(self.folder, self._manifest(**build(store), store=facts, complete=True))
        self.note("finished")


def check_disk_space(option, folder, needed):
    """Refuses to begin when the disk cannot hold a directory: parts, which are there already or not, and what they become.

    Args: option: by which the folder was named; needed: bytes of the parts.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    needed = 2 * int(needed) - sum(
        part.stat().st_size for part in Path(folder).glob("parts/*.part")
    )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise Refusal(
            f"the disk of {option} {folder} has {free / 1e6:,.0f} MB free, about {needed / 1e6:,.0f} MB are needed; "
            "free some space, lower --nbest or --topk, or name a directory elsewhere"
        )


def check_store(folder, found):
    """Refuses a store that is not, byte for byte, what the manifest of its folder says; older manifests say nothing of it."""
    path = Path(folder) / STORES[found["kind"]].NAME
    if "store" in found and sha256(path) != found["store"]["sha256"]:
        raise Refusal(
            f"{path} is damaged: its hash is not the manifest's; copy it again, or make the directory anew"
        )
