"""A checkpoint as a small file: without its optimizer state, compressed with lzma.

The content is what ``torch.save`` writes, in which lzma finds the zeros of a pruned model. It is
read with weights only, so no content can run code.
"""

import io
import lzma
from pathlib import Path
from typing import Any, Dict, Tuple, Union

import torch

from fairseq_seqkd import compat
from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal


def compress(state: Dict[str, Any], path: Union[str, Path], half: bool = False) -> None:
    """Writes the state of a checkpoint, without that of its optimizer, to a compressed file.

    Args:
        state: of a Checkpoint.
        path: the file to write, atomically.
        half: whether to round float32 tensors to 16 bits. They stay float32, and take less space.
    """
    kept = {**state, "last_optimizer_state": None}
    with whole_file(path) as file, lzma.open(file, "wb") as packed:
        torch.save(_rounded(kept, {}) if half else kept, packed)


def restore(path: Union[str, Path], output: Union[str, Path]) -> None:
    """Writes the checkpoint that a compressed file holds.

    Raises:
        Refusal: the file is missing or damaged, is no compressed checkpoint, or would run code
            when loaded.
    """
    try:
        content = lzma.decompress(Path(path).read_bytes())
    except FileNotFoundError:
        raise Refusal(f"the file {path} does not exist; check the path") from None
    except (lzma.LZMAError, OSError) as error:
        raise Refusal(
            f"{path} is damaged, or no file of this version of `seqkd compress` ({error}); "
            "compress the checkpoint again"
        ) from None
    compat.load_safely(io.BytesIO(content), str(path))
    with whole_file(output) as file:
        file.write(content)


def _rounded(value: Any, known: Dict[Tuple[Any, ...], torch.Tensor]) -> Any:
    """Rounds the float32 tensors in nested dictionaries to 16 bits; tied ones stay one tensor."""
    if isinstance(value, dict):
        return {key: _rounded(inner, known) for key, inner in value.items()}
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    identity = (value.data_ptr(), value.shape, value.stride())
    return known.setdefault(identity, value.half().float())
