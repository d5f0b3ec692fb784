"""Table 2 of Kim & Rush (2016) from the measurements of `seqkd bench`: source words a second."""

from fairseq_seqkd.engines import FAIRSEQ
from fairseq_seqkd.engines.int8_support import WITHOUT_VNNI
from fairseq_seqkd.report.formatting import flat, millions, number, table, text_of

COLUMNS = (
    ("{counted}/s", "words_per_second", "{:,.0f}"), ("spread", "spread", "{:.0%}"), ("times", "times", "{:.1f}"),
    ("BLEU", "bleu", "{:.2f}"), ("peak MB", "peak_memory_mb", "{:,.0f}"),
)  # fmt: skip


def counted(made):
    """What of the sources was counted, words or characters; older measurements do not say, and are of words."""
    return made.get("counted", "words")


def reference(made):
    """What the others are compared with: the first model in the first engine, with its widest beam."""
    first = made["speeds"][0]
    own = [
        speed
        for speed in made["speeds"]
        if (speed["name"], speed["engine"]) == (first["name"], first["engine"])
    ]
    return max(own, key=lambda speed: speed["beam"])


def make_rows(made):
    """A row for each model and engine: {"name", "engine", "params", "size_bytes", "beams": {beam: the measurement}, ...}.

    `times` is how many times the words a second of the reference.
    """
    rows, of_reference = {}, reference(made)["words_per_second"]
    for speed in made["speeds"]:
        row = rows.setdefault((speed["name"], speed["engine"]), {**speed, "beams": {}})
        row["beams"][speed["beam"]] = {
            **speed,
            "times": speed["words_per_second"] / of_reference,
            "spread": max(speed["words_per_second_rounds"]) / min(speed["words_per_second_rounds"])
            - 1,
        }
    return list(rows.values())


def columns_and_rows(made):
    """What text_table.table takes."""
    rows = make_rows(made)
    beams = sorted({speed["beam"] for speed in made["speeds"]})
    columns = [
        ("Model", lambda row: row["name"]),
        ("engine", lambda row: row["engine"]),
        ("non-zero", lambda row: millions(row["nonzero_params"])),
        ("MB on disk", lambda row: f"{row['size_bytes'] / 1e6:.2f}"),
    ]
    for title, key, form in COLUMNS:
        what = title.format(counted=counted(made))
        for beam in beams:
            columns.append(
                (
                    f"{what} K={beam}",
                    lambda row, k=key, f=form, b=beam: number(row["beams"].get(b, {}).get(k), f),
                )
            )
    return columns, rows


def markdown(made):
    """The table, and what its columns are."""
    return table(*columns_and_rows(made)) + "\n\n" + "\n".join(notes(made)) + "\n"


def notes(made):
    """A line for each column, and how it was measured."""
    slowest = reference(made)
    rounds = len(made["speeds"][0]["words_per_second_rounds"])
    settings = made["settings"]
    return [
        f"- **{counted(made)}/s**: source {counted(made)} a second, one thread, search alone; the median of {rounds} "
        f"{'round' if rounds == 1 else 'rounds in turn'}. **spread**: how much faster the fastest round was than the slowest.",
        f"- **times**: as many times the {counted(made)} a second of {slowest['name']} with beam {slowest['beam']} in "
        f"{slowest['engine']}.",
        *(
            f"- **{engine}** was computed in {computed}: {WITHOUT_VNNI}."
            for engine, computed in replaced(made)
        ),
        f"- **BLEU**: sacrebleu {text_of(settings)}: what the same run translated.",
        "- **peak MB**: largest resident memory of the process that translated, libraries included. **MB on disk**: what the "
        "engine loads; for fairseq the checkpoint without the optimizer's state. **non-zero**: parameters.",
        f"- Split {settings['split']}, length limit {settings['max_len_a']} times the source's tokens plus "
        f"{settings['max_len_b']}. {made['machine']}; {flat(made['versions'])}; {made['date']}.",
        *(
            f"- sacrebleu: `{signature}`"
            for signature in dict.fromkeys(s["sacrebleu_signature"] for s in made["speeds"])
        ),
        *(f"- {name}: `{signature}`" for name, signature in signatures(made).items()),
    ]


def replaced(made):
    """(engine, type) of those that were not computed in the type of their name."""
    found = {
        s["engine"]: s.get("computed_in", s["engine"])
        for s in made["speeds"]
        if s["engine"] != FAIRSEQ
    }
    return [
        (engine, computed) for engine, computed in found.items() if not engine.endswith(computed)
    ]


def signatures(made):
    """{name: how the model was distilled}, of the models that were."""
    return {
        s["name"]: s["distillation_signature"]
        for s in made["speeds"]
        if s["distillation_signature"]
    }
