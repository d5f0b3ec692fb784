"""Numbers and tables as text: what the reports' tables share."""


def table(columns, rows):
    """A table in Markdown, its columns padded so that it can be read as text too.

    Args: columns: [(title, row -> text)], the first one to the left, the others to the right; rows: anything.
    """
    cells = [[title for title, _ in columns]] + [[cell(row) for _, cell in columns] for row in rows]
    cells = [
        [text.replace("|", "\\|") for text in line] for line in cells
    ]  # a name may hold anything
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [pad(line, widths) for line in cells]
    lines.insert(
        1,
        "|"
        + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        + "|",
    )
    return "\n".join(lines)


def pad(line, widths):
    texts = [
        text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths))
    ]
    return "| " + " | ".join(texts) + " |"


def with_deviation(row, key, form):
    """18.90, or 18.90 ± 0.12 where the row has several seeds."""
    if row.get(key) is None:
        return "-"
    deviation = row.get(f"{key}_std")
    return form(row[key]) if deviation is None else f"{form(row[key])} ± {form(deviation)}"


def number(value, form, small=None):
    """A number, in another form below 100 where one is given; a dash for none."""
    if value is None:
        return "-"
    return (small if small and value < 100 else form).format(value)


def millions(value):
    return (
        "-" if value is None else f"{value / 1e6:.2f}M" if value >= 1e5 else f"{value / 1e6:.2g}M"
    )


def percent(share):
    """A share as the paper prints it; two digits where one decimal would say nothing."""
    return f"{100 * share:.1f}%" if share >= 0.001 or share == 0 else f"{100 * share:.2g}%"


def flat(value):
    """A fact, or several, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    return "; ".join(map(flat, value)) if isinstance(value, list) else str(value)


def text_of(settings):
    """How text was made of the data's tokens before it was scored, in words."""
    if "post_process" not in settings:
        return "on text"
    joined, undone = settings["post_process"], settings.get("undone")
    how = [
        *([f"subwords joined ({joined.strip()})"] if joined else []),
        *([f"{undone} undone"] if undone else []),
    ]
    return f"on text, {', '.join(how)}" if how else "on the tokens as they are"
