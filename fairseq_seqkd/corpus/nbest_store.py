"""The n-best store: every hypothesis of every sentence as token ids, with its scores.

While decoding, each part is one file under ``parts/``. A finished directory has them all in one
file, ``hypotheses.safetensors``, in the order of the sentences; `array_files` describes the format.
The file has the arrays of `Block` and one more: ``blocks`` (parts + 1, 3) int64, the sentences,
hypotheses and tokens before each part. With it one sentence is found without reading the others.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterator, Optional, Sequence, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus import array_files
from fairseq_seqkd.corpus.nbest import Hypothesis, NBest
from fairseq_seqkd.errors import Refusal

BOUNDS = "blocks"  # the name of the array of bounds in the file


@dataclass(frozen=True, eq=False)
class Block:
    """The n-best lists of n consecutive sentences, H hypotheses in total, the 1-best first."""

    counts: np.ndarray  # (n,) uint16: hypotheses of each sentence; 0 if it was too long to decode
    lengths: np.ndarray  # (H,) int32: tokens of each hypothesis, without the closing EOS
    tokens: np.ndarray  # (sum of lengths,) uint16 or uint32: ids of the target dictionary
    scores: np.ndarray  # (H,) float32: what the search ranks by, log-probability / length^lenpen
    # (H,) float32: sum of the token log-probabilities in nats, EOS included, as the search has
    # them. Options that shift scores, e.g. --diverse-beam-strength or --lm-path, shift these too.
    log_probs: np.ndarray
    hit_limit: np.ndarray  # (H,) uint8: 1 if the length limit ended the hypothesis
    similarity: Optional[np.ndarray] = None  # (H,) float32: to gold; larger is closer
    consensus: Optional[np.ndarray] = None  # (H,) float32: mean similarity to the other hypotheses

    @cached_property
    def first(self) -> np.ndarray:
        """The number of hypotheses before each sentence, and their total: (n + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])

    @cached_property
    def _first_token(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    @property
    def arrays(self) -> Dict[str, np.ndarray]:
        """The arrays as they are stored, by name; without those that are None."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in named if array is not None}

    @classmethod
    def from_lists(
        cls,
        nbests: Sequence[NBest],
        dtype: "np.dtype[Any]",
        with_similarity: bool,
        with_consensus: bool = False,
    ) -> "Block":
        """Packs the n-best lists of consecutive sentences. Token ids are stored as `dtype`."""
        flat = [hypothesis for nbest in nbests for hypothesis in nbest]
        tokens = [hypothesis.tokens for hypothesis in flat]

        def column(name: str, kind: Any) -> np.ndarray:
            return np.array([getattr(hypothesis, name) for hypothesis in flat], kind)

        return cls(
            counts=np.array([len(nbest) for nbest in nbests], np.uint16),
            lengths=np.array([len(ids) for ids in tokens], np.int32),
            tokens=np.concatenate(tokens).astype(dtype) if tokens else np.zeros(0, dtype),
            scores=column("score", np.float32),
            log_probs=column("log_prob", np.float32),
            hit_limit=column("hit_limit", np.uint8),
            similarity=column("similarity", np.float32) if with_similarity else None,
            consensus=column("consensus", np.float32) if with_consensus else None,
        )

    def __len__(self) -> int:
        return len(self.counts)

    def nbest(self, i: int) -> NBest:
        """Returns the n-best list of the i-th sentence of this block."""
        return [self._hypothesis(h) for h in range(self.first[i], self.first[i + 1])]

    def _hypothesis(self, h: int) -> Hypothesis:
        return Hypothesis(
            self.tokens[self._first_token[h] : self._first_token[h + 1]],
            float(self.scores[h]),
            float(self.log_probs[h]),
            bool(self.hit_limit[h]),
            None if self.similarity is None else float(self.similarity[h]),
            None if self.consensus is None else float(self.consensus[h]),
        )

    def picked(self, ranks: np.ndarray) -> np.ndarray:
        """Returns the numbers of hypotheses within this block, given a rank for each sentence.

        Args:
            ranks: (n,) the rank to pick from each list; -1 picks none.
        """
        rows = np.flatnonzero(ranks >= 0)
        return self.first[rows] + ranks[rows]

    def tokens_of(self, numbers: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of these hypotheses, concatenated without EOS, and their lengths."""
        lengths = self.lengths[numbers].astype(np.int64)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.tokens[np.repeat(self._first_token[numbers], lengths) + within], lengths

    def check(self, path: Path) -> None:
        """Refuses arrays of a file that do not fit together."""
        hypotheses = int(self.counts.sum(dtype=np.int64))
        per_hypothesis = [a for name, a in self.arrays.items() if name not in ("counts", "tokens")]
        if (
            any(len(array) != hypotheses for array in per_hypothesis)
            or (hypotheses and int(self.lengths.min()) < 0)
            or len(self.tokens) != int(self.lengths.sum(dtype=np.int64))
        ):
            raise Refusal(
                f"{path} is damaged: its arrays do not fit together; remove it and decode again"
            )

    def write(self, path: Path) -> None:
        """Writes a part."""
        array_files.write(path, self.arrays)

    @classmethod
    def read(cls, path: Path) -> "Block":
        """Reads a part. Raises Refusal if it is damaged."""
        arrays = array_files.read(path)
        try:
            block = cls(**arrays)
            is_part = all(array.ndim == 1 for array in arrays.values())
        except TypeError:  # arrays of other names
            is_part = False
        if not is_part:
            raise Refusal(f"{path} is not a part of an n-best store; {array_files.RETRY}")
        block.check(path)
        return block


class NBestStore:
    """A finished store, memory-mapped.

    ``store[i]`` is the n-best list of sentence i, and ``store.blocks()`` streams the store.

    Args:
        folder: a finished distilled directory.

    Raises:
        Refusal: the store is missing or damaged.
    """

    NAME: ClassVar[str] = "hypotheses.safetensors"

    def __init__(self, folder: Union[str, Path]) -> None:
        self.path = Path(folder) / self.NAME
        if not self.path.is_file():
            raise Refusal(f"there is no {self.path}; decode the split to its end first")
        arrays = array_files.mapped(self.path, "decode the split again")
        self._bounds = arrays.pop(BOUNDS, np.zeros(0, np.int64))
        self._recent: Optional[Tuple[int, Block]] = None
        try:
            self._mapped = Block(**arrays)
            is_store = self._bounds.ndim == 2 and len(self._bounds) > 0
        except TypeError:  # arrays of other names
            is_store = False
        if not is_store:
            raise Refusal(f"{self.path} is not an n-best store; decode the split again")

    @staticmethod
    def merge(parts: Sequence[Path], out: Path) -> None:
        """Writes one store from parts in order. Memory is that of one part."""
        bounds = np.zeros((len(parts) + 1, 3), np.int64)
        layout: array_files.Layout = {}
        for i, path in enumerate(parts):
            block = Block.read(path)
            bounds[i + 1] = bounds[i] + (len(block), len(block.lengths), len(block.tokens))
            layout = array_files.same_layout(path, block.arrays, layout)
        sentences, hypotheses, tokens = map(int, bounds[-1])
        lengths = {**dict.fromkeys(layout, hypotheses), "counts": sentences, "tokens": tokens}
        array_files.join(parts, out, lengths, layout, {BOUNDS: bounds})

    def check(self) -> None:
        """Reads everything. Raises Refusal if it is damaged."""
        for b in range(len(self._bounds) - 1):
            self.block(b)

    def __len__(self) -> int:
        return int(self._bounds[-1, 0])

    @property
    def has_similarity(self) -> bool:
        """Whether the split had targets to compare with."""
        return self._mapped.similarity is not None

    @property
    def token_dtype(self) -> "np.dtype[Any]":
        """The type of the token ids."""
        return self._mapped.tokens.dtype

    def block(self, b: int) -> Block:
        """Reads the Block of the b-th part. The last one read is kept."""
        if self._recent is None or self._recent[0] != b:
            (s0, h0, t0), (s1, h1, t1) = self._bounds[b], self._bounds[b + 1]
            ranges = {"counts": (s0, s1), "tokens": (t0, t1)}
            arrays = {}
            for name, array in self._mapped.arrays.items():
                first, last = ranges.get(name, (h0, h1))
                arrays[name] = np.array(array[first:last])  # copied, so that pages need not stay
            block = Block(**arrays)
            block.check(self.path)
            self._recent = (b, block)
        return self._recent[1]

    def blocks(self) -> Iterator[Tuple[int, Block]]:
        """Yields the id of the first sentence and the Block of each part, in order."""
        for b in range(len(self._bounds) - 1):
            yield int(self._bounds[b, 0]), self.block(b)

    def __getitem__(self, sentence: int) -> NBest:
        if not 0 <= sentence < len(self):
            raise IndexError(sentence)
        b = int(np.searchsorted(self._bounds[:, 0], sentence, side="right")) - 1
        return self.block(b).nbest(sentence - int(self._bounds[b, 0]))
