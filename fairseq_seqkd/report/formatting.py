"""Numbers, tables and notes as text."""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from fairseq_seqkd.evaluation.records import MeasurementSettings


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: the head of the column.
        text: formats the cell of a row.
    """

    title: str
    text: Callable[[Any], str]


def number_column(title: str, key: str, form: Callable[[Any], str]) -> Column:
    """Returns a column with an attribute of the rows.

    Cells are like "18.90", "18.90 ± 0.12" if the row has several seeds, or "-" if it has no such
    number.
    """

    def text(row: Any) -> str:
        value, deviation = getattr(row, key), row.deviations.get(key)
        if value is None:
            return "-"
        return form(value) if deviation is None else f"{form(value)} ± {form(deviation)}"

    return Column(title, text)


class Note(NamedTuple):
    """A remark below a table. It is rendered as Markdown here, and as HTML by the page.

    Attributes:
        term: what the remark is about; may be empty.
        text: the remark.
        code: literals that follow, e.g. signatures.
    """

    term: str
    text: str = ""
    code: Sequence[str] = ()

    def markdown(self) -> str:
        """Returns the note as an item of a list."""
        escaped = self.term.replace("*", "\\*")
        term = [f"**{escaped}**:"] if self.term else []
        text = [self.text] if self.text else []
        code = [", ".join(f"`{literal}`" for literal in self.code)] if self.code else []
        return "- " + " ".join([*term, *text, *code])


def table(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Formats a table as Markdown that is aligned as plain text, too."""
    from tabulate import tabulate

    cells = [[column.text(row).replace("|", "\\|") for column in columns] for row in rows]
    return tabulate(
        cells,
        headers=[column.title for column in columns],
        tablefmt="pipe",
        colalign=["left", *["right"] * (len(columns) - 1)],
        disable_numparse=True,
    )


def with_notes(columns: Sequence[Column], rows: Sequence[Any], notes: Sequence[Note]) -> str:
    """Formats a table as Markdown with notes below it."""
    lines = "\n".join(note.markdown() for note in notes)
    return f"{table(columns, rows)}\n\n{lines}\n"


def rate(value: float) -> str:
    """Formats sentences per second; small rates have a decimal."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def millions(value: Optional[float]) -> str:
    """Formats a number of parameters, e.g. "1.23M"."""
    if value is None:
        return "-"
    return f"{value / 1e6:.2f}M" if value >= 1e5 else f"{value / 1e6:.2g}M"


def percent(share: float) -> str:
    """Formats a share as the paper does, e.g. "16.9%"; tiny ones have two digits."""
    return f"{100 * share:.1f}%" if share >= 0.001 or share == 0 else f"{100 * share:.2g}%"


def flat(value: Any) -> str:
    """Formats a fact, or a list of alternatives, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    return "; ".join(map(flat, value)) if isinstance(value, list) else str(value)


def text_of(settings: Optional[MeasurementSettings]) -> str:
    """Says how text was made from tokens before it was scored."""
    if settings is None:
        return "on text"
    steps: List[str] = []
    if settings.post_process:
        steps.append(f"subwords joined ({settings.post_process.strip()})")
    if settings.undone:
        steps.append(f"{settings.undone} undone")
    return f"on text, {', '.join(steps)}" if steps else "on the tokens as they are"


def length_limit_of(settings: MeasurementSettings) -> str:
    """Says how long translations may be."""
    return f"{settings.max_len_a} * source tokens + {settings.max_len_b} tokens"
