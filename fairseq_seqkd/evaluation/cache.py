"""Measurements that are kept, one file each, named by the content of everything that decides them (`seqkd evaluate`).

A checkpoint that moved, or has another name now, is still the same measurement; a checkpoint that was trained further is another.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

FORMAT = 1  # another one where the measurements themselves change


def default_folder():
    """Where programs keep what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairseq_seqkd"


def key(facts):
    """The name of what these facts decide: a dictionary for JSON."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """A folder of JSON files. It may be removed at any time."""

    def __init__(self, folder=None):
        self.folder = Path(folder) if folder else default_folder()

    def prepare(self):
        """Raises Refusal for a folder in which nothing can be kept, before there is anything to keep."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise Refusal(
                f"{self.folder} cannot be written: {error.strerror or error}; name another with --cache"
            ) from None

    def get(self, name):
        """The content under a key, or None. A file that is damaged counts as absent: it is made again, and replaced."""
        try:
            content = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise Refusal(
                f"{self.folder} cannot be read: {error.strerror or error}; name another folder with --cache"
            ) from None
        return content if isinstance(content, dict) else None

    def put(self, name, content):
        with whole_file(self.folder / f"{name}.json") as file:
            file.write(json.dumps(content, ensure_ascii=False).encode())
