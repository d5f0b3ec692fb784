"""fairseq's mmap format: the token ids of one side of a split (``.bin``) and their index (``.idx``).

The index is a header, the number of tokens of each sentence (int32), and the offset of each
sentence in bytes (int64). fairseq's own builder is not used: it keeps Python lists of sizes, and
its merge overflows beyond 2 GiB under NumPy 2.
"""

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Type, Union

import numpy as np

from fairseq_seqkd.errors import Refusal

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
CODES: Dict[
    "np.dtype[Any]", int
] = {  # of token types, as fairseq/data/indexed_dataset.py numbers them
    np.dtype(np.uint16): 8,
    np.dtype(np.int32): 4,
    np.dtype(np.uint32): 9,
    np.dtype(np.int64): 5,
    np.dtype(np.uint64): 10,
}
TYPES = {code: dtype for dtype, code in CODES.items()}
HEADER = struct.Struct(f"<{len(MAGIC)}sQBQ")  # magic, version, code of the token type, sentences
BYTES_PER_SENTENCE = 12  # of an index: a size and an offset

POINTERS_AT_A_TIME = 1 << 12  # so that the offsets are never all in memory
TOKENS_AT_A_TIME = 1 << 20


class Header(NamedTuple):
    """The header of an index."""

    version: int
    code: int
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
        header = file.read(HEADER.size)
    return Header(*HEADER.unpack(header)[1:]) if len(header) == HEADER.size else None


def read_dtype(index: Path) -> "np.dtype[Any]":
    """Reads the token type of an index."""
    header = read_header(index)
    if header is None or header.code not in TYPES:
        raise Refusal(f"{index} has an unknown token type; run fairseq-preprocess again")
    return TYPES[header.code]


def map_sizes(index: Path) -> np.ndarray:
    """Maps the number of tokens of each sentence, EOS included: (sentences,) int32."""
    header = read_header(index)
    if header is None or not header.sentences:
        return np.zeros(0, np.int32)
    return np.memmap(index, np.int32, "r", HEADER.size, header.sentences)


def has_ids_below(data: Path, dtype: "np.dtype[Any]", vocabulary: int) -> bool:
    """Whether all token ids of a ``.bin`` file are symbols of a dictionary of this size."""
    tokens = np.memmap(data, dtype, "r")
    blocks = (tokens[i : i + TOKENS_AT_A_TIME] for i in range(0, len(tokens), TOKENS_AT_A_TIME))
    return all(0 <= block.min() <= block.max() < vocabulary for block in blocks)


def check_pair(index: Path, data: Path) -> None:
    """Refuses an index and data that are damaged or do not belong together."""
    if not _belong_together(index, data):
        raise Refusal(f"{index} and {data.name} are damaged, or not of one split; copy them again")


def _belong_together(index: Path, data: Path) -> bool:
    """Whether an index is complete, and its sentences fill the data without gaps."""
    header = read_header(index)
    if header is None or header.version != VERSION or header.code not in TYPES:
        return False
    count = header.sentences
    if index.stat().st_size != HEADER.size + BYTES_PER_SENTENCE * count:
        return False
    itemsize, sizes = TYPES[header.code].itemsize, map_sizes(index)
    offsets = (
        np.memmap(index, np.int64, "r", HEADER.size + 4 * count, count)
        if count
        else np.zeros(0, np.int64)
    )
    end = 0
    for start in range(0, count, POINTERS_AT_A_TIME):
        lengths = sizes[start : start + POINTERS_AT_A_TIME].astype(np.int64) * itemsize
        ends = end + np.cumsum(lengths)
        expected = ends - lengths
        if lengths.min() < 0 or (offsets[start : start + POINTERS_AT_A_TIME] != expected).any():
            return False
        end = int(ends[-1])
    return end == data.stat().st_size


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
        sizes = np.concatenate(self.sizes) if self.sizes else np.zeros(0, np.int32)
        self.sizes = []
        with self.index.open("wb") as index:
            index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], len(sizes)))
            index.write(sizes.data)
            offset = 0
            for start in range(0, len(sizes), POINTERS_AT_A_TIME):
                lengths = sizes[start : start + POINTERS_AT_A_TIME].astype(np.int64)
                ends = offset + np.cumsum(lengths * self.dtype.itemsize)
                index.write((ends - lengths * self.dtype.itemsize).data)
                offset = int(ends[-1])
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.data.close()
