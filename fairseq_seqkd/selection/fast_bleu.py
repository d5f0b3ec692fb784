"""Sentence BLEU of many texts: sacrebleu's tokenizers and formula, with n-grams counted here.

sacrebleu counts the n-grams of both sides again for every pair. Here a text is tokenised once, its
n-grams are looked up, and equal counts are scored once. The scores equal sacrebleu's to the last
bit, since its own `compute_bleu` makes them from the same integers. `Similarity` uses this.
"""

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Dict, Hashable, Iterable, List, NamedTuple, Sequence, Set, Tuple

import numpy as np

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

ORDERS = 4
CACHED_SCORES = 1 << 16  # some 20 MB when full

Tokens = Tuple[str, ...]
NGram = Tuple[str, ...]


class ReferenceNGrams(NamedTuple):
    """The n-grams of one order of a reference."""

    distinct: Set[NGram]
    repeated: Dict[NGram, int]  # the counts of those that occur more than once: often none


class SentenceBLEU:
    """BLEU of texts against a reference, or against each other.

    Args:
        scorer: sacrebleu's BLEU, of order four.
    """

    def __init__(self, scorer: "BLEU") -> None:
        self.scorer = scorer
        self.score = lru_cache(CACHED_SCORES)(self._score)

    def _score(self, length: int, reference_length: int, *matches: int) -> float:
        scorer, totals = self.scorer, [max(length - n, 0) for n in range(ORDERS)]
        return scorer.compute_bleu(
            list(matches),
            totals,
            length,
            reference_length,
            scorer.smooth_method,
            scorer.smooth_value,
            scorer.effective_order,
            ORDERS,
        ).score

    def tokens(self, text: str) -> Tokens:
        """Tokenises a text."""
        return tuple(self.scorer._preprocess_segment(text).split())

    def against(self, texts: Sequence[str], reference: str) -> List[float]:
        """Scores texts against one reference."""
        reference_tokens = self.tokens(reference)
        known = [reference_ngrams(grams) for grams in ngrams(reference_tokens)]
        scores = []
        for text in texts:
            tokens = self.tokens(text)
            matches = clipped_matches(ngrams(tokens), known)
            scores.append(self.score(len(tokens), len(reference_tokens), *matches))
        return scores

    def among(self, texts: Sequence[str]) -> List[List[float]]:
        """Scores texts against each other: [i][j] is text i against reference j."""
        tokenised = [self.tokens(text) for text in texts]
        lengths = [len(tokens) for tokens in tokenised]
        by_order = zip(*map(ngrams, tokenised))
        matches = np.stack([matches_among(grams) for grams in by_order], axis=-1).tolist()
        return [
            [self.score(n, reference_n, *counts) for reference_n, counts in zip(lengths, row)]
            for n, row in zip(lengths, matches)
        ]


def ngrams(tokens: Tokens) -> List[Iterable[NGram]]:
    """Returns the n-grams of a text, an iterator for each order."""
    shifted = [tokens[start:] for start in range(ORDERS)]
    return [zip(*shifted[:order]) for order in range(1, ORDERS + 1)]


def reference_ngrams(grams: Iterable[NGram]) -> ReferenceNGrams:
    """Counts the n-grams of one order of a reference."""
    counts = Counter(grams)
    return ReferenceNGrams(set(counts), {gram: n for gram, n in counts.items() if n > 1})


def clipped_matches(
    grams_by_order: Sequence[Iterable[NGram]], reference: Sequence[ReferenceNGrams]
) -> List[int]:
    """Counts the n-grams that are in the reference, each at most as often as it is there.

    Args:
        grams_by_order: the n-grams of a text, for each order.
        reference: those of the reference, for each order.

    Returns:
        The matches of each order.
    """
    matches = [0] * ORDERS
    for order, (iterator, known) in enumerate(zip(grams_by_order, reference)):
        grams = list(iterator)
        count = len(known.distinct.intersection(grams))
        if not count:
            break  # a longer match contains shorter ones
        for gram, limit in known.repeated.items():
            count += max(min(grams.count(gram), limit) - 1, 0)
        matches[order] = count
    return matches


def matches_among(texts: Sequence[Iterable[Hashable]]) -> np.ndarray:
    """Counts the n-grams that each two texts have in common, clipped as in `clipped_matches`.

    Args:
        texts: the n-grams of each text, of one order.

    Returns:
        (texts, texts) int64.
    """
    ids: Dict[Hashable, int] = {}
    rows = [[ids.setdefault(gram, len(ids)) for gram in grams] for grams in texts]
    cells = [row * len(ids) + i for row, grams in enumerate(rows) for i in grams]
    size = len(rows) * len(ids)
    counts = np.bincount(np.array(cells, np.int64), minlength=size).reshape(len(rows), len(ids))
    matches = np.zeros((len(rows), len(rows)), np.float32)  # exact below 2^24, with a fast product
    for level in range(1, int(counts.max(initial=0)) + 1):
        reached = (counts >= level).astype(np.float32)  # min(a, b) levels are reached by both
        matches += reached @ reached.T
    return matches.astype(np.int64)
