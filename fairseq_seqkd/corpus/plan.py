"""The batch plan: a function of the source lengths and the options, never of who decodes.

A part is a run of consecutive sentences, which are batched by length. Parts in order are the corpus
in order: completing a directory needs no sorting, and memory does not grow with the corpus.
fairseq's own batching permutes by seed, drops by gold length, and throws the last batch away.
"""

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

DEFAULT_MAX_TOKENS = 4000  # if neither the user nor the engine has a preference


@dataclass(frozen=True)
class Plan:
    """Groups sentences into parts, and each part into batches."""

    sentences: int
    part_size: int  # sentences
    max_tokens: Optional[int]  # of a batch, padding included; None: no limit
    max_sentences: Optional[int]  # of a batch; None: no limit

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.sentences // self.part_size)

    def bounds(self, part: int) -> Tuple[int, int]:
        """Returns the first sentence of a part, and the first one after it."""
        return part * self.part_size, min((part + 1) * self.part_size, self.sentences)

    def batches(self, part: int, lengths: np.ndarray, fits: np.ndarray) -> List[np.ndarray]:
        """Returns the batches of a part, the longest sentences first.

        Args:
            part: the number of the part.
            lengths: (sentences of the part,) the tokens that each sentence counts for.
            fits: (sentences of the part,) bool; the other sentences are in no batch.

        Returns:
            Arrays of sentence ids.
        """
        first, _ = self.bounds(part)
        order = np.argsort(-lengths, kind="stable")  # memory problems show at once
        order = order[fits[order]]
        batches, start = [], 0
        while start < len(order):
            widest = max(int(lengths[order[start]]), 1)
            limits = (
                self.max_tokens and max(self.max_tokens // widest, 1),
                self.max_sentences,
                len(order) - start,
            )
            count = min(limit for limit in limits if limit)
            batches.append(order[start : start + count] + first)
            start += count
        return batches


def part_size(sentences: int, wanted: int = 0) -> int:
    """Returns the number of sentences in a part.

    A part is what a killed worker loses, and what the last worker makes the others wait for. The
    default is 1/64 of the split, but at least 1,024 and at most 4,096.

    Args:
        sentences: the sentences of the split.
        wanted: the user's choice; 0 for the default.
    """
    return wanted if wanted > 0 else min(max(-(-sentences // 64), 1024), 4096)


def make_plan(
    sentences: int,
    max_tokens: Optional[int] = None,
    max_sentences: Optional[int] = None,
    wanted_part_size: int = 0,
    default_tokens: int = DEFAULT_MAX_TOKENS,
) -> Plan:
    """Returns the plan for a split.

    Args:
        sentences: the sentences of the split.
        max_tokens: fairseq's --max-tokens.
        max_sentences: fairseq's --batch-size.
        wanted_part_size: the sentences of a part; 0 for the default.
        default_tokens: the limit if there is neither `max_tokens` nor `max_sentences`.
    """
    if max_tokens is None and max_sentences is None:
        max_tokens = default_tokens
    return Plan(sentences, part_size(sentences, wanted_part_size), max_tokens, max_sentences)


def too_long(sizes: Sequence[np.ndarray], limits: Sequence[Optional[int]]) -> np.ndarray:
    """Finds the sentences that a model cannot read because they have more tokens than positions.

    Args:
        sizes: for each side (source, target) the (sentences,) tokens of its sentences.
        limits: for each side the positions of the model; None for a side without a limit.

    Returns:
        (sentences,) bool, True for a sentence that is too long on at least one side.
    """
    exceeds = np.zeros(len(sizes[0]), bool)
    for side_sizes, limit in zip(sizes, limits):
        if limit is not None:
            exceeds |= np.asarray(side_sizes) > limit
    return exceeds
