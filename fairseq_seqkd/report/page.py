"""The report as one HTML page that needs nothing else: no network, no framework; the figures are SVG in it."""

import html
import re
from pathlib import Path

from fairseq_seqkd.report import corpus_table, figures
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.report import table2 as speed_table
from fairseq_seqkd.report import table3 as pruning_table
from fairseq_seqkd.report.claims import verdict

TEMPLATE = Path(__file__).with_name("page.html.j2")


def render(made):
    """The page of a report, a dictionary of report.make with details.of. Raises Refusal where matplotlib is missing."""
    import jinja2

    made = {"pipeline": [], "trainings": [], "remarks": [], "beams": [], "decoded": [], **made}
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=made["title"],
        report=made,
        table1=grid(table.make_columns(made["rows"]), made["rows"]) if made["rows"] else None,
        notes1=notes(table.explain(made)) if made["rows"] else [],
        claims=[{**claim, "verdict": verdict(claim)} for claim in made.get("claims", [])],
        speeds=[speed(part) for part in made.get("table2", [])],
        pruning=pruning(made["table3"]) if made.get("table3") else None,
        corpus=grid(corpus_table.columns(), corpus_table.rows(made["corpus"]))
        if made.get("corpus")
        else None,
        corpus_notes=notes(corpus_table.notes(made["corpus"])) if made.get("corpus") else [],
        provenance=notes(table.provenance(made)) if made["rows"] else [],
        figures=draw(made),
        beams=beams(made),
    )


def beams(made):
    metric = made["decoded"][0]["similarity"] if made["decoded"] else None
    return [
        {**entry, "figure": figures.beam(entry, number, metric)}
        for number, entry in enumerate(made["beams"])
    ]


def draw(made):
    """{name: SVG} of the figures that there are numbers for."""
    rows, found = made["rows"], {}
    names = [row["name"] for row in rows]
    if made.get("curves"):
        found["curves"] = figures.curves(made["curves"], names)
    if len(rows) > 1:
        found["search"], found["mode"] = figures.greedy_and_beam(rows), figures.mode_and_bleu(rows)
    if made.get("table2"):
        benched = [
            {**s, "speed": s["words_per_second"]} for part in made["table2"] for s in part["speeds"]
        ]
        counted = " or ".join(dict.fromkeys(speed_table.counted(part) for part in made["table2"]))
        found["speed"] = figures.speed_and_quality(
            benched, f"source {counted} a second, one thread"
        )
    elif (
        rows
        and all("sentences_per_second_greedy" in row for row in rows)
        and not isinstance(made.get("machine"), list)
    ):
        on = (made.get("machine") or "one thread").rpartition(", ")[
            2
        ]  # of a CPU's name the threads, which say more
        found["speed"] = figures.speed_and_quality(
            speeds_of(rows), f"sentences a second, fairseq, {on}"
        )
    if made.get("table3"):
        found["pruning"] = figures.pruning(pruning_table.series(made["table3"]))
    return found


def speeds_of(rows):
    """What `seqkd evaluate` saw of speed, in the form of `seqkd bench`."""
    return [
        {
            "name": row["name"],
            "engine": "fairseq",
            "beam": beam,
            "speed": row[f"sentences_per_second_{k}"],
            "bleu": row[f"bleu_{k}"],
        }
        for row in rows
        for k, beam in (("greedy", 1), ("beam5", 5))
    ]


def speed(part):
    return {
        "grid": grid(*speed_table.columns_and_rows(part)),
        "notes": notes(speed_table.notes(part)),
    }


def pruning(rows):
    return {"grid": grid(pruning_table.COLUMNS, rows), "notes": notes([pruning_table.note(rows)])}


def grid(columns, rows):
    """(titles, cells) of a table: see text_table.table."""
    return [title for title, _ in columns], [[cell(row) for _, cell in columns] for row in rows]


def notes(lines):
    return [inline(line) for line in lines]


def inline(line):
    """A line of a Markdown list as HTML: **bold** and `code`."""
    import markupsafe

    parts = re.split(r"(`[^`]*`)", html.escape(line.removeprefix("- ")))
    for i, part in enumerate(parts):  # those with odd numbers are code
        bold = re.sub(r"\*\*(.+?)\*\*(?!\*)", r"<strong>\1</strong>", part)
        parts[i] = f"<code>{part[1:-1]}</code>" if i % 2 else bold
    return markupsafe.Markup("".join(parts))
