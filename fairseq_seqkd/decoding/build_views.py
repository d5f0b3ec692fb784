"""The views of a finished decode: which hypotheses they take, which sentences they leave out."""

import logging
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, Optional

import numpy as np
from fairseq.data import LanguagePairDataset
from msgspec.structs import replace

from fairseq_seqkd.corpus import manifest, views
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.manifest import DecodeManifest, FilterCounts, ViewManifest
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection import choose, filters
from fairseq_seqkd.selection.filters import FILTERS, Limit

logger = logging.getLogger(__name__)

Rule = Callable[[Block], np.ndarray]  # returns the (sentences,) rank to take, -1 for none
TOO_LONG = "source_too_long"


class SentenceLists:
    """Lists of sentence ids by reason, collected block by block: four bytes per id."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self._ids: Dict[str, List[np.ndarray]] = {reason: [] for reason in reasons}

    def add(self, reason: str, ids: np.ndarray) -> None:
        """Adds sentences, in order."""
        self._ids[reason].append(ids.astype(np.uint32))

    @property
    def listed(self) -> Dict[str, np.ndarray]:
        """The ids of each reason, (sentences,) uint32."""
        empty = np.zeros(0, np.uint32)
        return {reason: np.concatenate([empty, *ids]) for reason, ids in self._ids.items()}

    @property
    def counts(self) -> Dict[str, int]:
        """The number of ids of each reason."""
        return {reason: sum(map(len, ids)) for reason, ids in self._ids.items()}


class ViewFilter:
    """The filters that are on, applied to the hypotheses that a view takes.

    Args:
        limits: of the filters that are on.
        gold: the split that was decoded.
        dataset: the same as fairseq's dataset, which has the dictionaries.
    """

    def __init__(
        self, limits: Mapping[str, Limit], gold: Split, dataset: LanguagePairDataset
    ) -> None:
        self.limits, self.sources = limits, gold.read(gold.languages.source)
        self.eos = dataset.src_dict.eos()
        self.same = filters.same_symbols(dataset.src_dict, dataset.tgt_dict)

    def failures(self, first: int, block: Block, ranks: np.ndarray) -> Dict[str, np.ndarray]:
        """Returns for each filter which sentences of a block fail it, (sentences,) bool.

        Args:
            first: the id of the block's first sentence.
            block: the n-best lists.
            ranks: (sentences,) the rank that the view takes of each list, -1 for none.
        """
        rows = (np.flatnonzero(ranks >= 0) + first).tolist()
        sources = [self._without_eos(np.asarray(self.sources[row])) for row in rows]
        return filters.failures(self.limits, block, ranks, filters.Ragged.of(sources), self.same)

    def _without_eos(self, ids: np.ndarray) -> np.ndarray:
        return ids[:-1] if len(ids) and ids[-1] == self.eos else ids


class ViewChoices:
    """What each view takes from a store, chosen in one pass over it.

    Args:
        store: the n-best lists.
        rules: how each view chooses.
        view_filter: drops sentences from the views; None without filters.

    Attributes:
        ranks: for each view the (sentences,) int32 rank of the hypothesis that is a sentence's
            target, or -1.
        remarks: what a user should know of the choice before filters. source_too_long: the
            sentence was not decoded. empty: seq_kd takes the empty hypothesis. hit_limit: the
            length limit ended the hypothesis that seq_kd takes, so it may be cut. The same of
            seq_inter is seq_inter_empty and seq_inter_hit_limit.
        failures: for each view the sentences that fail a filter. A sentence may fail several.
    """

    def __init__(
        self, store: NBestStore, rules: Dict[str, Rule], view_filter: Optional[ViewFilter] = None
    ) -> None:
        self.ranks = {view: np.full(len(store), -1, np.int32) for view in rules}
        kinds = [f"{prefix_of(view)}{kind}" for view in rules for kind in ("empty", "hit_limit")]
        self.remarks = SentenceLists([TOO_LONG, *kinds])
        names = view_filter.limits if view_filter else ()
        self.failures = {view: SentenceLists(names) for view in rules}
        for first, block in store.blocks():
            self.remarks.add(TOO_LONG, np.flatnonzero(block.counts == 0) + first)
            for view, rule in rules.items():
                ranks = rule(block)
                picked, ids = block.picked(ranks), np.flatnonzero(ranks >= 0) + first
                self.remarks.add(f"{prefix_of(view)}empty", ids[block.lengths[picked] == 0])
                self.remarks.add(f"{prefix_of(view)}hit_limit", ids[block.hit_limit[picked] > 0])
                if view_filter:
                    for name, fails in view_filter.failures(first, block, ranks).items():
                        self.failures[view].add(name, np.flatnonzero(fails) + first)
                        ranks = np.where(fails, -1, ranks)
                self.ranks[view][first : first + len(block)] = ranks


def prefix_of(view: str) -> str:
    """Returns the prefix of a view's remarks in the manifest."""
    return "" if view == manifest.SEQ_KD else f"{view}_"


def build_views(
    store: NBestStore,
    content: DecodeManifest,
    folder: Path,
    gold: Split,
    dataset: LanguagePairDataset,
) -> DecodeManifest:
    """Writes the views of a decode.

    A view without sentences is not written: fairseq cannot map a split without tokens.

    Args:
        store: the n-best lists.
        content: the manifest of the distilled directory.
        folder: the directory.
        gold: the split that was decoded.
        dataset: the same as fairseq's dataset.

    Returns:
        The manifest with views, counts and lists.

    Raises:
        Refusal: gold has changed since the directory was begun.
    """
    limits = content.settings.filters
    rules: Dict[str, Rule] = {manifest.SEQ_KD: choose.SELECTIONS[content.settings.select]}
    if store.has_similarity:
        rules[manifest.SEQ_INTER] = choose.nearest_to_gold
    try:
        choices = ViewChoices(store, rules, ViewFilter(limits, gold, dataset) if limits else None)
    except Exception:
        gold.check_unchanged(folder)  # the likely reason
        raise
    contents = [view_manifest(view, choices, content) for view in rules]
    built = [views.Choice(view, choices.ranks[view.view]) for view in contents if view.rows]
    views.build(folder, built, store, gold, dataset.tgt_dict.eos())
    for view in contents:
        for name, count in (view.filtered or {}).items():
            option = FILTERS[name].option(limits[name])
            logger.info("%s: %d sentences fail %s", folder / view.view, count, option)
        logger.info("%s: %d sentences, %d left out", folder / view.view, view.rows, view.left_out)
    for reason, count in choices.remarks.counts.items():
        if count:
            logger.warning("%d sentences: %s (listed in the manifest)", count, reason)
    filtered = {
        view: FilterCounts(failures.counts, failures.listed)
        for view, failures in choices.failures.items()
    }
    return replace(
        content,
        counts=choices.remarks.counts,
        listed=choices.remarks.listed,
        views=sorted(choice.manifest.view for choice in built),
        filtered=filtered if limits else None,
    )


def view_manifest(view: str, choices: ViewChoices, content: DecodeManifest) -> ViewManifest:
    """Returns the manifest of a view, given that of the distilled directory."""
    settings, ranks = content.settings, choices.ranks[view]
    rows = int((ranks >= 0).sum())
    return ViewManifest(
        view=view,
        version=content.version,
        signature=content.signature,
        split=settings.data.split,
        source_lang=settings.data.source_lang,
        target_lang=settings.data.target_lang,
        rows=rows,
        left_out=len(ranks) - rows,
        select=settings.select if view == manifest.SEQ_KD else None,
        filtered=choices.failures[view].counts if settings.filters else None,
    )


def refuse_empty_views(folder: Path) -> None:
    """Refuses a finished directory that lacks a view because no sentence is left for it."""
    content = manifest.read(folder)
    assert isinstance(content, DecodeManifest)
    names = [manifest.SEQ_KD]
    if content.settings.data.target_sha256:
        names.append(manifest.SEQ_INTER)
    empty = [view for view in names if view not in (content.views or [])]
    if not empty:
        return
    filtered = content.filtered[empty[0]].counts if content.filtered else {}
    reasons = [
        f"{count} fail {FILTERS[name].option(content.settings.filters[name])}"
        for name, count in sorted(filtered.items())
    ]
    too_long = (content.counts or {}).get(TOO_LONG)
    if too_long:
        reasons.append(f"{too_long} have a source that is too long")
    raise Refusal(
        f"{folder} has its hypotheses, but no view {' and '.join(empty)}: of {content.sentences} "
        f"sentences none was left ({', '.join(reasons)}); decode into another directory with other "
        "limits"
    )
