"""Modules that start quickly, or that machines without torch use, do not import heavy libraries."""

import pytest
from commands import run_python

CODE = """
import importlib, sys
module, *heavy = sys.argv[1:]
importlib.import_module(module)
imported = set(heavy) & set(sys.modules)
assert not imported, imported
"""


@pytest.mark.trap(28)
@pytest.mark.parametrize(
    "module,heavy",
    [
        ("report.table1", ["torch", "fairseq"]),
        ("selection.pool", ["torch", "fairseq"]),  # its workers are processes
        ("engines.length_limit", ["torch", "fairseq", "numpy"]),  # deployed students use it
    ],
)
def test_a_module_does_not_import_heavy_libraries(module, heavy):
    done = run_python("-c", CODE, f"fairseq_seqkd.{module}", *heavy)
    assert done.returncode == 0, done.stderr
