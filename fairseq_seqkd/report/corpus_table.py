"""The statistics of gold and of what the teacher made of it, as a table."""

from fairseq_seqkd.report.formatting import table

COLUMNS = (
    ("sentences", "sentences", "{:,}"), ("tokens", "tokens", "{:.1f}"), ("to source", "ratio", "{:.2f}"),
    ("vocabulary", "vocabulary", "{:,}"), ("duplicates", "duplicates", "{:.1%}"), ("complexity", "complexity", "{:.2f}"),
)  # fmt: skip
NOTES = [
    "- **tokens**: of a target, the mean, EOS not counted. **to source**: target tokens for a source token.",
    "- **vocabulary**: target symbols that occur. **duplicates**: targets that an earlier sentence has too.",
    "- **complexity**: how free the translation is: the mean over source symbols of the entropy, in nats, of what they are "
    "aligned to (Zhou et al. 2020; alignments by IBM Model 1). Less is easier to learn.",
]


def columns():
    return [("Targets", lambda row: row["name"])] + [
        (title, lambda row, key=key, form=form: form.format(row[key]))
        for title, key, form in COLUMNS
    ]


def rows(corpus):
    return [{"name": name, **found} for name, found in corpus.items()]


def notes(corpus):
    """A line for each column, and on how many sentences the last one stands, which it depends on."""
    aligned = next(iter(corpus.values()))["aligned"]
    return [
        *NOTES,
        f"- Aligned were the same {aligned:,} sentences of all; more of them make the number larger.",
    ]


def markdown(corpus):
    return table(columns(), rows(corpus)) + "\n\n" + "\n".join(notes(corpus)) + "\n"
