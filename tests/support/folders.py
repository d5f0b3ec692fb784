"""Compares folders bit by bit, and makes changed checkpoints."""

from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Union


def tree(
    folder: Union[str, Path], ignore: Sequence[str] = (".lock", "decoding.log")
) -> Dict[str, bytes]:
    """Returns the content of every file in a folder, by its relative path.

    Args:
        folder: the folder.
        ignore: names of files that may differ between two runs.
    """
    folder = Path(folder)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ignore
    }


def changed(
    checkpoint: Union[str, Path], path: Path, change: Callable[[Dict[str, Any]], Any]
) -> Path:
    """Writes a checkpoint that differs from another by what `change` does to its state."""
    import torch

    from fairseq_seqkd import compat  # noqa: F401  (makes torch load fairseq's checkpoints)

    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, path)
    return path
