"""Files of arrays: parts that are written one by one, and the one file that they become.

Both are safetensors files: memory-mapped, readable from any language, and no pickle. The whole file is the parts' arrays
end to end, and what was computed from all of them. A part has a checksum in its metadata; of the whole, the manifest has a hash.
"""

import contextlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

TYPES = {  # as the format spells them
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


@contextlib.contextmanager
def opened(path, otherwise="remove it and run the command again"):
    """The open file, checked against its header; refuses one that is damaged. Args: otherwise: what to do then."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; run the command again") from None
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise Refusal(f"{path} is damaged ({error}); {otherwise}") from None


def is_whole(path):
    """Whether a file has the size that its header says: a look at the header, not at the content."""
    try:
        with opened(path):
            return True
    except Refusal:
        return False


def write(path, arrays):
    """Writes a file of named arrays, whole or not at all."""
    arrays = {
        key: np.ascontiguousarray(array) for key, array in arrays.items()
    }  # safetensors would mix up the others' numbers
    with whole_file(path) as file:
        file.write(to_safetensors(arrays, {"crc32": checksum(arrays)}))


def read(path):
    """All arrays of a file, by name. Raises Refusal for a file that is damaged, and where its checksum says that it is."""
    with opened(path) as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
        said = (file.metadata() or {}).get("crc32")
    if said not in (None, checksum(found)):
        raise Refusal(
            f"{path} is damaged: its checksum is another; remove it and run the command again"
        )
    return found


def checksum(arrays):
    """Of the bytes of arrays, in the order of their names."""
    total = 0
    for key in sorted(arrays):
        total = zlib.crc32(arrays[key], total)
    return str(total)


def layout(arrays):
    """What parts of one whole must have in common: {name: (type, shape without the first dimension)}."""
    return {key: (array.dtype, array.shape[1:]) for key, array in sorted(arrays.items())}


def join(paths, out, lengths, shapes, computed):
    """Writes `out`: arrays of the parts end to end, and `computed` ones; memory is that of one part, besides the latter.

    Args:
        paths: of the parts, in order; lengths: {name: first dimension of the whole}.
        shapes: layout of the arrays that are joined; computed: {name: array} of the others.
    """
    parts = {key: (dtype, (lengths[key], *inner)) for key, (dtype, inner) in shapes.items()}
    arrays = {**parts, **{key: (array.dtype, array.shape) for key, array in computed.items()}}
    # The widest types first, so that every array is aligned to its own type in the file.
    order = sorted(arrays, key=lambda key: (-arrays[key][0].itemsize, key not in computed, key))
    header, offset = {}, 0
    for key in order:
        dtype, shape = arrays[key]
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[key] = {
            "dtype": NAMES[dtype],
            "shape": list(map(int, shape)),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(out) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            if key in computed:
                file.write(
                    memoryview(np.ascontiguousarray(computed[key])).cast("B")
                    if computed[key].size
                    else b""
                )
                continue
            for path in paths:
                with opened(path) as part:
                    content = part.get_tensor(key).tobytes()
                file.write(content)  # outside: a full disk is no damaged part


def mapped(path, otherwise):
    """{name: array} of a whole file, mapped from the disk rather than read. Args: otherwise: as of `opened`."""
    with opened(path, otherwise), Path(path).open(
        "rb"
    ) as file:  # from here on the header is known to be sound
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    found = {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        if entry["dtype"] not in TYPES:
            raise Refusal(
                f"{path} holds numbers of type {entry['dtype']}, which none of ours does; {otherwise}"
            )
        dtype, shape = TYPES[entry["dtype"]], tuple(entry["shape"])
        where = {"offset": 8 + size + entry["data_offsets"][0], "shape": shape}
        found[key] = np.memmap(path, dtype, "r", **where) if all(shape) else np.zeros(shape, dtype)
    return found
