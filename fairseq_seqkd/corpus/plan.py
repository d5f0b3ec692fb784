"""The batch plan: a function of the source lengths and the options alone, never of who decodes.

A part is a run of consecutive sentences, and inside a part the sentences are batched by length. So parts written in
order are the corpus in order, finishing needs no sorting, and memory does not grow with the corpus. fairseq's own
batching permutes by seed, drops by gold length, and throws the last batch away.
"""

from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

DEFAULT_MAX_TOKENS = 4000  # where neither the user nor an engine says better


@dataclass(frozen=True)
class Plan:
    """Cuts `sentences` sentences into parts of `part_size`, and a part into batches."""

    sentences: int
    part_size: int
    max_tokens: Optional[int]  # tokens of a batch, padding included; None: no limit
    max_sentences: Optional[int]  # sentences of a batch; None: no limit

    @property
    def parts(self):
        return -(-self.sentences // self.part_size)

    def bounds(self, part):
        """(first sentence, first sentence after) of a part."""
        return part * self.part_size, min((part + 1) * self.part_size, self.sentences)

    def batches(self, part, lengths, fits):
        """The batches of a part: arrays of sentence ids, longest sentences first.

        Args:
            lengths: (sentences of the part,) tokens that a sentence counts for.
            fits: (sentences of the part,) bool; the others are in no batch.
        """
        first, _ = self.bounds(part)
        order = np.argsort(-lengths, kind="stable")  # longest first: memory problems show at once
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


def plan_of(settings):
    """The Plan of work that was begun, from its manifest's settings."""
    limits = {name: settings["plan"][name] for name in ("part_size", "max_tokens", "max_sentences")}
    return Plan(settings["data"]["sentences"], **limits)


def part_size(sentences, wanted=0):
    """Sentences in a part: what the user wants; else about 1/64 of the split, but 1,024 to 4,096.

    A part is what a killed worker loses, and what the last worker makes the others wait for.
    """
    return wanted if wanted > 0 else min(max(-(-sentences // 64), 1024), 4096)


def make_plan(
    sentences,
    max_tokens=None,
    max_sentences=None,
    wanted_part_size=0,
    default_tokens=DEFAULT_MAX_TOKENS,
):
    """The plan for a split, from fairseq's --max-tokens and --batch-size; the engine's default where neither is given."""
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
