"""Hashes of files, by which manifests and results recognise data and checkpoints."""

import hashlib
from pathlib import Path
from typing import Union

READ_SIZE = 1 << 20  # bytes


def sha256(*paths: Union[str, Path]) -> str:
    """Returns one SHA-256, in hexadecimal, of the contents of files in this order."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while block := file.read(READ_SIZE):
                digest.update(block)
    return digest.hexdigest()
