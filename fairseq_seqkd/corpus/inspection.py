"""Checks a directory of a teacher's work, and reads its n-best lists (`seqkd inspect`)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus import array_files, manifest, views
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.json_text import dump, tree
from fairseq_seqkd.corpus.manifest import Manifest, ViewManifest, WorkManifest
from fairseq_seqkd.corpus.nbest import NBest
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.corpus.stores import check_store, store_class
from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor


class Parts(NamedTuple):
    """The progress of unfinished work, in parts."""

    done: int
    of: int


@dataclass
class Findings:
    """The content of a directory, and what is wrong with it."""

    folder: Path
    manifest: Manifest
    problems: List[str]
    views: Dict[str, "Findings"] = field(default_factory=dict)  # of a complete directory
    parts: Optional[Parts] = None  # of an unfinished one

    def as_json(self) -> Dict[str, Any]:
        """Returns the entries of the manifest, without its format, and the findings."""
        entries = {"folder": str(self.folder), **json.loads(dump(tree(self.manifest)))}
        entries.update(problems=self.problems)
        if self.parts is not None:
            entries["parts"] = self.parts._asdict()
        elif not isinstance(self.manifest, ViewManifest):
            entries["views"] = {name: view.as_json() for name, view in self.views.items()}
        return entries


def examine(folder: Union[str, Path]) -> Findings:
    """Reads every byte of a distilled directory, of stored distributions, or of a view.

    Raises:
        Refusal: the directory is none of these.
    """
    folder = Path(folder)
    content = manifest.read(folder)
    if content is None:
        raise Refusal(
            f"{folder} holds no teacher's work (it has no {manifest.NAME} of ours); name a "
            "--distill-dir, or a view in it"
        )
    if isinstance(content, ViewManifest):
        return Findings(folder, content, view_problems(folder, content))
    if not content.complete:
        return _examine_parts(folder, content)
    findings = Findings(folder, content, store_problems(folder, content))
    for name in getattr(content, "views", None) or []:
        if isinstance(manifest.read(folder / name), ViewManifest):
            findings.views[name] = examine(folder / name)
            findings.problems += findings.views[name].problems
        else:
            findings.problems.insert(0, f"the view {name} is missing")
    return findings


def _examine_parts(folder: Path, work: WorkManifest) -> Findings:
    committed = sorted((folder / "parts").glob("*.part"))
    damaged = [path for path in committed if not array_files.is_whole(path)]
    problems = [f"{path} is cut short; the next worker does it again" for path in damaged]
    parts = Parts(len(committed) - len(damaged), work.settings.batch_plan().parts)
    return Findings(folder, work, problems, parts=parts)


def store_problems(folder: Path, work: WorkManifest) -> List[str]:
    """Returns sentences that say what is wrong with the store of a complete directory."""
    problems = []
    try:
        store = store_class(work)(folder)
        store.check()
        expected = work.settings.stored_sentences
        if len(store) != expected:
            problems.append(f"it holds {len(store):,} sentences instead of {expected:,}")
        check_store(folder, work)
    except Refusal as error:
        problems.append(error.sentence)
    return problems


def view_problems(folder: Path, view: ViewManifest) -> List[str]:
    """Returns sentences that say which files of a view are not those that were written."""
    problems = []
    for name, facts in (view.files or {}).items():
        file = folder / Path(name).name
        if not file.is_file():
            problems.append(f"{file} is missing")
        elif file.stat().st_size != facts.bytes or sha256(file) != facts.sha256:
            problems.append(f"{file} is not the file that was written: its hash is another")
    return problems


def most_different(store: NBestStore, count: int) -> List[Tuple[int, float]]:
    """Returns the sentences whose 1-best is least similar to gold.

    Memory is that of one part and of `count` sentences.

    Returns:
        The sentence ids and the similarities, the least similar first, equals in order.

    Raises:
        Refusal: the split had no targets to compare with.
    """
    if not store.has_similarity:
        raise Refusal(
            f"{store.path} has no similarity to gold, because the split had no targets; choose "
            "sentences with --ids"
        )
    ids, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for first, block in store.blocks():
        listed = np.flatnonzero(block.counts)
        ids = np.concatenate([ids, first + listed])
        values = np.concatenate([values, np.asarray(block.similarity)[block.first[listed]]])
        order = np.argsort(values, kind="stable")[:count]
        ids, values = ids[order], values[order]
    return list(zip(ids.tolist(), values.tolist()))


class TextHypothesis(NamedTuple):
    """A hypothesis as text, for people and for JSON."""

    text: str
    score: float
    log_prob: float  # in nats
    similarity: Optional[float]  # to gold
    hit_limit: bool


def as_text(nbest: NBest, detokenise: Callable[[np.ndarray], str]) -> List[TextHypothesis]:
    """Returns an n-best list as text."""
    return [
        TextHypothesis(detokenise(h.tokens), h.score, h.log_prob, h.similarity, h.hit_limit)
        for h in nbest
    ]


class Sources:
    """The sources of a view by sentence id, although the view may have fewer rows.

    Args:
        folder: the view.
        view: its manifest.
    """

    def __init__(self, folder: Union[str, Path], view: ViewManifest) -> None:
        # Held here, because fairseq's dataset unmaps its file when it is collected.
        self.side = Split(folder, view.split, view.languages).read(view.languages.source)
        rows = Path(folder) / views.ROWS
        self.rows = np.load(rows, mmap_mode="r", allow_pickle=False) if rows.is_file() else None

    def __getitem__(self, sentence: int) -> "Optional[Tensor]":
        """Returns the token ids of a sentence, or None if the view leaves it out."""
        if self.rows is None:
            return self.side[sentence]
        row = int(np.searchsorted(self.rows, sentence))
        is_there = row < len(self.rows) and self.rows[row] == sentence
        return self.side[row] if is_there else None
