"""A cache of measurements, keyed by everything that decides them (`seqkd evaluate`).

A checkpoint that moved or has another name is still the same measurement. A checkpoint that was
trained further is another one.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional, Union

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

FORMAT = 1  # raise it if the measurements themselves change


def default_folder() -> Path:
    """Returns the folder for files that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairseq_seqkd"


def key(facts: Dict[str, Any]) -> str:
    """Returns the name of what these facts decide."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """A folder of JSON files. It may be removed at any time.

    Args:
        folder: the folder (default: `default_folder`).

    Raises:
        Refusal: the folder cannot be written.
    """

    def __init__(self, folder: Union[str, Path, None] = None) -> None:
        self.folder = Path(folder) if folder else default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._refusal("written", error) from None

    def get(self, name: str) -> Optional[Dict[str, Any]]:
        """Returns the content under a key, or None. A damaged file counts as absent."""
        try:
            content = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise self._refusal("read", error) from None
        return content if isinstance(content, dict) else None

    def put(self, name: str, content: Dict[str, Any]) -> None:
        """Keeps a dictionary under a key."""
        with whole_file(self.folder / f"{name}.json") as file:
            file.write(json.dumps(content, ensure_ascii=False).encode())

    def _refusal(self, action: str, error: OSError) -> Refusal:
        reason = error.strerror or error
        return Refusal(
            f"{self.folder} cannot be {action}: {reason}; name another folder with --cache"
        )
