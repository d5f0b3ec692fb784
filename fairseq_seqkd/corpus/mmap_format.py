"""fairseq's mmap format: the token ids of a side of a split (``.bin``) and their index (``.idx``).

fairseq's own builder is not used: it keeps Python lists of sizes, and its merge overflows beyond
2 GiB under NumPy 2. The index is a header, then the tokens of each sentence (int32), then the
offset of each sentence in bytes (int64).
"""

import os
import struct
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from fairseq_seqkd.errors import Refusal

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
CODES: Dict["np.dtype[Any]", int] = {  # of token types, as in fairseq/data/indexed_dataset.py
    np.dtype(np.uint16): 8,
    np.dtype(np.int32): 4,
    np.dtype(np.uint32): 9,
    np.dtype(np.int64): 5,
    np.dtype(np.uint64): 10,
}
TYPES = {code: dtype for dtype, code in CODES.items()}
HEADER = struct.Struct(f"<{len(MAGIC)}sQBQ")  # the magic and the fields of Header
OFFSETS_AT_A_TIME = 1 << 12  # so that the offsets are never all in memory
TOKENS_AT_A_TIME = 1 << 20


class Header(NamedTuple):
    """The header of an index."""

    version: int
    code: int  # of the token type
    sentences: int


def token_dtype(vocabulary: int) -> "np.dtype[Any]":
    """Returns the token type that fairseq-preprocess uses for a dictionary of this size."""
    return np.dtype(np.uint16 if vocabulary < 65500 else np.uint32)


def has_magic(index: Path) -> bool:
    """Whether a file begins like an index of this format."""
    with index.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(index: Path) -> Optional[Header]:
    """Reads the header of an index; None if the file is too short to have one."""
    with index.open("rb") as file:
        content = file.read(HEADER.size)
    return Header(*HEADER.unpack(content)[1:]) if len(content) == HEADER.size else None


def read_dtype(index: Path) -> "np.dtype[Any]":
    """Reads the token type of an index."""
    header = read_header(index)
    if header is None or header.code not in TYPES:
        raise Refusal(f"{index} has an unknown token type; run fairseq-preprocess again")
    return TYPES[header.code]


def map_sizes(index: Path) -> np.ndarray:
    """Maps the number of tokens of each sentence, EOS included: (sentences,) int32."""
    header = read_header(index)
    count = header.sentences if header else 0
    return np.memmap(index, np.int32, "r", HEADER.size, count) if count else np.zeros(0, np.int32)


def has_ids_below(data: Path, dtype: "np.dtype[Any]", vocabulary: int) -> bool:
    """Whether all token ids of a ``.bin`` file are symbols of a dictionary of this size."""
    tokens = np.memmap(data, dtype, "r")
    blocks = (tokens[i : i + TOKENS_AT_A_TIME] for i in range(0, len(tokens), TOKENS_AT_A_TIME))
    return all(0 <= block.min() <= block.max() < vocabulary for block in blocks)


def check_pair(index: Path, data: Path) -> None:
    """Refuses an index that is damaged, or whose sentences do not fill the data without gaps."""
    if not _belong_together(index, data):
        raise Refusal(f"{index} and {data.name} are damaged, or not of one split; copy them again")


def _belong_together(index: Path, data: Path) -> bool:
    header = read_header(index)
    if header is None or header.version != VERSION or header.code not in TYPES:
        return False
    count, itemsize, sizes = header.sentences, TYPES[header.code].itemsize, map_sizes(index)
    if not count or index.stat().st_size != HEADER.size + 12 * count:
        return False  # fairseq cannot map a split without a sentence
    offsets = np.memmap(index, np.int64, "r", HEADER.size + 4 * count, count)
    end = 0
    for start in range(0, count, OFFSETS_AT_A_TIME):
        block = slice(start, start + OFFSETS_AT_A_TIME)
        expected, end = _offsets(sizes[block], itemsize, end)
        if sizes[block].min() < 0 or not np.array_equal(offsets[block], expected):
            return False
    return end == data.stat().st_size


def _offsets(sizes: np.ndarray, itemsize: int, start: int) -> Tuple[np.ndarray, int]:
    """Returns the offsets of consecutive sentences in bytes, and where the last one ends."""
    lengths = sizes.astype(np.int64) * itemsize
    ends = start + np.cumsum(lengths)
    return ends - lengths, int(ends[-1])


class Writer:
    """Writes one side of a split, a block of sentences at a time.

    Memory is four bytes per sentence, and eight while closing.

    Args:
        prefix: the path of both files, without ``.bin`` and ``.idx``.
        dtype: the type of the tokens, see `token_dtype`.
    """

    def __init__(self, prefix: Union[str, Path], dtype: Any) -> None:
        prefix = Path(prefix)
        self.index = prefix.with_name(prefix.name + ".idx")
        self.data = prefix.with_name(prefix.name + ".bin").open("wb")
        self.dtype = np.dtype(dtype)
        self.sizes: List[np.ndarray] = []  # one array for each call of `add`

    def add(self, tokens: np.ndarray, sizes: Union[Sequence[int], np.ndarray]) -> None:
        """Appends sentences.

        Args:
            tokens: (sum of sizes,) ids; every sentence ends with EOS.
            sizes: (sentences,) tokens of each sentence.
        """
        self.data.write(np.ascontiguousarray(tokens, dtype=self.dtype).tobytes())
        self.sizes.append(np.asarray(sizes, dtype=np.int32))

    def close(self) -> None:
        """Writes the index; both files are then on disk."""
        self.data.flush()
        os.fsync(self.data.fileno())
        self.data.close()
        sizes = np.concatenate([np.zeros(0, np.int32), *self.sizes])
        self.sizes = []
        with self.index.open("wb") as index:
            index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], len(sizes)))
            index.write(sizes.data)
            end = 0
            for start in range(0, len(sizes), OFFSETS_AT_A_TIME):
                block = sizes[start : start + OFFSETS_AT_A_TIME]
                offsets, end = _offsets(block, self.dtype.itemsize, end)
                index.write(offsets.data)
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.data.close()
