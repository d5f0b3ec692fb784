"""Why a teacher's translations are easier to learn than gold.

Lengths, vocabulary, duplicates, and the complexity of Zhou, Gu and Neubig (ICLR 2020,
"Understanding Knowledge Distillation in Non-autoregressive Machine Translation", section 3):
C = 1/|V_x| * sum over source symbols x of H(y | x), where p(y | x) is counted over alignments of
single symbols. They align with fast_align; this module uses IBM Model 1 (Brown et al. 1993), over
subwords, in nats.
"""

import hashlib
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.views import ROWS
from fairseq_seqkd.report.records import CorpusStatistics

ITERATIONS = 5  # of EM
MOST_LINKS = 4_000_000  # source-target pairs to align: bounds memory and time
NULL = 0  # the source symbol of targets that nothing in the source explains
SentencePair = Tuple[np.ndarray, np.ndarray]  # source ids, target ids


def of_directory(gold: Split, folders: Dict[str, Path]) -> Dict[str, CorpusStatistics]:
    """Computes the statistics of several data-bins of one split.

    The same sentences are aligned in all of them, because the complexity depends on them.

    Args:
        gold: the split that was decoded.
        folders: the data-bins by name: gold's own, and views, which may lack rows.
    """
    splits = {name: Split(folder, gold.name, gold.languages) for name, folder in folders.items()}
    aligned = sample(*(gold.sizes(language).astype(np.int64) for language in gold.languages))
    rows = {
        name: np.load(split.folder / ROWS)
        for name, split in splits.items()
        if (split.folder / ROWS).is_file()
    }
    for kept in rows.values():
        aligned = aligned[np.isin(aligned, kept)]
    return {
        name: of_split(split, np.searchsorted(rows[name], aligned) if name in rows else aligned)
        for name, split in splits.items()
    }


def of_split(split: Split, aligned: np.ndarray) -> CorpusStatistics:
    """Computes the statistics of a split.

    Args:
        split: gold or a view.
        aligned: the rows to align.
    """
    source, target = (split.read(language) for language in split.languages)
    source_sizes, target_sizes = (np.asarray(side.sizes, np.int64) - 1 for side in (source, target))
    sentences = len(target)
    symbols, digests = set(), set()
    for i in range(sentences):
        row = np.asarray(target[i])[:-1]
        symbols.update(row.tolist())
        digests.add(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
    pairs = [(np.asarray(source[i])[:-1], np.asarray(target[i])[:-1]) for i in aligned.tolist()]
    return CorpusStatistics(
        sentences=sentences,
        tokens=float(target_sizes.mean()),
        ratio=float(target_sizes.sum() / max(source_sizes.sum(), 1)),
        vocabulary=len(symbols),
        duplicates=1 - len(digests) / sentences,
        complexity=complexity(pairs),
        aligned=len(pairs),
    )


def sample(source_sizes: np.ndarray, target_sizes: np.ndarray) -> np.ndarray:
    """Returns evenly spread sentence ids with about MOST_LINKS links. Sizes count EOS, as NULL."""
    count = float((source_sizes * target_sizes).sum())
    return np.arange(0, len(source_sizes), max(1, int(np.ceil(count / MOST_LINKS))))


def complexity(pairs: Sequence[SentencePair]) -> float:
    """Returns C in nats. Each target token is aligned to its most probable source symbol."""
    x, y, token = links(pairs)
    if not len(x):
        return 0.0
    width = int(y.max()) + 1
    kinds, kind = np.unique(x.astype(np.int64) * width + y, return_inverse=True)
    probability = expectation_maximisation(kinds // width, kind, token)
    best = best_links(probability[kind], token)
    counts = np.bincount(kind[best], minlength=len(kinds)).astype(float)
    return entropy(kinds // width, counts)


def links(pairs: Sequence[SentencePair]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all possible alignments.

    Returns:
        The source symbol, the target symbol and the target token of each, (links,). Source
        symbols begin at 1, after NULL.
    """
    empty = np.zeros(0, np.int64)
    xs: List[np.ndarray] = [empty]
    ys: List[np.ndarray] = [empty]
    tokens: List[np.ndarray] = [empty]
    first = 0
    for source, target in pairs:
        m, n = len(source) + 1, len(target)
        xs.append(np.tile(np.concatenate([[NULL], np.asarray(source, np.int64) + 1]), n))
        ys.append(np.repeat(np.asarray(target, np.int64), m))
        tokens.append(np.repeat(np.arange(first, first + n), m))
        first += n
    return np.concatenate(xs), np.concatenate(ys), np.concatenate(tokens)


def expectation_maximisation(
    source_of_kind: np.ndarray, kind: np.ndarray, token: np.ndarray
) -> np.ndarray:
    """Estimates t(y | x) of Model 1 from a uniform start.

    Args:
        source_of_kind: the source symbol x of each kind of link, a pair (x, y).
        kind: the kind of each link.
        token: the target token of each link.

    Returns:
        t of each kind.
    """
    tokens = int(token[-1]) + 1
    t = np.ones(len(source_of_kind))
    for _ in range(ITERATIONS):
        weights = t[kind]
        weights /= np.bincount(token, weights, tokens)[token]
        counts = np.bincount(kind, weights, len(t))
        t = counts / np.bincount(source_of_kind, counts)[source_of_kind]
    return t


def best_links(weights: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Returns the index of the heaviest link of each target token, the first of equals."""
    order = np.lexsort((-weights, token))  # stable: by token, the heaviest first
    return order[np.flatnonzero(np.diff(token[order], prepend=-1))]


def entropy(source_of_kind: np.ndarray, counts: np.ndarray) -> float:
    """Returns the mean entropy over source symbols, without NULL, of their aligned targets."""
    totals = np.bincount(source_of_kind, counts)
    share = counts / np.maximum(totals[source_of_kind], 1)
    terms = np.where(share > 0, -share * np.log(np.where(share > 0, share, 1)), 0)
    per_symbol = np.bincount(source_of_kind, terms)
    present = np.unique(source_of_kind)
    present = present[present != NULL]
    return float(per_symbol[present].mean()) if len(present) else 0.0
