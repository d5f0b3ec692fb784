"""Files of named arrays: the parts of a store, and the store that they become.

Both are safetensors files: memory-mapped, readable from any language, and no pickle. A store has
the arrays of its parts, concatenated, and others that were computed from all of them. A part has a
checksum in its metadata; the hash of a store is in the manifest.
"""

import contextlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Tuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

TYPES: Dict[str, "np.dtype[Any]"] = {  # as the format spells them
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
RETRY = "remove it and run the command again"  # advice for a damaged part

# The type of each array, and its shape without the first dimension, by name.
Layout = Dict[str, Tuple["np.dtype[Any]", Tuple[int, ...]]]


@contextlib.contextmanager
def opened(path: Path, advice: str = RETRY) -> Iterator[Any]:
    """Opens a file whose size fits its header. Refuses others, with advice on what to do."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; run the command again") from None
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise Refusal(f"{path} is damaged ({error}); {advice}") from None


def is_whole(path: Path) -> bool:
    """Whether a file has the size that its header says. The content is not read."""
    try:
        with opened(path):
            return True
    except Refusal:
        return False


def write(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Writes a file of named arrays, with their checksum."""
    # safetensors would mix up the numbers of arrays that are not contiguous.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with whole_file(path) as file:
        file.write(to_safetensors(arrays, {"crc32": checksum(arrays)}))


def read(path: Path) -> Dict[str, np.ndarray]:
    """Reads all arrays of a file. Raises Refusal if it is damaged, or its checksum differs."""
    with opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        expected = (file.metadata() or {}).get("crc32")
    if expected not in (None, checksum(arrays)):
        raise Refusal(f"{path} is damaged: its checksum is another; {RETRY}")
    return arrays


def checksum(arrays: Dict[str, np.ndarray]) -> str:
    """Returns the CRC-32 of the bytes of arrays, in the order of their names."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].data, total)
    return str(total)


def same_layout(path: Path, arrays: Dict[str, np.ndarray], layout: Layout) -> Layout:
    """Returns the layout of a part, which must be that of the parts before it.

    Args:
        path: the part.
        arrays: its arrays.
        layout: the layout of the parts before it; empty for the first part.
    """
    own = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
    if layout not in ({}, own):
        raise Refusal(f"{path} holds other arrays than the parts before it; {RETRY}")
    return own


def join(
    parts: Sequence[Path],
    out: Path,
    lengths: Dict[str, int],
    layout: Layout,
    computed: Dict[str, np.ndarray],
) -> None:
    """Writes a store. Memory is that of the computed arrays, and of one array of one part.

    Args:
        parts: files of arrays with the same layout, in order.
        out: the file to write.
        lengths: the first dimension of each concatenated array.
        layout: the layout of the parts.
        computed: further arrays.
    """
    shapes = {name: (dtype, (lengths[name], *inner)) for name, (dtype, inner) in layout.items()}
    shapes.update({name: (array.dtype, array.shape) for name, array in computed.items()})
    # The widest types first, so that every array is aligned to its own type in the file.
    order = sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name not in computed, name))
    header: Dict[str, Any] = {}
    offset = 0
    for name in order:
        dtype, shape = shapes[name]
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entry = {"dtype": NAMES[dtype], "shape": list(map(int, shape))}
        header[name] = {**entry, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(out) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            if name in computed:
                file.write(np.ascontiguousarray(computed[name]).data)
                continue
            for path in parts:
                with opened(path) as part:
                    content = part.get_tensor(name).tobytes()
                file.write(content)  # outside: a full disk does not mean a damaged part


def mapped(path: Path, advice: str) -> Dict[str, np.ndarray]:
    """Maps all arrays of a file. Refuses a damaged file, with advice on what to do."""
    with opened(path, advice), path.open("rb") as file:  # opened: the header is sound
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    arrays: Dict[str, np.ndarray] = {}
    for name, entry in header.items():
        dtype, shape = TYPES.get(entry["dtype"]), tuple(entry["shape"])
        if dtype is None:
            raise Refusal(f"{path} holds numbers of type {entry['dtype']}, not of ours; {advice}")
        if all(shape):
            offset = 8 + size + entry["data_offsets"][0]
            arrays[name] = np.memmap(path, dtype, "r", offset, shape)
        else:
            arrays[name] = np.zeros(shape, dtype)
    return arrays
