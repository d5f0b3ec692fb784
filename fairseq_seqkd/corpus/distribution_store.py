"""The store of a teacher's distributions on given targets: the top k symbols at every token.

Like the n-best store it is written in parts and becomes one file, ``distributions.safetensors``
(see `array_files`). In a part, ``keys`` and ``lengths`` are in the order of the sentences. In the
whole file the keys are sorted, and each has the ``lengths`` and ``first`` (int64) of its sentence:
the number of tokens before its own.

Sentences are found by a hash of their source and target ids, wherever they stand: in concatenated,
repeated or reordered data. Sentences with equal source and target have equal distributions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus import array_files
from fairseq_seqkd.errors import Refusal

PER_TOKEN = ("ids", "probabilities", "rest", "target_log_probs")  # on disk
IN_PARTS = {"keys", "lengths", *PER_TOKEN}
AT_A_TIME = 1 << 20  # sentences of the index that are checked together

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
TARGET_SIDE = np.uint64(1) << np.uint64(32)  # added to positions of the target


class TokenDistributions(NamedTuple):
    """The distributions at T target tokens, EOS included. On disk: the arrays of PER_TOKEN."""

    ids: np.ndarray  # (T, k) uint16 or uint32: the most probable symbols, most probable first
    probabilities: np.ndarray  # (T, k) float16 or float32
    tail: np.ndarray  # (T,) float16 or float32: probability mass of all other symbols
    target_log_probs: np.ndarray  # (T,) float16 or float32: of the target token, in nats


def mix(values: np.ndarray) -> np.ndarray:
    """Hashes 64-bit integers one to one, every bit depending on every bit.

    This is the finaliser of SplitMix64 (Steele et al. 2014).
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys_of(sources: np.ndarray, targets: np.ndarray, pad: Tuple[int, int]) -> np.ndarray:
    """Hashes the token ids of each source and target; padding on either side does not matter.

    Args:
        sources: (rows, source length) integers.
        targets: (rows, target length) integers.
        pad: the padding ids of source and target.

    Returns:
        (rows,) uint64.
    """
    total = np.zeros(len(sources), np.uint64)
    sides = ((sources, pad[0], np.uint64(0)), (targets, pad[1], TARGET_SIDE))
    for ids, padding, offset in sides:
        real = ids != padding
        position = np.cumsum(real, axis=1).astype(np.uint64) + offset
        with np.errstate(over="ignore"):
            hashed = mix(ids.astype(np.uint64) * GOLDEN + mix(position))
            total += np.where(real, hashed, np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return mix(total)


def id_dtype(vocabulary: int) -> "np.dtype[Any]":
    """Returns the smallest type that holds the ids of a vocabulary."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)


@dataclass(frozen=True, eq=False)
class DistributionBlock:
    """The distributions of n consecutive sentences: one part."""

    keys: np.ndarray  # (n,) uint64, see `keys_of`
    lengths: np.ndarray  # (n,) int32: target tokens of each sentence
    tokens: TokenDistributions

    @classmethod
    def of(cls, arrays: Dict[str, np.ndarray]) -> "DistributionBlock":
        """Builds a block from its arrays as they are named on disk."""
        tokens = TokenDistributions(*(arrays[name] for name in PER_TOKEN))
        return cls(arrays["keys"], arrays["lengths"], tokens)

    def __len__(self) -> int:
        return len(self.keys)

    def write(self, path: Path) -> None:
        """Writes a part."""
        arrays = dict(zip(PER_TOKEN, self.tokens))
        array_files.write(path, {"keys": self.keys, "lengths": self.lengths, **arrays})

    @classmethod
    def read(cls, path: Path) -> "DistributionBlock":
        """Reads a part. Raises Refusal if it is damaged."""
        arrays = array_files.read(path)
        if set(arrays) != IN_PARTS:
            raise Refusal(f"{path} is not a part of stored distributions; {array_files.RETRY}")
        block = cls.of(arrays)
        if not block._is_sound():
            raise Refusal(f"{path} is damaged: its arrays do not fit together; {array_files.RETRY}")
        return block

    def _is_sound(self) -> bool:
        total = int(self.lengths.sum(dtype=np.int64))
        return (
            len(self.lengths) == len(self.keys)
            and all(len(array) == total for array in self.tokens)
            and self.tokens.ids.ndim == 2
            and self.tokens.ids.shape == self.tokens.probabilities.shape
            and (not len(self) or int(self.lengths.min()) > 0)
        )


class DistributionStore:
    """A finished store, memory-mapped.

    Args:
        folder: a finished directory of distributions.

    Raises:
        Refusal: the store is missing or damaged.
    """

    NAME: ClassVar[str] = "distributions.safetensors"

    def __init__(self, folder: Union[str, Path]) -> None:
        self.path = Path(folder) / self.NAME
        if not self.path.is_file():
            raise Refusal(f"there is no {self.path}; score the split to its end first")
        arrays = array_files.mapped(self.path, "score the split again")
        if set(arrays) != IN_PARTS | {"first"} or arrays["ids"].ndim != 2:
            raise Refusal(f"{self.path} is not a store of distributions; score the split again")
        self.keys, self.lengths, self.first = arrays["keys"], arrays["lengths"], arrays["first"]
        self.per_token = TokenDistributions(*(arrays[name] for name in PER_TOKEN))
        self.check()

    def check(self) -> None:
        """Refuses arrays that do not fit together."""
        if not self._is_sound():
            raise Refusal(
                f"{self.path} is damaged: its arrays do not fit together; score the split again"
            )

    def _is_sound(self) -> bool:
        """Whether the arrays fit together, and the index points to tokens that exist."""
        if len({len(self.keys), len(self.lengths), len(self.first)}) > 1:
            return False
        ids, probabilities, *_ = self.per_token
        if len({len(array) for array in self.per_token}) > 1 or ids.shape != probabilities.shape:
            return False
        for start in range(0, len(self), AT_A_TIME):
            first = self.first[start : start + AT_A_TIME]
            lengths = self.lengths[start : start + AT_A_TIME]
            if first.min() < 0 or lengths.min() < 0:
                return False
            if (first > self.tokens_stored - lengths).any():  # a sum might overflow
                return False
        return True

    @staticmethod
    def merge(parts: Sequence[Path], out: Path) -> None:
        """Writes one store from parts in order.

        Memory is that of one part, and 40 bytes per sentence to sort the index.
        """
        keys: List[np.ndarray] = []
        lengths: List[np.ndarray] = []
        layout: array_files.Layout = {}
        for path in parts:
            block = DistributionBlock.read(path)
            keys.append(block.keys)
            lengths.append(block.lengths)
            layout = array_files.same_layout(path, dict(zip(PER_TOKEN, block.tokens)), layout)
        tokens = sum(int(part.sum(dtype=np.int64)) for part in lengths)
        index = _sorted_index(keys, lengths)
        array_files.join(parts, out, dict.fromkeys(PER_TOKEN, tokens), layout, index)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def tokens_stored(self) -> int:
        """The number of tokens of all sentences."""
        return len(self.per_token.ids)

    @property
    def k(self) -> int:
        """The number of symbols per token."""
        return self.per_token.ids.shape[1]

    def find(self, keys: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns the number of the first token of each sentence, -1 for unknown sentences.

        Args:
            keys: (rows,) uint64, see `keys_of`.
            lengths: (rows,) target tokens, which must agree as well.

        Returns:
            (rows,) int64.
        """
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return np.where((self.keys[at] == keys) & (self.lengths[at] == lengths), self.first[at], -1)

    def tokens(self, first: np.ndarray, lengths: np.ndarray) -> TokenDistributions:
        """Reads the distributions at the tokens of sentences, concatenated.

        Args:
            first: (rows,) the first token of each sentence, from `find`.
            lengths: (rows,) target tokens of each sentence.
        """
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        numbers = np.repeat(first - (ends - lengths), lengths) + np.arange(total)
        return TokenDistributions(*(array[numbers] for array in self.per_token))


def _sorted_index(
    keys_of_parts: List[np.ndarray], lengths_of_parts: List[np.ndarray]
) -> Dict[str, np.ndarray]:
    """Returns the arrays of the index, sorted by key. Empties its arguments to save memory."""
    keys, lengths = np.concatenate(keys_of_parts), np.concatenate(lengths_of_parts)
    keys_of_parts.clear()
    lengths_of_parts.clear()
    order = np.argsort(keys, kind="stable")
    index = {"keys": keys[order]}
    del keys
    first = np.cumsum(lengths, dtype=np.int64) - lengths
    index["first"] = first[order]
    del first
    index["lengths"] = lengths[order]
    return index
