"""A compact file for a pruned checkpoint: for each tensor with zeros a bitmap and the other values, everything bit by bit.

It is a safetensors file, so reading it runs no code. Its metadata hold, as JSON, the checkpoint's structure, in which
{"$": KIND, ...} stands for what JSON has not; what KINDs there are is said in `encode`. A tensor n is there as `n` (all its
values) or as `n.bits` (1 where a value is not zero, eight to a byte, first to last) and `n.values` (those).
Zero means all bits zero, so that -0.0 survives. The optimizer's state is left out. The metadata have a checksum of it all.
"""

import json
import zlib
from argparse import Namespace

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

FORMAT = "fairseq_seqkd/sparse/1"
BITS_AS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOATS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def compress(state, path, half=False):
    """Writes a checkpoint's state, without its optimizer's, to a sparse file, whole or not at all.

    Args: half: store float32 values in 16 bits, which rounds them; restored they are float32 again.
    """
    tensors, numbers = {}, {}

    def keep(tensor):
        """The number under which a tensor is stored; tied ones have one."""
        same = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype))
        if tensor.numel() and same in numbers:
            return numbers[same]
        number = len(numbers) if tensor.numel() else f"empty{len(tensors)}"
        numbers[same] = number
        tensor = tensor.detach().cpu().contiguous()
        flat = tensor.flatten()
        mask = torch.ones(len(flat), dtype=torch.bool)
        if flat.is_floating_point():
            mask = flat.view(BITS_AS[flat.element_size()]) != 0
        small = torch.float16 if half and tensor.dtype == torch.float32 else tensor.dtype
        if len(flat) / 8 + int(mask.sum()) * small.itemsize < len(flat) * small.itemsize:
            tensors[f"{number}.bits"] = torch.from_numpy(np.packbits(mask.numpy()))
            tensors[f"{number}.values"] = flat[mask].to(small)
        else:
            tensors[str(number)] = flat.to(small)
        return number

    kept = {key: value for key, value in state.items() if key != "last_optimizer_state"}
    text = json.dumps(encode({**kept, "last_optimizer_state": None}, keep))
    with whole_file(path) as file:
        file.write(
            to_safetensors(
                tensors, {"format": FORMAT, "state": text, "crc32": checksum(text, tensors)}
            )
        )


def restore(path):
    """The state that a sparse file holds. Raises Refusal for any other file, and for one that is damaged."""
    damaged = Refusal(
        f"{path} is damaged: its parts do not fit together; compress the checkpoint again"
    )
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise Refusal(
                    f"{path} is no sparse checkpoint of this version; make one with `seqkd compress`"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except FileNotFoundError:
        raise Refusal(f"the file {path} does not exist; check the path") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise Refusal(
            f"{path} is no sparse checkpoint, or damaged ({error}); make one with `seqkd compress`"
        ) from None
    if about.get("crc32") != checksum(about.get("state", ""), tensors):
        raise Refusal(
            f"{path} is damaged: its checksum is another; copy it again, or compress the checkpoint again"
        )
    made = {}

    def tensor_of(number, shape, dtype):
        if number not in made:
            made[number] = fill(tensors, number, shape, dtype)
        return made[number]

    try:
        state = decode(json.loads(about["state"]), tensor_of)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError):
        raise damaged from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise damaged
    return state


def checksum(text, tensors):
    """Of the structure and of the bytes of all tensors, in the order of their names."""
    total = zlib.crc32(text.encode())
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].view(torch.uint8).numpy(), total)
    return str(total)


def fill(tensors, number, shape, dtype):
    """A tensor from its values, or its bitmap and values. Raises ValueError where they do not fit together."""
    size = 1
    for length in shape:
        size *= length
    if f"{number}.bits" not in tensors:
        return tensors[str(number)].to(dtype).view(shape)
    bits, values = tensors[f"{number}.bits"], tensors[f"{number}.values"]
    if bits.dtype != torch.uint8 or len(bits) != -(
        -size // 8
    ):  # before anything of that size is made
        raise ValueError("bitmap")
    mask = torch.from_numpy(np.unpackbits(bits.numpy(), count=size)).bool()
    if int(mask.sum()) != len(values):
        raise ValueError("values")
    flat = torch.zeros(size, dtype=dtype)
    flat[mask] = values.to(dtype)
    return flat.view(shape)


def encode(value, keep):
    """JSON for a checkpoint's structure. Args: keep: tensor -> the number under which it is stored."""
    if (
        value is None
        or isinstance(value, (bool, int, float, str))
        and not isinstance(value, np.generic)
    ):
        return value
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).split(".")[-1]
        return {"$": "tensor", "n": keep(value), "shape": list(value.shape), "dtype": dtype}
    if isinstance(value, (np.ndarray, np.generic)):  # what --eval-bleu leaves
        return {
            "$": "numpy",
            "dtype": str(value.dtype),
            "v": value.tolist(),
            "scalar": isinstance(value, np.generic),
        }
    if isinstance(value, Namespace):
        return {"$": "namespace", "v": encode(vars(value), keep)}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and "$" not in value:
            return {key: encode(inner, keep) for key, inner in value.items()}
        return {
            "$": "dict",
            "v": [[encode(key, keep), encode(inner, keep)] for key, inner in value.items()],
        }
    if isinstance(value, (list, tuple)):
        found = [encode(inner, keep) for inner in value]
        return found if isinstance(value, list) else {"$": "tuple", "v": found}
    raise Refusal(
        f"the checkpoint holds a {type(value).__name__}, which a sparse file cannot; use one that fairseq-train wrote"
    )


def decode(value, tensor_of):
    """What `encode` was given. Args: tensor_of: (number, shape, type) -> the stored tensor."""
    if isinstance(value, list):
        return [decode(inner, tensor_of) for inner in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {key: decode(inner, tensor_of) for key, inner in value.items()}
    if kind == "tensor":
        return tensor_of(
            value["n"], [int(length) for length in value["shape"]], torch_type(value["dtype"])
        )
    if kind == "numpy":
        array = np.array(value["v"], numpy_type(value["dtype"]))
        return array[()] if value["scalar"] else array
    inner = value["v"]
    if kind == "namespace":
        return Namespace(**decode(inner, tensor_of))
    if kind == "dict":
        return {decode(key, tensor_of): decode(content, tensor_of) for key, content in inner}
    if kind == "tuple":
        return tuple(decode(content, tensor_of) for content in inner)
    raise ValueError(kind)


def torch_type(name):
    types = {
        **FLOATS,
        **{n: getattr(torch, n) for n in ("int8", "int16", "int32", "int64", "uint8", "bool")},
    }
    return types[name]


def numpy_type(name):
    if name not in ("int32", "int64", "float32", "float64", "bool"):
        raise ValueError(name)
    return name
