"""Table 3 of Kim & Rush (2016): the cost of pruning."""

import re
from typing import Dict, List, Optional, Sequence

import msgspec

from fairseq_seqkd.report import formatting
from fairseq_seqkd.report.formatting import Column, Note, number_column
from fairseq_seqkd.report.records import PrunedRow, Row

TEACHER = "Teacher"  # the row that ratios refer to; without it, the largest model
PRUNED = 0.01  # a smaller share of zeros is chance, and the embedding of padding
SHARE_IN_NAME = re.compile(r"^(.*?)[ ,@-]*\d+(?:\.\d+)? ?%(.*)$")  # "Seq-KD 80% retrained"


def zeros(row: Row) -> Optional[float]:
    """Returns the share of the parameters that are zero; None if unknown, or if all are zero."""
    return 1 - row.nonzero_params / row.params if row.nonzero_params and row.params else None


def make_rows(rows: Sequence[Row]) -> List[PrunedRow]:
    """Returns the rows of Table 1 with their pruned shares; none if no model is pruned."""
    shares = {row.name: share for row in rows if (share := zeros(row)) is not None}
    if not any(share >= PRUNED for share in shares.values()):
        return []
    counted = [row for row in rows if row.params]
    largest = max(counted, key=lambda row: row.params or 0)
    whole = next((row for row in counted if row.name == TEACHER), largest)
    return [
        PrunedRow(
            **msgspec.structs.asdict(row),
            pruned=shares[row.name],
            ratio=(whole.params or 0) / (row.nonzero_params or 1),
            ratio_to=whole.name,
        )
        for row in counted
        if row.name in shares
    ]


COLUMNS = (
    Column("Model", lambda row: str(row.name)),
    Column("pruned", lambda row: formatting.percent(row.pruned) if row.pruned >= PRUNED else "0%"),
    number_column("non-zero", "nonzero_params", formatting.millions),
    number_column("BLEU K=1", "bleu_greedy", "{:.2f}".format),
    number_column("BLEU K=5", "bleu_beam5", "{:.2f}".format),
    number_column("ratio", "ratio", "{:.1f}".format),
)


def notes(rows: Sequence[PrunedRow]) -> List[Note]:
    """Returns the notes on the columns."""
    ratio = f"parameters of {rows[0].ratio_to} divided by the non-zero parameters."
    return [Note("pruned", "share of all parameters that are zero."), Note("ratio", ratio)]


def markdown(rows: Sequence[PrunedRow]) -> str:
    """Returns the table with its notes."""
    return formatting.with_notes(COLUMNS, rows, notes(rows))


def series(rows: Sequence[PrunedRow]) -> Dict[str, List[PrunedRow]]:
    """Returns the lines of the figure: names that differ in a percentage only.

    The model that was pruned begins its line.
    """
    whole = {row.name: row for row in rows if row.pruned < PRUNED}
    lines: Dict[str, List[PrunedRow]] = {}
    for row in rows:
        if row.pruned < PRUNED:
            continue
        match = SHARE_IN_NAME.match(row.name)
        before, after = (part.strip() for part in match.groups()) if match else (row.name, "")
        start = [whole[before]] if before in whole else []
        lines.setdefault(f"{before} {after}".strip(), start).append(row)
    return {
        name: sorted(line, key=lambda row: row.nonzero_params or 0) for name, line in lines.items()
    }
