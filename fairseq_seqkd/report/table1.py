"""Table 1 of Kim & Rush (2016) from results of `seqkd evaluate`, with the paper's claims.

The records have the numbers as they were measured. Markdown has them rounded for reading.
"""

import statistics
from functools import partial
from typing import Any, Dict, List, Optional, Sequence

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.records import (
    COMPARABLE,
    NUMBERS,
    SCORERS,
    SEARCHES,
    SIGNATURES,
    Comparison,
    Measurement,
    differences,
)
from fairseq_seqkd.report import formatting
from fairseq_seqkd.report.claims import make_claims
from fairseq_seqkd.report.formatting import Column, Note, number_column
from fairseq_seqkd.report.records import BASELINE, Report, Row

SIGNIFICANT = 0.05
REQUIRED = ("bleu_greedy", "bleu_beam5", "ppl", "mode_probability")


WITH_DEVIATION = (
    *(f"{metric}_{search}" for metric in ("bleu", "chrf", "comet") for search in SEARCHES),
    "ppl", "mode_probability",
)  # fmt: skip
# The tests against the baseline: a name, and the searches of both systems.
TESTS = (
    ("greedy", "greedy", "greedy"),
    ("beam5", "beam5", "beam5"),
    ("greedy_against_beam5", "greedy", "beam5"),
)


def make_report(
    measurements: Sequence[Measurement],
    title: Optional[str] = None,
    pairs: Sequence[Comparison] = (),
) -> Report:
    """Makes the report of measurements.

    Args:
        measurements: of all systems and seeds, in the order of the rows.
        title: its title (default: "Table 1").
        pairs: the bootstrap tests of the systems.

    Raises:
        Refusal: there are no measurements, or they do not belong in one table.
    """
    check(measurements)
    rows = make_rows(measurements)
    add_significance(rows, pairs)
    settings = measurements[0].settings
    return Report(
        title=title or "Table 1",
        split=settings.split if settings else None,
        settings=settings,
        data_sha256=measurements[0].data_sha256,
        machine=common_fact(measurements, "machine"),
        date=common_fact(measurements, "date"),
        versions=common_fact(measurements, "versions"),
        rows=rows,
        claims=make_claims(rows),
        pairs=list(pairs),
    )


def check(measurements: Sequence[Measurement]) -> None:
    """Refuses measurements that do not belong in one table."""
    if not measurements:
        raise Refusal("there are no results to report; measure with `seqkd evaluate` first")
    first, comet = measurements[0], None
    for number, measurement in enumerate(measurements):
        name, before = measurement.name, measurements[:number]
        missing = next((key for key in REQUIRED if getattr(measurement, key) is None), None)
        if missing:
            raise Refusal(
                f"the result of {name} has no {missing}; measure it with this version of "
                "`seqkd evaluate`"
            )
        for key, kind in zip(COMPARABLE, ("data", "settings")):
            if getattr(measurement, key) != getattr(first, key):
                raise Refusal(
                    f"{name} was measured on other {kind} than {first.name}, so they do not belong "
                    "in one table; evaluate both with the same options"
                )
        comet = comet or measurement.comet_signature
        if measurement.comet_signature not in (None, comet):
            raise Refusal(
                f"COMET of {name} is by another model ({measurement.comet_signature}) than that "
                "of the results before it; evaluate all with one --comet"
            )
        if measurement.identity in (other.identity for other in before):
            raise Refusal(
                f"there are two results for {name}, seed {measurement.seed}; give every "
                "checkpoint its own seed, NAME@SEED=PATH"
            )
        conflict = measurement.conflict(before)
        if conflict:
            raise Refusal(
                f"the results of {name} are not of seeds of one system: {conflict}; give them "
                "different names"
            )


def common_fact(measurements: Sequence[Measurement], key: str) -> Any:
    """Returns the value of all measurements, or the list of their values if they differ."""
    values: List[Any] = []
    for measurement in measurements:
        value = getattr(measurement, key)
        if value is not None and value not in values:
            values.append(value)
    return values[0] if len(values) == 1 else values or None


def make_rows(measurements: Sequence[Measurement]) -> List[Row]:
    """Makes a row for each name, in order of first appearance."""
    by_name: Dict[str, List[Measurement]] = {}
    for measurement in measurements:
        by_name.setdefault(measurement.name, []).append(measurement)
    return [make_row(name, seeds) for name, seeds in by_name.items()]


def make_row(name: str, seeds: List[Measurement]) -> Row:
    """Makes the row of one system from its seeds.

    A number that some seeds lack is left out: a mean over the others would be taken for one over
    all. A number that is the same for all seeds is kept as it is.
    """
    columns: Dict[str, Any] = {}
    for key in SIGNATURES:
        signatures = dict.fromkeys(filter(None, (getattr(seed, key) for seed in seeds)))
        columns[key] = " & ".join(signatures) or None
    values = {key: [getattr(seed, key) for seed in seeds] for key in NUMBERS}
    complete = {key: column for key, column in values.items() if None not in column}
    for key, column in complete.items():
        columns[key] = column[0] if len(set(column)) == 1 else statistics.fmean(column)
    if len(seeds) > 1:
        deviating = [key for key in WITH_DEVIATION if key in complete]
        columns["deviations"] = {key: statistics.stdev(complete[key]) for key in deviating}
        columns["seeds"] = seeds
    return Row(name=name, **columns)


def find_baseline(rows: Sequence[Row]) -> Optional[Row]:
    """Returns the row that gains are measured from, or None."""
    return next((row for row in rows if row.name == BASELINE), None)


def add_significance(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> None:
    """Adds the tests against the baseline to the rows.

    A row of which a seed was not compared gets none.
    """
    base = find_baseline(rows)
    for row in rows if base else ():
        for name, search, base_search in TESTS if row is not base else ():
            by_seed = differences(comparisons, row.name, search, BASELINE, base_search)
            if by_seed and len(by_seed) >= len(row.seeds or (base and base.seeds) or ()):
                row.tests[name] = by_seed


BEAMS = (("K=1", "greedy"), ("K=5", "beam5"))


def make_columns(rows: Sequence[Row]) -> List[Column]:
    """Returns the columns. Optional ones are left out if no row has a number for them."""
    base = find_baseline(rows) if len(rows) > 1 else None
    columns = [
        Column("Model", lambda row: str(row.name)),
        number_column("Params", "params", formatting.millions),
    ]

    def add(title: str, key: str, form: Any, is_optional: bool = False) -> None:
        if not is_optional or any(getattr(row, key) is not None for row in rows):
            columns.append(number_column(title, key, form))

    for beam, search in BEAMS:
        add(f"BLEU {beam}", f"bleu_{search}", "{:.2f}".format)
        if base:
            columns.append(Column("gain", partial(gain, base=base, search=search)))
    for beam, search in BEAMS:
        add(f"chrF {beam}", f"chrf_{search}", "{:.1f}".format, is_optional=True)
    for beam, search in BEAMS:
        add(f"COMET {beam}", f"comet_{search}", "{:.4f}".format, is_optional=True)
    add("same", "greedy_equals_beam5", "{:.0%}".format, is_optional=True)
    add("PPL", "ppl", "{:.2f}".format)
    add("p(t = ŷ)", "mode_probability", formatting.percent)
    for title, key, form in (
        ("sent/s", "sentences_per_second", formatting.rate),
        ("length", "length_ratio", "{:.2f}".format),
        ("at limit", "hit_limit", "{:.4g}".format),
    ):
        for beam, search in BEAMS:
            add(f"{title} {beam}", f"{key}_{search}", form)
    return columns


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table in Markdown."""
    return formatting.table(make_columns(rows), rows)


def gain(row: Row, base: Row, search: str) -> str:
    """Formats BLEU minus the baseline's. A star: significant, and every seed has the same sign."""
    if row is base:
        return ""
    difference = row.score(f"bleu_{search}") - base.score(f"bleu_{search}")
    tests = row.tests.get(search, {}).values()
    is_significant = tests and max(test.p for test in tests) < SIGNIFICANT
    has_star = is_significant and len({test.bleu > 0 for test in tests}) == 1
    return f"{difference:+.2f}{'*' if has_star else ''}"


def to_markdown(report: Report) -> str:
    """Returns the table, the notes on its columns, the claims, and how it was made."""
    claims = [f"- {claim.claim}: {claim.seen}. **{claim.verdict}.**" for claim in report.claims]
    parts = [
        f"# {report.title}",
        formatting.with_notes(make_columns(report.rows), report.rows, explain(report)).rstrip(),
        "## The claims of the paper\n\n" + "\n".join(claims) if claims else "",
        "## How this was made\n\n" + "\n".join(note.markdown() for note in provenance(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def explain_stars(report: Report) -> List[Note]:
    """Returns the notes on the significance tests; none if there were no tests."""
    tested = [row.name for row in report.rows if row.tests]
    if not tested:
        return []
    seeds = " for every seed, in one direction," if any(row.seeds for row in report.rows) else ""
    signatures = dict.fromkeys(pair.signature for pair in report.pairs if pair.signature)
    star = (
        f"p < {SIGNIFICANT}{seeds} in sacrebleu's paired bootstrap test against {BASELINE} with "
        "the same search"
    )
    notes = [Note("*", star + (":" if signatures else "."), list(signatures))]
    others = [row.name for row in report.rows if row.name not in (*tested, BASELINE)]
    if others:
        notes.append(
            Note("Not tested", f"{', '.join(others)} (no outputs, or other seeds than {BASELINE}).")
        )
    return notes


def explain(report: Report) -> List[Note]:
    """Returns the notes on the columns."""
    rows = report.rows
    notes = [Note("Params", "trainable parameters, tied weights once.")]
    if any(row.seeds for row in rows):
        notes.append(Note("±", "mean and sample standard deviation over seeds; else a single run."))
    bleu = f"sacrebleu {formatting.text_of(report.settings)}, greedy search and beam 5."
    notes.append(Note("BLEU K=1, K=5", bleu))
    if find_baseline(rows) and len(rows) > 1:
        notes.append(Note("gain", f"BLEU minus that of {BASELINE} with the same search."))
    notes += explain_stars(report)
    if any(row.greedy_equals_beam5 is not None for row in rows):
        notes.append(Note("same", "share of sentences with the same output from both searches."))
    machine = f", {report.machine}" if report.machine else ""
    if isinstance(report.machine, list):
        machines = "; ".join(report.machine)
        machine = f", on different machines ({machines}), so not comparable between rows"
    limit = f", which is {formatting.length_limit_of(report.settings)}" if report.settings else ""
    return [
        *notes,
        Note("PPL", "perplexity of gold per token of the data-bin, EOS included; comparable only "
             "between models with one vocabulary."),
        Note("p(t = ŷ)", "probability of the model's own greedy output, not length-normalised, "
             "mean over sentences."),
        Note("sent/s", f"sentences per second of search with fairseq{machine}."),
        Note("length", "length of the output divided by that of the reference; BLEU is hard to "
             "interpret far from 1."),
        Note("at limit", f"outputs that were cut at the length limit{limit}."),
    ]  # fmt: skip


def provenance(report: Report) -> List[Note]:
    """Returns how the numbers were made: data, versions, and every signature once."""
    rows = report.rows
    count = f", {rows[0].sentences:,} sentences" if rows[0].sentences is not None else ""
    notes = [Note("Split", f"{report.split}{count}")]
    for key in ("machine", "date", "versions"):
        if getattr(report, key):
            notes.append(Note(key.capitalize(), formatting.flat(getattr(report, key))))
    scorers = [getattr(row, key) for row in rows for key in SCORERS]
    notes += [Note("Scores", code=[signature]) for signature in dict.fromkeys(scorers) if signature]
    names: Dict[str, List[str]] = {}
    for row in rows:
        if row.distillation_signature:
            names.setdefault(row.distillation_signature, []).append(row.name)
    notes += [Note(", ".join(models), code=[signature]) for signature, models in names.items()]
    return notes
