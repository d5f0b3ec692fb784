"""The choice of one hypothesis per sentence: functions from a block of n-best lists to ranks.

A rank counts from 0, the hypothesis that the teacher scores highest. -1 stands for a sentence
without a hypothesis. Equal values go to the lower rank, so never to a hypothesis that the teacher
scores lower. With an empty reference all hypotheses are equal, and the 1-best is chosen (unless the
list holds the empty hypothesis, which is perfect there).
"""

from typing import TYPE_CHECKING, Callable, Dict, Optional

import numpy as np

if TYPE_CHECKING:
    from fairseq_seqkd.corpus.nbest_store import Block


def closest(values: np.ndarray) -> int:
    """Returns the rank of the largest value, the first of equals; -1 for an empty list."""
    return int(np.argmax(values)) if len(values) else -1


def mode(block: "Block") -> np.ndarray:
    """Chooses the 1-best of every sentence: (sentences,) ranks, -1 for an empty list."""
    return np.where(block.counts > 0, 0, -1)


def nearest_to_gold(block: "Block") -> np.ndarray:
    """Chooses the hypotheses most similar to gold: (sentences,) ranks, -1 for an empty list."""
    return _largest(block, block.similarity)


def consensus(block: "Block") -> np.ndarray:
    """Chooses the hypotheses most similar to the others of their list: (sentences,) ranks."""
    return _largest(block, block.consensus)


def _largest(block: "Block", values: Optional[np.ndarray]) -> np.ndarray:
    assert values is not None, "the decode did not compute these scores"
    first = block.first
    return np.array([closest(values[first[i] : first[i + 1]]) for i in range(len(block))], np.int64)


# The choices for seq_kd, by the value of --select.
SELECTIONS: Dict[str, Callable[["Block"], np.ndarray]] = {"mode": mode, "mbr": consensus}
