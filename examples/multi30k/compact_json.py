"""Rewrite measured JSON with one row per line, for files that are committed.

    python examples/multi30k/compact_json.py examples/multi30k/measured/*.json

`seqkd evaluate` and `seqkd bench` indent what they write. The content of a rewritten file is the
same; only the white space differs.
"""

import argparse
import json
from pathlib import Path


def compact(content):
    """The text of a JSON object with one line per key, and one line per row of a list.

    Args:
        content: a dictionary with string keys, as `json.loads` returns it.
    """
    entries = [f"{to_line(key)}: {to_rows(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def to_rows(value):
    """A list of objects with one object per line; any other value on a single line."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return "[\n" + ",\n".join(map(to_line, value)) + "\n]"
    return to_line(value)


def to_line(value):
    """A JSON value on a single line."""
    return json.dumps(value, ensure_ascii=False)


def rewrite(path):
    """Replace a file by its compact form, after checking that nothing but white space changes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    text = compact(content)
    if json.loads(text) != content:
        raise SystemExit(f"compact_json: {path} would change; it is left as it is")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a JSON file")
    for file in parser.parse_args().files:
        rewrite(file)
