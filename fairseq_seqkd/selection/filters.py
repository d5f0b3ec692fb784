"""Filters: rules that drop a sentence from a view, declared once in `FILTERS`.

The options of the task, their checks, the manifest's settings and the log lines are derived from
that table. Every filter is off unless asked for. A rule sees the hypothesis that the view chose.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Mapping, NamedTuple, Union

import numpy as np

from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from fairseq.data import Dictionary

    from fairseq_seqkd.corpus.nbest_store import Block

LONGEST_REPEATED = 4  # tokens of an n-gram whose repetitions are counted

Limit = Union[float, int, bool]


class Ragged:
    """Sequences of ids of different lengths, one after the other.

    Args:
        tokens: (sum of lengths,) ids.
        lengths: (sequences,) length of each.
    """

    def __init__(self, tokens: np.ndarray, lengths: Iterable[int]) -> None:
        self.tokens = np.asarray(tokens, np.int64)
        self.lengths = np.asarray(lengths, np.int64)
        self.rows = np.repeat(np.arange(len(self.lengths)), self.lengths)  # of each token

    @classmethod
    def of(cls, sequences: Iterable[np.ndarray]) -> "Ragged":
        """Joins sequences of ids."""
        parts = [np.zeros(0, np.int64), *sequences]
        return cls(np.concatenate(parts), [len(part) for part in parts[1:]])


class Pairs(NamedTuple):
    """Sources and the hypotheses that a view chose for them, without EOS."""

    source: Ragged
    target: Ragged
    log_probs: np.ndarray  # (pairs,) of the hypotheses, EOS included, in nats
    same: np.ndarray  # see `same_symbols`


@dataclass(frozen=True)
class Filter:
    """A filter: its option and its rule."""

    name: str  # in manifests; the option is --filter-NAME
    type: type  # of its limit; bool for a filter without one
    help: str
    valid: str  # the valid limits in words
    is_valid: Callable[[Any], bool]
    fails: Callable[[Pairs, Any], np.ndarray]  # the pairs to drop, given a limit: (pairs,) bool

    @property
    def field(self) -> str:
        """The name of its field in the configuration of the task."""
        return f"filter_{self.name}"

    def option(self, limit: Limit = True) -> str:
        """Returns its option as on a command line, e.g. "--filter-length-ratio 2.0"."""
        option = f"--{self.field.replace('_', '-')}"
        return option if limit is True else f"{option} {limit}"

    def check(self, limit: Limit) -> None:
        """Raises Refusal for a limit that would drop everything or nothing, or that is NaN."""
        if not self.is_valid(limit):
            raise Refusal(f"{self.option()} is {limit}, it must be {self.valid}")


def length_ratio(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Computes the length of the longer side over that of the shorter; 1 if both are empty."""
    longer, shorter = np.maximum(target, source), np.minimum(target, source)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(longer == shorter, 1.0, longer / shorter)


def shared(target: Ragged, source: Ragged, same: np.ndarray) -> np.ndarray:
    """Computes the share of tokens that two sides have in common, over the length of the longer.

    The sides are compared as multisets of symbols, with `same` from `same_symbols`. The result is
    (pairs,) float64 in [0, 1].
    """
    longer = np.maximum(target.lengths, source.lengths)
    translated = same[source.tokens]
    known = translated >= 0
    width = int(max(target.tokens.max(initial=0), same.max(initial=0))) + 1
    target_keys, target_counts = np.unique(target.rows * width + target.tokens, return_counts=True)
    source_keys, source_counts = np.unique(
        source.rows[known] * width + translated[known], return_counts=True
    )
    keys, in_target, in_source = np.intersect1d(
        target_keys, source_keys, assume_unique=True, return_indices=True
    )
    counts = np.minimum(target_counts[in_target], source_counts[in_source])
    return np.bincount(keys // width, counts, len(longer)) / np.maximum(longer, 1)


def repeats(target: Ragged, times: int) -> np.ndarray:
    """Finds sequences in which an n-gram of 1 to 4 tokens occurs `times` times in a row."""
    has_repeats = np.zeros(len(target.lengths), bool)
    for n in range(1, LONGEST_REPEATED + 1):
        # n tokens repeated `times` times: a run of (times - 1) * n tokens, each equal to the one
        # that stands n before it. A run never crosses into the next sequence.
        run = (times - 1) * n
        equal = (target.tokens[n:] == target.tokens[:-n]) & (target.rows[n:] == target.rows[:-n])
        before = np.concatenate([[0], np.cumsum(equal)])
        has_repeats[target.rows[np.flatnonzero(before[run:] - before[:-run] == run)]] = True
    return has_repeats


FILTERS: Dict[str, Filter] = {
    row.name: row
    for row in (
        Filter(
            "length_ratio",
            float,
            "drop pairs whose longer side has more than this many times the tokens of the shorter "
            "(above 1, e.g. 2.5)",
            "a number above 1",
            lambda limit: 1 < limit < math.inf,
            lambda pairs, limit: length_ratio(pairs.target.lengths, pairs.source.lengths) > limit,
        ),
        Filter(
            "copy",
            float,
            "drop pairs that have at least this share of their tokens in common (above 0, at most "
            "1, e.g. 0.8)",
            "a share above 0 and at most 1",
            lambda limit: 0 < limit <= 1,
            lambda pairs, limit: shared(pairs.target, pairs.source, pairs.same) >= limit,
        ),
        Filter(
            "repeats",
            int,
            "drop targets in which an n-gram of 1 to 4 tokens occurs this many times in a row (at "
            "least 2, e.g. 4)",
            "at least 2",
            lambda limit: limit >= 2,
            lambda pairs, limit: repeats(pairs.target, limit),
        ),
        Filter(
            "score",
            float,
            "drop targets whose log-probability is below this, in nats per token, EOS counted "
            "(below 0, e.g. -2.5)",
            "a log-probability below 0, e.g. -2.5",
            lambda limit: -math.inf < limit < 0,
            lambda pairs, limit: (
                pairs.log_probs.astype(np.float64) / (pairs.target.lengths + 1) < limit
            ),
        ),
        Filter(
            "empty",
            bool,
            "drop empty targets",
            "on or off",
            lambda limit: True,
            lambda pairs, _: pairs.target.lengths == 0,
        ),
    )
}


def limits_of(config: Any) -> Dict[str, Limit]:
    """Returns the limits of the filters that are on in the configuration of the task, by name."""
    limits = {name: getattr(config, row.field) for name, row in FILTERS.items()}
    return {
        name: limit for name, limit in limits.items() if limit is not None and limit is not False
    }


def failures(
    limits: Mapping[str, Limit],
    block: "Block",
    ranks: np.ndarray,
    source: Ragged,
    same: np.ndarray,
) -> Dict[str, np.ndarray]:
    """Finds the sentences that fail each filter. A sentence without a hypothesis fails none.

    Args:
        limits: the filters that are on, see `limits_of`.
        block: the n-best lists of n sentences.
        ranks: (n,) rank of the hypothesis that a view takes, -1 for none.
        source: ids of the sources, without EOS, of the sentences that have a rank.
        same: see `same_symbols`.

    Returns:
        For each filter that is on, (n,) bool: True for a sentence that fails it.
    """
    rows = np.flatnonzero(ranks >= 0)
    chosen = block.picked(ranks)
    target = Ragged(*block.tokens_of(chosen))
    pairs = Pairs(source, target, block.log_probs[chosen], same)
    failed = {name: np.zeros(len(block), bool) for name in limits}
    for name, limit in limits.items():
        failed[name][rows] = FILTERS[name].fails(pairs, limit)
    return failed


def same_symbols(source_dictionary: "Dictionary", target_dictionary: "Dictionary") -> np.ndarray:
    """Finds the id of each source symbol in the target dictionary, -1 for one that it lacks.

    Two unknown words are never the same.
    """
    unk = target_dictionary.unk()
    ids = {symbol: i for i, symbol in enumerate(target_dictionary.symbols) if i != unk}
    return np.array([ids.get(symbol, -1) for symbol in source_dictionary.symbols], np.int64)
