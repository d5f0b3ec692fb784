"""Table 3 of Kim & Rush (2016): what pruning costs."""

import re

from fairseq_seqkd.report.formatting import millions, number, percent, table, with_deviation

TEACHER = "Teacher"  # the row that ratios are of; without it, the largest model
PRUNED = 0.01  # a smaller share of zeros is chance and rows of padding
SHARE_IN_NAME = re.compile(
    r"^(?P<before>.*?)[ ,@-]*\d+(\.\d+)? ?%(?P<after>.*)$"
)  # "Seq-KD 80% retrained"


def zeros(row):
    """The share of a row's parameters that are zero; None where that was not measured, or nothing is left of them."""
    return (
        1 - row["nonzero_params"] / row["params"]
        if row.get("nonzero_params") and row.get("params")
        else None
    )


def make_rows(rows):
    """Rows of Table 1 with what Table 3 needs: `pruned`, a share, and `ratio` to the teacher's parameters; [] without pruning."""
    counted = [row for row in rows if zeros(row) is not None]
    if not any(zeros(row) >= PRUNED for row in counted):
        return []
    sized = [row for row in rows if row.get("params")]
    whole = next(
        (row for row in sized if row["name"] == TEACHER), max(sized, key=lambda row: row["params"])
    )
    more = {"ratio_to": whole["name"]}
    return [
        {**row, "pruned": zeros(row), "ratio": whole["params"] / row["nonzero_params"], **more}
        for row in counted
    ]


COLUMNS = [
    ("Model", lambda row: row["name"]),
    ("pruned", lambda row: percent(row["pruned"]) if row["pruned"] >= PRUNED else "0%"),
    ("non-zero", lambda row: millions(row["nonzero_params"])),
    ("BLEU K=1", lambda row: with_deviation(row, "bleu_greedy", "{:.2f}".format)),
    ("BLEU K=5", lambda row: with_deviation(row, "bleu_beam5", "{:.2f}".format)),
    ("ratio", lambda row: number(row["ratio"], "{:.1f}")),
]


def note(rows):
    return (
        "- **pruned**: share of all parameters that are zero. **ratio**: as many times fewer non-zero parameters than "
        f"{rows[0]['ratio_to']} has parameters."
    )


def markdown(rows):
    return f"{table(COLUMNS, rows)}\n\n{note(rows)}\n"


def series(rows):
    """{name: [row]} of the lines of the picture: names that differ in a percentage only, with the model that was pruned."""
    lines, whole = {}, {row["name"]: row for row in rows if row["pruned"] < PRUNED}
    for row in rows:
        found = SHARE_IN_NAME.match(row["name"])
        if row["pruned"] >= PRUNED:
            before, after = (
                (found["before"].strip(), found["after"].strip()) if found else (row["name"], "")
            )
            line = lines.setdefault(
                " ".join(filter(None, (before, after))), [whole[before]] if before in whole else []
            )
            line.append(row)
    return {
        name: sorted(line, key=lambda row: row["nonzero_params"]) for name, line in lines.items()
    }
