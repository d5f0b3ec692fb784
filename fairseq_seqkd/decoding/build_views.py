"""The views of a finished decode: which hypothesis each takes, which sentences filters leave out, and what is said of it."""

import logging

import numpy as np
from msgspec.structs import replace

from fairseq_seqkd.corpus import manifest, views
from fairseq_seqkd.corpus.manifest import FilterCounts, ViewManifest
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection import choose, filters

logger = logging.getLogger(__name__)

TOO_LONG = "source_too_long"  # a reason in the manifest


def build_views(store, content, distilled, gold, dataset):
    """Writes the views of a decode; returns the manifest of the directory with counts and lists.

    A view in which nothing would be left is not written, since fairseq cannot map a split without a token.
    Args: store: NBestStore; content: the manifest; distilled: Distilled; gold: databin.Split; dataset: fairseq's dataset of
    that split.
    """
    settings = distilled.settings
    choosers = {manifest.SEQ_KD: choose.SELECTIONS[settings.select]}
    if store.has_similarity:
        choosers[manifest.SEQ_INTER] = choose.nearest_to_gold
    choices, filtered = [], {}
    for name, chooser in choosers.items():
        sieve = Sieve(settings.filters, gold, dataset) if settings.filters else None
        ranks = np.full(len(store), -1, np.int32)
        for first, block in store.blocks():
            chosen = chooser(block)
            ranks[first : first + len(block)] = sieve(first, block, chosen) if sieve else chosen
        if sieve:
            filtered[name] = sieve.audit()
            for rule, count in filtered[name].counts.items():
                option = filters.FILTERS[rule].option(settings.filters[rule])
                logger.info("%s: %d sentences fail %s", distilled.folder / name, count, option)
        rows = int((ranks >= 0).sum())
        view = ViewManifest(
            view=name,
            version=content.version,
            signature=content.signature,
            split=gold.name,
            source_lang=gold.languages.source,
            target_lang=gold.languages.target,
            rows=rows,
            left_out=len(store) - rows,
            select=settings.select if name == manifest.SEQ_KD else None,
            filtered=sieve.counts() if sieve else None,
        )
        if rows:
            choices.append(views.Choice(view, ranks))
    views.build(distilled.folder, choices, store, gold, dataset.tgt_dict.eos())
    for view, _ in choices:
        logger.info(
            "%s: %d sentences, %d left out", distilled.folder / view.view, view.rows, view.left_out
        )
    listed = audit(store, choosers)
    for reason, ids in listed.items():
        if len(ids):
            logger.warning("%d sentences: %s (listed in the manifest)", len(ids), reason)
    return replace(
        content,
        counts={reason: len(ids) for reason, ids in listed.items()},
        listed=listed,
        views=sorted(view.view for view, _ in choices),
        filtered=filtered or None,
    )


def refuse_empty_views(folder):
    """Says of a finished directory which view is not there because no sentence was left for it."""
    content = manifest.read(folder)
    wanted = [manifest.SEQ_KD] + (
        [manifest.SEQ_INTER] if content.settings.data.target_sha256 else []
    )
    empty = [name for name in wanted if name not in content.views]
    if not empty:
        return
    filtered = (content.filtered or {}).get(empty[0])
    why = [
        f"{count} fail {filters.FILTERS[rule].option(content.settings.filters[rule])}"
        for rule, count in sorted(filtered.counts.items() if filtered else ())
    ]
    too_long = content.counts.get(TOO_LONG)
    if too_long:
        why.append(f"{too_long} have a source that is too long")
    raise Refusal(
        f"{folder} has its hypotheses, but no view {' and '.join(empty)}: of {content.sentences} sentences none was left "
        f"({', '.join(why)}); decode into another directory with other limits"
    )


class Sieve:
    """Takes from a view the sentences that fail a filter, and remembers which, four bytes for each."""

    def __init__(self, settings, gold, dataset):
        self.settings, self.sources = settings, gold.read(gold.languages.source)
        self.eos = dataset.src_dict.eos()
        self.same = filters.same_symbols(dataset.src_dict, dataset.tgt_dict)
        self.failed = {rule: [] for rule in settings}

    def __call__(self, first, block, chosen):
        """The ranks `chosen` with -1 for sentences that fail. Args: first: id of the block's first sentence."""
        sources = (
            np.asarray(self.sources[int(row) + first]) for row in np.flatnonzero(chosen >= 0)
        )
        source = filters.Ragged.of(
            [ids[:-1] if len(ids) and ids[-1] == self.eos else ids for ids in sources]
        )
        failures = filters.failures(self.settings, block, chosen, source, self.same)
        for rule, failed in failures.items():
            self.failed[rule].append((np.flatnonzero(failed) + first).astype(np.uint32))
        return np.where(np.logical_or.reduce(list(failures.values())), -1, chosen)

    def counts(self):
        return {rule: sum(map(len, failed)) for rule, failed in self.failed.items()}

    def audit(self):
        """For the manifest: how many sentences fail each filter, and which; one that fails several is in each list."""
        empty = [np.zeros(0, np.uint32)]
        listed = {rule: np.concatenate(empty + ids) for rule, ids in self.failed.items()}
        return FilterCounts(self.counts(), listed)


def audit(store, choosers):
    """{reason: ids of sentences} of what a user should know about; none of these is dropped except the first.

    source_too_long: not decoded, in no view. empty: the hypothesis that seq_kd takes is the empty sentence. hit_limit: the length
    limit ended that hypothesis, so it may be cut. seq_inter_empty, seq_inter_hit_limit: the same of seq_inter, if there is one.
    Args: choosers: {view: Block -> (sentences,) rank of the hypothesis that it takes, -1 for none}.
    """
    listed = {TOO_LONG: []}
    for first, block in store.blocks():
        for view, chooser in choosers.items():
            chosen = chooser(block)
            picked, ids = (
                block.picked(chosen),
                (np.flatnonzero(chosen >= 0) + first).astype(np.uint32),
            )
            prefix = "" if view == manifest.SEQ_KD else f"{view}_"
            listed.setdefault(f"{prefix}empty", []).append(ids[block.lengths[picked] == 0])
            listed.setdefault(f"{prefix}hit_limit", []).append(ids[block.hit_limit[picked] > 0])
        listed[TOO_LONG].append((np.flatnonzero(block.counts == 0) + first).astype(np.uint32))
    return {
        reason: np.concatenate([np.zeros(0, np.uint32), *ids]) for reason, ids in listed.items()
    }
