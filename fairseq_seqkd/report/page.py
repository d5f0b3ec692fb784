"""The report as one HTML page that needs no other file and no network; its figures are SVG."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

from fairseq_seqkd.report import corpus_table, figures, table1, table2, table3
from fairseq_seqkd.report.figures import SpeedPoint
from fairseq_seqkd.report.formatting import Column, Note
from fairseq_seqkd.report.records import Report, Row, RunDetails

TEMPLATE = Path(__file__).with_name("page.html.j2")


class Grid(NamedTuple):
    """A table of the page, and the notes below it."""

    titles: List[str]
    cells: List[List[str]]
    notes: List[Note]


def make_grid(columns: Sequence[Column], rows: Sequence, notes: List[Note]) -> Grid:
    """Formats the cells of a table."""
    cells = [[column.text(row) for column in columns] for row in rows]
    return Grid([column.title for column in columns], cells, notes)


def render(report: Report) -> str:
    """Renders the page.

    Raises:
        Refusal: matplotlib is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    details, rows = report.details or RunDetails(), report.rows
    metric = details.decoded[0].similarity if details.decoded else None
    corpus = details.corpus
    corpus_rows = [*corpus.items()]
    return template.render(
        report=report,
        details=details,
        table1=make_grid(table1.make_columns(rows), rows, table1.explain(report)) if rows else None,
        provenance=table1.provenance(report) if rows else [],
        speeds=[
            make_grid(table2.make_columns(bench), table2.make_rows(bench), table2.notes(bench))
            for bench in report.table2 or ()
        ],
        pruning=make_grid(table3.COLUMNS, report.table3, table3.notes(report.table3))
        if report.table3
        else None,
        corpus=make_grid(corpus_table.COLUMNS, corpus_rows, corpus_table.notes(corpus))
        if corpus
        else None,
        figures=draw(report),
        beams=[
            (beam, figures.draw_beam(beam, number, metric))
            for number, beam in enumerate(details.beams)
        ],
    )


def draw(report: Report) -> Dict[str, str]:
    """Draws the figures that there are numbers for; returns their SVG by name."""
    rows, drawings = report.rows, {}
    if report.details and report.details.curves:
        names = [row.name for row in rows]
        drawings["curves"] = figures.draw_curves(report.details.curves, names)
    if len(rows) > 1:
        drawings["search"], drawings["mode"] = figures.draw_searches(rows), figures.draw_mode(rows)
    if report.table2:
        points = [
            SpeedPoint(speed.name, speed.engine, speed.beam, speed.words_per_second, speed.bleu)
            for bench in report.table2
            for speed in bench.speeds
        ]
        counted = " or ".join(dict.fromkeys(bench.counted for bench in report.table2))
        unit = f"source {counted} per second, one thread"
        drawings["speed"] = figures.draw_speeds(points, unit)
    elif rows and not isinstance(report.machine, list):
        points = speeds_of(rows)
        if len(points) == 2 * len(rows):
            # The end of a processor's name is the number of threads, which says more.
            machine = (report.machine or "one thread").rpartition(", ")[2]
            unit = f"sentences per second, fairseq, {machine}"
            drawings["speed"] = figures.draw_speeds(points, unit)
    if report.table3:
        drawings["pruning"] = figures.draw_pruning(table3.series(report.table3))
    return drawings


def speeds_of(rows: Sequence[Row]) -> List[SpeedPoint]:
    """Returns the speeds that `seqkd evaluate` measured."""
    greedy = [(row, 1, row.sentences_per_second_greedy, row.bleu_greedy) for row in rows]
    beam = [(row, 5, row.sentences_per_second_beam5, row.bleu_beam5) for row in rows]
    return [
        SpeedPoint(row.name, "fairseq", width, speed, bleu)
        for row, width, speed, bleu in (*greedy, *beam)
        if speed is not None
    ]
