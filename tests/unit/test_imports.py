"""Imports go down only, as the table in docs/architecture.md says."""

import ast
import re
from pathlib import Path
from typing import Dict, Iterator

import pytest

import fairseq_seqkd

PACKAGE = Path(fairseq_seqkd.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ENTRIES = {"__init__", "__main__"}  # of the package itself: they may import anything

if not PAGE.is_file():
    pytest.skip("the pages are in a clone, not in an installed package", allow_module_level=True)


def read_levels() -> Dict[str, int]:
    """Returns the level of each room in the table of the page, 1 on top."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", PAGE.read_text(), flags=re.M)
    return {
        name: int(level)
        for level, rooms in rows
        for name in re.findall(r"`(\w+)(?:/|\.py)`", rooms)
    }


LEVELS = read_levels()
MODULES = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}


def imported_rooms(path: Path) -> Iterator[str]:
    """Yields the rooms that a module imports from, at its top, in its functions, or for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "fairseq_seqkd":
            yield from (alias.name for alias in node.names if alias.name in LEVELS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairseq_seqkd."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            yield from (name[1] for name in names if name[0] == "fairseq_seqkd" and len(name) > 1)


def test_the_page_names_every_room():
    rooms = {parts[0] for parts in MODULES.values()} - ENTRIES
    assert rooms == set(LEVELS)


@pytest.mark.parametrize(
    "path",
    sorted(p for p, parts in MODULES.items() if parts[0] not in ENTRIES),
    ids=lambda path: "/".join(MODULES[path]),
)
def test_imports_go_down(path):
    room = MODULES[path][0]
    upwards = {
        other for other in imported_rooms(path) if other != room and LEVELS[other] <= LEVELS[room]
    }
    assert not upwards
