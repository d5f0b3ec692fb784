"""Table 1 of Kim & Rush (2016) from the measurements of `seqkd evaluate`, with what the paper claims (`seqkd report`).

JSON has the numbers as they were measured; Markdown has them rounded for reading.
"""

import statistics

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.results import (
    COMPARABLE,
    NUMBERS,
    SCORED_BY,
    SIGNATURES,
    identity,
    why_no_seed,
)
from fairseq_seqkd.evaluation.significance import between
from fairseq_seqkd.report.claims import BASELINE, make_claims, verdict
from fairseq_seqkd.report.formatting import (
    flat,
    millions,
    number,
    percent,
    table,
    text_of,
    with_deviation,
)

WITH_DEVIATION = (
    "bleu_greedy", "bleu_beam5", "chrf_greedy", "chrf_beam5", "comet_greedy", "comet_beam5", "ppl", "mode_probability",
)  # fmt: skip
SIGNIFICANT = 0.05
COMPARED = (
    ("greedy", "greedy", "greedy"),
    ("beam5", "beam5", "beam5"),
    ("greedy_against_beam5", "greedy", "beam5"),
)
FACTS = (
    "machine",
    "date",
    "versions",
)  # may differ between results; the report then names them all


def make_report(results, title=None, pairs=()):
    """Everything that a report says, as a dictionary for JSON: facts, `rows`, `claims` where they can be judged, `pairs`.

    Args: results: dictionaries with "name", "seed" (or None) and the measurements; pairs: those of significance.compare.

    Raises Refusal for measurements that may not be compared, and for an empty list.
    """
    check(results)
    report = {"title": title or "Table 1", **common_facts(results), "rows": make_rows(results)}
    add_significance(report["rows"], pairs)
    report["claims"] = make_claims(report["rows"])
    return {**report, "pairs": list(pairs)}


def add_significance(rows, pairs):
    """Gives rows `difference_<search>`, {seed: BLEU above the baseline's}, and `p_<search>`, how probable that is by chance.

    <search> is greedy, beam5, or greedy_against_beam5, where greedy search is compared with the baseline's beam. A row of which a
    seed was not compared has none.
    """
    base = next((row for row in rows if row["name"] == BASELINE), None)
    for row in rows if base else []:
        for key, mine, theirs in COMPARED:
            found = {} if row is base else between(pairs, row["name"], mine, BASELINE, theirs)
            if len(found) >= max(
                len(row.get("seeds", [1])), 1 if "seeds" in row else len(base.get("seeds", [1]))
            ):
                row[f"difference_{key}"] = {
                    seed: difference for seed, (difference, _) in found.items()
                }
                row[f"p_{key}"] = {seed: p for seed, (_, p) in found.items()}


def check(results):
    if not results:
        raise Refusal(
            "there are no results to report; measure something with `seqkd evaluate` first"
        )
    seen = set()
    for i, result in enumerate(results):
        for key in ("bleu_greedy", "bleu_beam5", "ppl", "mode_probability"):
            if not isinstance(result.get(key), (int, float)):
                raise Refusal(
                    f"the result of {result['name']} has no {key}; measure it with this version of `seqkd evaluate`"
                )
        for key in COMPARABLE:
            if result.get(key) != results[0].get(key):
                what = "other data" if key == "data_sha256" else "other settings"
                raise Refusal(
                    f"{result['name']} was measured on {what} than {results[0]['name']}, so they do not belong in one table; "
                    "evaluate both with the same options"
                )
        if (
            len(
                {
                    other["comet_signature"]
                    for other in results[: i + 1]
                    if other.get("comet_signature")
                }
            )
            > 1
        ):
            raise Refusal(
                f"COMET of {result['name']} is by another model ({result['comet_signature']}) than that of those before it; "
                "evaluate all with one --comet"
            )
        if identity(result) in seen:
            name, seed = identity(result)
            raise Refusal(
                f"there are two results for {name}, seed {seed}; give every checkpoint its own seed, NAME@SEED=PATH"
            )
        seen.add(identity(result))
        odd = why_no_seed(result, results[:i])
        if odd:
            raise Refusal(
                f"the results of {result['name']} are not of seeds of one system: {odd}; give them different names"
            )


def common_facts(results):
    """What is true of all results, or the list of what is true of some."""
    settings = dict(results[0].get("settings") or {})
    facts = {
        "split": settings.get("split"),
        "settings": settings,
        "data_sha256": results[0].get("data_sha256"),
    }
    for key in FACTS:
        values = []
        for result in results:
            if result.get(key) is not None and result[key] not in values:
                values.append(result[key])
        facts[key] = values[0] if len(values) == 1 else values or None
    return facts


def make_rows(results):
    """One row for each name, in order of first appearance; numbers are means over the seeds.

    With more than one seed also the sample standard deviation, <column>_std, and the measurements of every seed.
    """
    by_name = {}
    for result in results:
        by_name.setdefault(result["name"], []).append(result)
    return [make_row(name, found) for name, found in by_name.items()]


def make_row(name, found):
    row = {"name": name}
    for key in NUMBERS:
        values = [result[key] for result in found if result.get(key) is not None]
        if len(values) == len(
            found
        ):  # a mean over some of the seeds would be taken for one over all
            # A number that is the same for all stays as it is: 0.1 and an integer are not averaged into something else.
            row[key] = values[0] if len(set(values)) == 1 else statistics.fmean(values)
    for key in SIGNATURES:
        row[key] = (
            " & ".join(dict.fromkeys(result[key] for result in found if result.get(key))) or None
        )
    if len(found) > 1:
        for key in WITH_DEVIATION:
            values = [result[key] for result in found if result.get(key) is not None]
            if len(values) == len(found):
                row[f"{key}_std"] = statistics.stdev(values)
        columns = [*NUMBERS, *SIGNATURES]
        row["seeds"] = [
            {"seed": r.get("seed"), **{key: r[key] for key in columns if key in r}} for r in found
        ]
    return row


# Text.


def to_markdown(report):
    """The report for reading: the table, what its columns are, the claims, and how it was made."""
    parts = [
        f"# {report['title']}",
        markdown_table(report["rows"]),
        "\n".join(explain(report)),
        claims_section(report["claims"]),
    ]
    parts += ["## How this was made", "\n".join(provenance(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(rows):
    """Table 1, its columns padded so that it can be read as text too."""
    return table(make_columns(rows), rows)


def make_columns(rows):
    """[(title, row -> text)]; the gains are there when there is something to gain over, and other rows."""
    base = next((row for row in rows if row["name"] == BASELINE), None)
    columns = [
        ("Model", lambda row: row["name"]),
        ("Params", lambda row: millions(row.get("params"))),
    ]
    for k, search in (("K=1", "greedy"), ("K=5", "beam5")):
        columns.append(
            (
                f"BLEU {k}",
                lambda row, key=f"bleu_{search}": with_deviation(row, key, "{:.2f}".format),
            )
        )
        if base and len(rows) > 1:
            columns.append(
                ("gain", lambda row, search=search: "" if row is base else gain(row, base, search))
            )
    for title, key, form in (("chrF", "chrf", "{:.1f}"), ("COMET", "comet", "{:.4f}")):
        for k, search in (("K=1", "greedy"), ("K=5", "beam5")):
            if any(f"{key}_{search}" in row for row in rows):
                columns.append(
                    (
                        f"{title} {k}",
                        lambda row, key=f"{key}_{search}", f=form: with_deviation(
                            row, key, f.format
                        ),
                    )
                )
    if any("greedy_equals_beam5" in row for row in rows):
        columns.append(("same", lambda row: number(row.get("greedy_equals_beam5"), "{:.0%}")))
    columns += [
        ("PPL", lambda row: with_deviation(row, "ppl", "{:.2f}".format)),
        ("p(t = ŷ)", lambda row: with_deviation(row, "mode_probability", percent)),
        (
            "sent/s K=1",
            lambda row: number(row.get("sentences_per_second_greedy"), "{:,.0f}", "{:.1f}"),
        ),
        (
            "sent/s K=5",
            lambda row: number(row.get("sentences_per_second_beam5"), "{:,.0f}", "{:.1f}"),
        ),
    ]
    for title, key, form in (
        ("length", "length_ratio", "{:.2f}"),
        ("at limit", "hit_limit", "{:.4g}"),
    ):
        for k, name in (("K=1", "greedy"), ("K=5", "beam5")):
            columns.append(
                (
                    f"{title} {k}",
                    lambda row, key=f"{key}_{name}", form=form: number(row.get(key), form),
                )
            )
    return columns


def gain(row, base, search):
    """BLEU above the baseline's, with a star where that is hardly chance: every seed says so, and the same."""
    difference = row[f"bleu_{search}"] - base[f"bleu_{search}"]
    p, signs = row.get(f"p_{search}"), {d > 0 for d in row.get(f"difference_{search}", {}).values()}
    star = "*" if p and max(p.values()) < SIGNIFICANT and len(signs) == 1 else ""
    return f"{difference:+.2f}{star}"


def explain_stars(report):
    """What a star is; nothing where nobody tested."""
    tested = [row["name"] for row in report["rows"] if "p_greedy" in row]
    if not tested:
        return []
    others = [row["name"] for row in report["rows"] if row["name"] not in (*tested, BASELINE)]
    seeds = (
        " for every seed, in one direction,"
        if any("seeds" in row for row in report["rows"])
        else ""
    )
    signatures = ", ".join(
        dict.fromkeys(f"`{pair['signature']}`" for pair in report["pairs"] if "signature" in pair)
    )
    return [
        f"- *****: p < {SIGNIFICANT}{seeds} in sacrebleu's paired bootstrap test against {BASELINE} with the same search"
        + (f": {signatures}." if signatures else ".")
        + (
            f" Not tested, for lack of outputs or of equal seeds: {', '.join(others)}."
            if others
            else ""
        )
    ]


def explain(report):
    """Lines that say what the columns are."""
    rows, settings = report["rows"], report["settings"]
    limit = ""
    if "max_len_a" in settings:
        limit = f" ({settings['max_len_a']} times the source's tokens plus {settings['max_len_b']}, the same for all)"
    lines = ["- **Params**: trainable parameters, tied weights once."]
    if any("seeds" in row for row in rows):
        lines.append(
            "- **±**: mean and sample standard deviation over seeds; without it, a single run."
        )
    lines.append(f"- **BLEU K=1, K=5**: sacrebleu {text_of(settings)}, greedy search and beam 5.")
    if any(row["name"] == BASELINE for row in rows) and len(rows) > 1:
        lines.append(f"- **gain**: BLEU above {BASELINE} with the same search.")
    lines += explain_stars(report)
    if any("greedy_equals_beam5" in row for row in rows):
        lines.append(
            "- **same**: share of the sentences whose output is the same with greedy search and beam 5."
        )
    return lines + [
        "- **PPL**: perplexity on gold, of a token of the data-bin, EOS counted; comparable only for one vocabulary.",
        "- **p(t = ŷ)**: probability that the model gives its own greedy output, not length-normalised, mean over sentences.",
        "- **sent/s**: sentences a second, search alone, with fairseq" + machine_note(report) + ".",
        "- **length**: length of the output over that of the reference; far from 1, BLEU says little.",
        f"- **at limit**: outputs that the length limit ended{limit}.",
    ]


def machine_note(report):
    machine = report.get("machine")
    if isinstance(machine, list):
        return f", on different machines ({'; '.join(machine)}), so not comparable between rows"
    return f", {machine}" if machine else ""


def claims_section(claims):
    """What the paper claims and what is seen; empty without claims."""
    if not claims:
        return ""
    lines = [f"- {c['claim']}: {c['seen']}. **{verdict(c)}.**" for c in claims]
    return "## What the paper claims, and what is seen here\n\n" + "\n".join(lines)


def provenance(report):
    """How the numbers came about, a line each: data, versions, and every signature once."""
    rows = report["rows"]
    scored_by = dict.fromkeys(row[key] for row in rows for key in SCORED_BY if row.get(key))
    lines = [
        f"- Split: {report['split']}"
        + (f", {rows[0]['sentences']:,} sentences" if "sentences" in rows[0] else ""),
        *(f"- {key.capitalize()}: {flat(report[key])}" for key in FACTS if report.get(key)),
        *(f"- Scores: `{signature}`" for signature in scored_by),
    ]
    taught = {}
    for row in rows:
        if row.get("distillation_signature"):
            taught.setdefault(row["distillation_signature"], []).append(row["name"])
    lines += [f"- {', '.join(names)}: `{signature}`" for signature, names in taught.items()]
    return lines
