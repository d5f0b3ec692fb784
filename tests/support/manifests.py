"""Reads, writes and makes up manifests as the JSON that is on disk, without the package."""

import json
from pathlib import Path
from typing import Any, Dict, Union

ENGINE = {"name": "fairseq", "fairseq": "fairseq 0", "precision": "float32"}


def read(folder: Union[str, Path]) -> Dict[str, Any]:
    """Returns the content of a directory's manifest."""
    return json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))


def write(folder: Union[str, Path], content: Dict[str, Any]) -> None:
    """Writes a manifest with this content."""
    text = json.dumps({"format": "fairseq_seqkd/1", **content})
    (Path(folder) / "manifest.json").write_text(text, encoding="utf-8")


def data_settings(sentences: int) -> Dict[str, Any]:
    """Returns settings.data of a manifest."""
    keys = ("split", "source_lang", "target_lang", "source_sha256", "target_sha256")
    return {**dict.fromkeys(keys, "x"), "dictionaries_sha256": ["x", "x"], "sentences": sentences}


def content(**more: Any) -> Dict[str, Any]:
    """Returns the least that the manifest of a decode holds: 250 sentences in parts of 100."""
    search = {
        "beam": 5,
        "nbest": 5,
        "lenpen": 1.0,
        "sampling": False,
        "seed": None,
        "retain_dropout": False,
    }
    return {
        "kind": "distilled",
        "signature": "teacher:fake|beam:5",
        "sentences": 250,
        "complete": False,
        "settings": {
            "data": data_settings(250),
            "teacher": {"sha256": ["x"]},
            "engine": ENGINE,
            "plan": {"part_size": 100, "max_tokens": 100, "max_sentences": None},
            "search": {**search, "longest_source": 100},
            "similarity": None,
            "select": "mode",
        },
        **more,
    }
