"""The interface of the two kinds of stores, and the kind that a directory holds."""

from pathlib import Path
from typing import ClassVar, Protocol, Sequence, Type, Union

from fairseq_seqkd.corpus.distribution_store import DistributionStore
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.manifest import DecodeManifest, WorkManifest
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.errors import Refusal


class Store(Protocol):
    """A finished store, merged from the parts of a directory."""

    NAME: ClassVar[str]  # of the file
    path: Path

    def __init__(self, folder: Union[str, Path]) -> None:
        """Opens the store of a directory."""

    @staticmethod
    def merge(parts: Sequence[Path], out: Path) -> None:
        """Writes a store from parts, in order."""

    def check(self) -> None:
        """Reads everything, and refuses damage."""

    def __len__(self) -> int:
        """Returns the number of sentences."""


class PartBlock(Protocol):
    """The content of one part."""

    def write(self, path: Path) -> None:
        """Writes the part."""

    def __len__(self) -> int:
        """Returns the number of sentences."""


def store_class(work: WorkManifest) -> Type[Store]:
    """Returns the class of the store that a directory has once it is complete."""
    return NBestStore if isinstance(work, DecodeManifest) else DistributionStore


def check_store(folder: Union[str, Path], work: WorkManifest) -> None:
    """Refuses a store whose hash is not the manifest's. Older manifests have no hash."""
    path = Path(folder) / store_class(work).NAME
    if work.store is not None and sha256(path) != work.store.sha256:
        raise Refusal(
            f"{path} is damaged: its hash is not the manifest's; copy it again, or make the "
            "directory anew"
        )
