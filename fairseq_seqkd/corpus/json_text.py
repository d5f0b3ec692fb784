"""JSON in one fixed form: equal records are equal bytes. Manifests are written with it."""

import json
from typing import Any, Dict

import msgspec
import numpy as np

AT_A_TIME = 4096  # numbers of an array that are formatted together


class OpenRecord(msgspec.Struct, kw_only=True):
    """A record whose JSON object has further keys, e.g. because they depend on fairseq's version.

    They are kept in `others`, and written back beside the declared ones.
    """

    others: Dict[str, Any] = {}

    @classmethod
    def of(cls, entries: Dict[str, Any]) -> Any:
        """Builds the record from declared and further entries together."""
        return cls(**gather(entries, cls))


def gather(entries: Any, record: Any) -> Any:
    """Moves the keys of a JSON object that an OpenRecord does not declare to its `others`.

    Args:
        entries: the object; a value of another type is returned as it is.
        record: the class of the OpenRecord.
    """
    if not isinstance(entries, dict):
        return entries
    declared = set(record.__struct_fields__) - {"others"}
    known = {name: entries[name] for name in declared if name in entries}
    others = {name: value for name, value in entries.items() if name not in declared}
    return {**known, "others": others}


def tree(value: Any) -> Any:
    """Returns records as the nested dictionaries that are on disk. NumPy arrays are kept.

    A field whose default is None is left out while it is None.
    """
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        entries: Dict[str, Any] = {config.tag_field: config.tag} if config.tag_field else {}
        for field in msgspec.structs.fields(value):
            content = getattr(value, field.name)
            if content is not None or field.default is not None:
                entries[field.encode_name] = content
        if isinstance(value, OpenRecord):
            entries.update(entries.pop("others"))
        value = entries
    if isinstance(value, dict):
        return {name: tree(content) for name, content in value.items()}
    return [tree(entry) for entry in value] if isinstance(value, list) else value


def dump(value: Any, indent: int = 0) -> str:
    """Formats a tree: one line for each entry of a dictionary, and each list on one line.

    A list may be a NumPy array: it is formatted in blocks, so that millions of ids are never
    Python integers at once.
    """
    if isinstance(value, np.ndarray):
        blocks = (value[i : i + AT_A_TIME].tolist() for i in range(0, len(value), AT_A_TIME))
        return f"[{', '.join(json.dumps(block)[1:-1] for block in blocks)}]"
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = " " * (indent + 1)
    entries = (f"{inner}{json.dumps(key)}: {dump(value[key], indent + 1)}" for key in sorted(value))
    return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"
