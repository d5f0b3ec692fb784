"""Which of a view's targets are left out, and by which rule: each rule a function over the arrays of a block.

All are off unless asked for. They look at the hypothesis that the view chose, and know nothing of disk or models. A rule
returns True for the sentences that fail it.
"""

import numpy as np

LONGEST_REPEATED = 4  # tokens of an n-gram that may be repeated

NAMES = ("length_ratio", "copy", "repeats", "score", "empty")


class Ragged:
    """Sequences of ids, one after the other: `tokens` (sum of lengths,) and `lengths` (n,)."""

    def __init__(self, tokens, lengths):
        self.tokens, self.lengths = np.asarray(tokens, np.int64), np.asarray(lengths, np.int64)
        self.rows = np.repeat(
            np.arange(len(self.lengths)), self.lengths
        )  # which sequence a token belongs to

    @classmethod
    def of(cls, sequences):
        return cls(
            np.concatenate([np.zeros(0, np.int64), *sequences]),
            [len(sequence) for sequence in sequences],
        )


def failures(settings, block, chosen, source, same):
    """{name of a rule: (n,) bool, True for a sentence that fails it}; a sentence without a hypothesis fails none.

    Args:
        settings: {name: value} of the rules that are on, as `options` gives them.
        block: hypotheses.Block of n sentences; chosen: (n,) rank of the hypothesis that a view takes, -1 for none.
        source: Ragged, the ids of the sources of these sentences that have one chosen, without EOS.
        same: (source dictionary,) id of the same symbol in the target dictionary, -1 where it has none; see same_symbols.
    """
    rows = np.flatnonzero(chosen >= 0)
    picked = block.picked(chosen)
    target = Ragged(*block.tokens_of(picked))
    rules = {
        "length_ratio": lambda limit: length_ratio(target.lengths, source.lengths) > limit,
        "copy": lambda limit: shared(target, source, same) >= limit,
        "repeats": lambda times: repeats(target, times),
        "score": lambda limit: (
            block.log_probs[picked].astype(np.float64) / (target.lengths + 1) < limit
        ),
        "empty": lambda _: target.lengths == 0,
    }
    failed = {name: np.zeros(len(block), bool) for name in settings}
    for name, value in settings.items():
        failed[name][rows] = rules[name](value)
    return failed


def length_ratio(target, source):
    """How many times as many tokens the longer side has as the shorter one; 1 where both are empty."""
    longer, shorter = np.maximum(target, source), np.minimum(target, source)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(longer == shorter, 1.0, longer / shorter)


def shared(target, source, same):
    """The share of tokens that two sides have in common, as multisets of symbols, over the longer side's length."""
    longer = np.maximum(target.lengths, source.lengths)
    translated = same[source.tokens]
    known = translated >= 0
    width = int(max(target.tokens.max(initial=0), same.max(initial=0))) + 1
    mine, times = np.unique(target.rows * width + target.tokens, return_counts=True)
    theirs, their_times = np.unique(
        source.rows[known] * width + translated[known], return_counts=True
    )
    both, here, there = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    common = np.bincount(both // width, np.minimum(times[here], their_times[there]), len(longer))
    return common / np.maximum(longer, 1)


def repeats(target, times):
    """Whether some n-gram of 1 to 4 tokens stands `times` or more times in immediate succession."""
    found = np.zeros(len(target.lengths), bool)
    for n in range(1, LONGEST_REPEATED + 1):
        # So many tokens in a row must equal the one that stands n before. A row never runs on into the next sentence.
        run = (times - 1) * n
        equal = (target.tokens[n:] == target.tokens[:-n]) & (target.rows[n:] == target.rows[:-n])
        before = np.concatenate([[0], np.cumsum(equal)])
        found[target.rows[np.flatnonzero(before[run:] - before[:-run] == run)]] = True
    return found


def same_symbols(source_dictionary, target_dictionary):
    """(source dictionary,) id of the same symbol in the target dictionary, -1 where it has none.

    Nobody knows whether two unknown words are the same, so they are not.
    """
    ids = {
        symbol: i
        for i, symbol in enumerate(target_dictionary.symbols)
        if i != target_dictionary.unk()
    }
    return np.array([ids.get(symbol, -1) for symbol in source_dictionary.symbols], np.int64)
