"""The store of a teacher's distributions on given targets: for every token the k most probable symbols.

Like the n-best store it is written in parts and becomes one file, `distributions.safetensors` (array_files.py).

Arrays of a part (T target tokens, EOS included, of n sentences):
    keys           (n,) uint64     what a sentence is found by: a hash of its source and target ids, see `keys_of`
    lengths        (n,) int32      target tokens of each sentence
    ids            (T, k) uint16 or uint32     the k most probable symbols, most probable first
    probabilities  (T, k) float16 or float32   theirs
    rest           (T,) float16 or float32     mass of all other symbols
    target_log_probs (T,) float16 or float32   log-probability of the target token, in nats

In the whole file the first two are `keys`, sorted, and with each the sentence's `lengths` and `first` (int64), the number
of tokens before its own. So a sentence is found wherever it stands: in concatenated, repeated or reordered data, and a
sentence that was not scored is not found. Sentences of equal source and target have equal distributions.
"""

from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus import array_files
from fairseq_seqkd.errors import Refusal

NAME = "distributions.safetensors"
PER_TOKEN = ("ids", "probabilities", "rest", "target_log_probs")
KEYS = {"keys", "lengths", *PER_TOKEN}

AT_A_TIME = 1 << 20  # sentences of the index that are looked at together

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
TARGET_SIDE = np.uint64(1) << np.uint64(32)  # positions of the target, as seen by the hash


def mix(values):
    """A bijection of 64-bit integers in which every bit depends on every bit (Steele et al. 2014, SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys_of(sources, targets, pad):
    """(rows,) uint64, a hash of the ids of each row's source and target, whatever padding stands on either side.

    Args: sources, targets: (rows, length) integer arrays; pad: the id that is no token, for (source, target).
    """
    total = np.zeros(len(sources), np.uint64)
    for ids, nothing, side in ((sources, pad[0], np.uint64(0)), (targets, pad[1], TARGET_SIDE)):
        real = ids != nothing
        position = np.cumsum(real, axis=1).astype(np.uint64) + side
        with np.errstate(over="ignore"):
            hashed = mix(ids.astype(np.uint64) * GOLDEN + mix(position))
            total += np.where(real, hashed, np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return mix(total)


def id_dtype(vocabulary):
    """The smallest of the types that holds the vocabulary's ids."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)


class Block:
    """The distributions of consecutive sentences, as the arrays of a part."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays["keys"])

    def check(self, path):
        """Refuses arrays that do not fit together: a damaged file, or one that is not ours."""
        arrays = self.arrays
        tokens = int(arrays["lengths"].sum(dtype=np.int64))
        sound = (
            len(arrays["lengths"]) == len(arrays["keys"])
            and all(len(arrays[key]) == tokens for key in PER_TOKEN)
            and arrays["ids"].ndim == 2
            and arrays["ids"].shape == arrays["probabilities"].shape
            and (not len(self) or int(arrays["lengths"].min()) > 0)
        )
        if not sound:
            raise Refusal(
                f"{path} is damaged: its arrays do not fit together; remove it and run the command again"
            )


def write_part(path, block):
    """Writes a part, whole or not at all."""
    array_files.write(path, block.arrays)


def read_part(path):
    """The Block in a part. Raises Refusal for a file that is damaged."""
    found = array_files.read(path)
    if set(found) != KEYS:
        raise Refusal(
            f"{path} is not a part of stored distributions; remove it and run the command again"
        )
    block = Block(found)
    block.check(path)
    return block


def merge(part_paths, out):
    """Writes one store from parts in order. Memory is that of one part, and 40 bytes a sentence to sort its index."""
    keys, lengths, shapes = [], [], {}
    for path in part_paths:
        block = read_part(path)
        keys.append(block.arrays["keys"])
        lengths.append(block.arrays["lengths"])
        mine = array_files.layout({key: block.arrays[key] for key in PER_TOKEN})
        shapes = shapes or mine
        if shapes != mine:
            raise Refusal(
                f"{path} holds other arrays than the parts before it; remove it and run the command again"
            )
    keys, lengths = np.concatenate(keys), np.concatenate(lengths)
    tokens = int(lengths.sum(dtype=np.int64))
    order = np.argsort(keys, kind="stable")
    index = {"keys": keys[order]}
    del keys  # each is as large as the corpus has sentences
    first = np.cumsum(lengths, dtype=np.int64) - lengths
    index["first"] = first[order]
    del first
    index["lengths"] = lengths[order]
    del lengths, order
    array_files.join(part_paths, out, dict.fromkeys(PER_TOKEN, tokens), shapes, computed=index)


class Distributions:
    """A finished store, memory-mapped: finds sentences by their keys, and gives what the teacher said of their tokens."""

    def __init__(self, folder):
        self.path = Path(folder) / NAME
        if not self.path.is_file():
            raise Refusal(f"there is no {self.path}; score the split to its end first")
        arrays = array_files.mapped(self.path, "score the split again")
        if set(arrays) != KEYS | {"first"} or arrays["ids"].ndim != 2:
            raise Refusal(f"{self.path} is not a store of distributions; score the split again")
        self.keys, self.lengths, self.first = arrays["keys"], arrays["lengths"], arrays["first"]
        self.per_token = {key: arrays[key] for key in PER_TOKEN}
        index, tokens = (self.keys, self.lengths, self.first), self.per_token.values()
        sound = len(set(map(len, index))) == 1 and len(set(map(len, tokens))) == 1
        if (
            not sound
            or self.per_token["ids"].shape != self.per_token["probabilities"].shape
            or not self._is_in_range()
        ):
            raise Refusal(
                f"{self.path} is damaged: its arrays do not fit together; score the split again"
            )

    def _is_in_range(self):
        """Whether the index points to tokens that are there, looked at block by block."""
        for start in range(0, len(self), AT_A_TIME):
            first, lengths = (
                self.first[start : start + AT_A_TIME],
                self.lengths[start : start + AT_A_TIME],
            )
            if (
                first.min() < 0 or lengths.min() < 0 or (first > self.tokens_stored - lengths).any()
            ):  # a sum may overflow
                return False
        return True

    def __len__(self):
        return len(self.keys)

    @property
    def tokens_stored(self):
        return len(self.per_token["ids"])

    @property
    def k(self):
        return self.per_token["ids"].shape[1]

    def find(self, keys, lengths):
        """(rows,) int64, where the tokens of each sentence begin; -1 for sentences that are not there.

        Args: keys: (rows,) uint64, see keys_of; lengths: (rows,) target tokens, which must agree as well.
        """
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[at] == keys) & (self.lengths[at] == lengths), self.first[at], -1)

    def tokens(self, first, lengths):
        """{name: array} of PER_TOKEN for the tokens of sentences, one after the other.

        Args: first: (rows,) where each sentence's tokens begin, as `find` says; lengths: (rows,).
        """
        ends = np.cumsum(lengths)
        where = np.repeat(first - (ends - lengths), lengths) + np.arange(
            int(ends[-1]) if len(ends) else 0
        )
        return {key: array[where] for key, array in self.per_token.items()}


def opened(folder):
    """The finished store of a folder."""
    return Distributions(folder)
