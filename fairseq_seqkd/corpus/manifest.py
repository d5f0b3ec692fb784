"""manifest.json: what a directory was made from, how, and whether it is complete.

A manifest holds nothing that differs between two runs of the same work: no time, host, rank or
number of restarts. Attributes are named like the keys on disk. Fields that are None by default are
absent until the directory is complete, or if they do not apply.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Dict, List, Optional, Union

import msgspec
import numpy as np
from msgspec import Meta, Struct

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.corpus.databin import LanguagePair
from fairseq_seqkd.corpus.json_text import dump, gather, tree
from fairseq_seqkd.corpus.settings import (
    AnySettings,
    Count,
    DecodeSettings,
    EngineSettings,
    ScoreSettings,
    SearchSettings,
    signature,
)
from fairseq_seqkd.errors import Refusal

NAME = "manifest.json"
FORMAT = "fairseq_seqkd/1"
DISTILLED, DISTRIBUTIONS, VIEW = "distilled", "distributions", "view"  # kinds of directories
SEQ_KD, SEQ_INTER = "seq_kd", "seq_inter"  # names of views

OPEN_SETTINGS = {"engine": EngineSettings, "search": SearchSettings}
ViewName = Annotated[str, Meta(pattern=f"^({SEQ_KD}|{SEQ_INTER})$")]
Ids = np.ndarray  # of sentences, (n,) integers


class FileFacts(Struct):
    """The content of a file."""

    bytes: Count
    sha256: str


class FilterCounts(Struct):
    """The sentences that fail each filter of a view."""

    counts: Dict[str, Count]
    listed: Dict[str, Ids]


class TokenCounts(Struct):
    """The number of scored tokens, and of sentences that were too long."""

    tokens: Count
    too_long: Count


class DecodeManifest(Struct, tag_field="kind", tag=DISTILLED, kw_only=True):
    """The manifest of a decode: n-best lists, and the views built from them."""

    version: Optional[str] = None
    signature: str
    settings: DecodeSettings
    sentences: Count
    complete: bool
    counts: Optional[Dict[str, Count]] = None  # of `listed`
    listed: Optional[Dict[str, Ids]] = None  # by reason
    views: Optional[List[ViewName]] = None
    filtered: Optional[Dict[str, FilterCounts]] = None  # by view
    store: Optional[FileFacts] = None


class DistributionsManifest(Struct, tag_field="kind", tag=DISTRIBUTIONS, kw_only=True):
    """The manifest of stored distributions."""

    version: Optional[str] = None
    signature: str
    settings: ScoreSettings
    sentences: Count
    complete: bool
    counts: Optional[TokenCounts] = None
    listed: Optional[Dict[str, Ids]] = None  # by reason
    mass: Optional[float] = None  # mean probability of the stored symbols
    store: Optional[FileFacts] = None


class ViewManifest(Struct, tag_field="kind", tag=VIEW, kw_only=True):
    """The manifest of a view: a data-bin that fairseq-train can read."""

    view: str
    version: Optional[str] = None
    signature: str
    split: str
    source_lang: str
    target_lang: str
    rows: Count
    left_out: Count  # sentences of the split that are no rows
    select: Optional[str] = None  # of seq_kd
    filtered: Optional[Dict[str, Count]] = None  # sentences that fail each filter
    complete: bool = False
    files: Optional[Dict[str, FileFacts]] = None

    @property
    def languages(self) -> LanguagePair:
        """The source language and the target language."""
        return LanguagePair(self.source_lang, self.target_lang)


WorkManifest = Union[DecodeManifest, DistributionsManifest]
Manifest = Union[DecodeManifest, DistributionsManifest, ViewManifest]


def kind(manifest: Manifest) -> str:
    """Returns what a directory is: "distilled", "distributions" or "view"."""
    return str(manifest.__struct_config__.tag)


def begun(settings: AnySettings, version: str) -> WorkManifest:
    """Returns the manifest of a directory in which parts are missing."""
    kind: Any = DecodeManifest if isinstance(settings, DecodeSettings) else DistributionsManifest
    return kind(
        version=version,
        signature=signature(settings, version),
        settings=settings,
        sentences=settings.data.sentences,
        complete=False,
    )


def read(folder: Union[str, Path]) -> Optional[Manifest]:
    """Reads the manifest of a folder.

    Returns:
        The manifest, or None if the folder has none.

    Raises:
        Refusal: the file cannot be read, or is no manifest of this format.
    """
    path = Path(folder) / NAME
    advice = "restore it or decode again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))  # fairseq's options may be infinite
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise Refusal(f"{path} is not a manifest of format {FORMAT}; {advice}")
        settings = content.get("settings")
        if isinstance(settings, dict):
            for key in OPEN_SETTINGS.keys() & settings.keys():
                settings[key] = gather(settings[key], OPEN_SETTINGS[key])
        return msgspec.convert(content, Manifest, dec_hook=_to_ids)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} cannot be read ({error}); {advice}") from None
    except (json.JSONDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise Refusal(f"{path} is damaged ({error}); {advice}") from None


def _to_ids(kind: type, content: Any) -> Ids:
    """Converts a list of ids for msgspec, which knows no NumPy arrays."""
    return np.array(msgspec.convert(content, List[Count]), np.int64)


def write(folder: Union[str, Path], manifest: Manifest) -> None:
    """Writes the manifest atomically, in one fixed form."""
    with whole_file(Path(folder) / NAME) as file:
        file.write((dump({"format": FORMAT, **tree(manifest)}) + "\n").encode())


def check_signature(folder: Union[str, Path], manifest: WorkManifest) -> None:
    """Refuses settings that do not match the signature."""
    if signature(manifest.settings, manifest.version) != manifest.signature:
        raise Refusal(
            f"{Path(folder) / NAME} is damaged (its signature is not its settings'); "
            "restore it or decode again"
        )
