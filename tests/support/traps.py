"""The traps of fairseq, and the check that each has a test.

A test that shows that the package stays out of a trap is marked `@pytest.mark.trap(number)`.
"""

from pathlib import Path
from typing import Any, List, Set

import pytest

TRAPS = {
    1: "a last batch whose size is no multiple of 8 is dropped, with the longest sentences",
    2: "modules of a criterion are optimised, saved, wrapped by DDP, and put in training mode",
    3: "building a model replaces the task's generator, so validation BLEU is the teacher's",
    4: "only registered modules are moved to a device and halved",
    5: "a run resumes with the criterion that it began with; another one is fine-tuning",
    6: "a criterion takes no **kwargs; the loss of a dummy batch is multiplied by 0",
    7: "fairseq-generate ignores --num-shards; --distributed-rank and -world-size are shards",
    8: "--results-path is overwritten; its text is in the order of batches, in base 2",
    9: "sentences that are too long raise, or vanish with a warning",
    10: "fairseq-generate reads the first of several data directories",
    11: "fairseq-generate adds words to the dictionary while it scores its text",
    12: "hypotheses may be the same text; a beam is smaller than the dictionary",
    13: "--user-dir imports a package, its tasks/ and models/, but no criterions/",
    14: "fairseq-generate divides by zero if nothing is to be decoded",
    15: "a task sees the options of the search by interpolation only, and those of --bpe never",
    16: "fairseq counts GPUs to start processes, so it starts none on CPUs",
    17: "SLURM gives a job array no ranks",
    18: "fairseq-generate knows no RANK and no LOCAL_RANK: all processes decode all on GPU 0",
    19: "the order of sentences depends on the seed and on the lengths of gold",
    20: "--quiet makes text and scores it all the same; only an empty batch has none",
    21: "the second of two options with one name is dropped without a word",
    22: "data files are overwritten in place, and cannot be mapped without a token",
    23: "an exception in forward is a crash; all ranks must log the same keys",
    24: "checkpoint_best.pt has the best loss on gold, which Seq-KD makes worse",
    25: "ids count through concatenated data; a dummy batch may be of the validation split",
    26: "old momentum, averages and flattened parameters bring pruned weights back",
    27: "--bf16 means TPUs; --fp16 without a GPU needs another option",
    28: "importing fairseq takes four seconds",
    "NumPy": "checkpoints hold NumPy values, which torch does not load with weights only",
    "threads": "the last bits of a score depend on the number of threads",
    "names": "settings are handed on as strings in quotes, which a file name may contain",
}

MARKER = "trap(number, ...): shows that the package stays out of these traps of fairseq"


def check(items: List[pytest.Item], folder: Path) -> None:
    """Checks that marks name traps, and, if all tests were collected, that every trap has a mark.

    Args:
        items: the collected tests, before any are deselected.
        folder: the folder of all tests.

    Raises:
        pytest.UsageError: names the unknown traps, or those without a test.
    """
    marked = {trap for item in items for mark in item.iter_markers("trap") for trap in mark.args}
    _refuse("there is no trap", marked - set(TRAPS))
    files = {path for path in folder.rglob("test_*.py")}
    if files <= {item.path for item in items}:
        _refuse("no test is marked with trap", set(TRAPS) - marked)


def _refuse(sentence: str, traps: Set[Any]) -> None:
    if traps:
        raise pytest.UsageError(f"{sentence} {', '.join(sorted(map(repr, traps)))}")
