"""Table 1 of Kim & Rush (2016) from the measurements of `seqkd evaluate`, with what the paper claims (`seqkd report`).

JSON has the numbers as they were measured; Markdown has them rounded for reading.
"""

import statistics

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.results import COMPARABLE, identity
from fairseq_seqkd.evaluation.text_table import flat, millions, number, percent, table, with_deviation

BASELINE, SEQ_KD = "Student", "Seq-KD"  # the names of the rows that gains and claims are about
NUMBERS = (
    "params", "nonzero_params", "bleu_greedy", "bleu_beam5", "ppl", "mode_probability", "sentences_per_second_greedy",
    "sentences_per_second_beam5", "length_ratio_greedy", "length_ratio_beam5", "hit_limit_greedy", "hit_limit_beam5",
    "greedy_equals_beam5", "sentences",
)  # fmt: skip
WITH_DEVIATION = ("bleu_greedy", "bleu_beam5", "ppl", "mode_probability")
SIGNATURES = ("sacrebleu_signature", "distillation_signature")
FACTS = ("machine", "date", "versions")  # may differ between results; the report then names them all

# From when on the paper's claims count as seen. These leave room for small corpora and a single seed.
BLEU_TOLERANCE = 0.3
SHARE_OF_GAP = 1 / 3
MODE_RATIO = 3.0
ROUNDING = 1e-9  # 17.3 is 0.3 below 17.6 for a reader, and a little more for a computer


def make_report(results, title=None):
    """Everything that a report says, as a dictionary for JSON: facts, `rows`, and `claims` where they can be judged.

    Args: results: dictionaries with "name", "seed" (or None) and the measurements. Raises Refusal for measurements that
    may not be compared, and for an empty list.
    """
    check(results)
    report = {"title": title or "Table 1", **common_facts(results), "rows": make_rows(results)}
    report["claims"] = make_claims(report["rows"])
    return report


def check(results):
    if not results:
        raise Refusal("there are no results to report; measure something with `seqkd evaluate` first")
    seen = set()
    for result in results:
        for key in ("bleu_greedy", "bleu_beam5", "ppl", "mode_probability"):
            if not isinstance(result.get(key), (int, float)):
                raise Refusal(f"the result of {result['name']} has no {key}; measure it with this version of `seqkd evaluate`")
        for key in COMPARABLE:
            if result.get(key) != results[0].get(key):
                what = "other data" if key == "data_sha256" else "other settings"
                raise Refusal(
                    f"{result['name']} was measured on {what} than {results[0]['name']}, so they do not belong in one table; "
                    "evaluate both with the same options"
                )
        if identity(result) in seen:
            name, seed = identity(result)
            raise Refusal(f"there are two results for {name}, seed {seed}; give every checkpoint its own seed, NAME@SEED=PATH")
        seen.add(identity(result))


def common_facts(results):
    """What is true of all results, or the list of what is true of some."""
    settings = dict(results[0].get("settings") or {})
    facts = {"split": settings.get("split"), "settings": settings, "data_sha256": results[0].get("data_sha256")}
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
        if values:
            # A number that is the same for all stays as it is: 0.1 and an integer are not averaged into something else.
            row[key] = values[0] if len(set(values)) == 1 else statistics.fmean(values)
    for key in SIGNATURES:
        row[key] = " & ".join(dict.fromkeys(result[key] for result in found if result.get(key))) or None
    if len(found) > 1:
        for key in WITH_DEVIATION:
            row[f"{key}_std"] = statistics.stdev(result[key] for result in found)
        columns = [*NUMBERS, *SIGNATURES]
        row["seeds"] = [{"seed": r.get("seed"), **{key: r[key] for key in columns if key in r}} for r in found]
    return row


def make_claims(rows):
    """What the paper's Table 1 shows, judged on these rows: [{"claim", "seen", "holds"}]; empty without the rows for it."""
    by_name = {row["name"]: row for row in rows}
    if BASELINE not in by_name or SEQ_KD not in by_name:
        return []
    base, taught = by_name[BASELINE], by_name[SEQ_KD]
    return [claim_greedy(base, taught), claim_same_as_beam(base, taught), claim_ppl(base, taught), claim_mode(base, taught)]


def claim_greedy(base, taught):
    difference = taught["bleu_greedy"] - base["bleu_beam5"]
    return {
        "claim": f"{SEQ_KD} with greedy search is as good as {BASELINE} with beam 5",
        "seen": f"{taught['bleu_greedy']:.2f} against {base['bleu_beam5']:.2f} BLEU, {difference:+.2f} "
        f"(holds from -{BLEU_TOLERANCE})",
        "holds": difference >= -BLEU_TOLERANCE - ROUNDING,
    }


def claim_same_as_beam(base, taught):
    gaps = [abs(row["bleu_beam5"] - row["bleu_greedy"]) for row in (base, taught)]
    return {
        "claim": f"After {SEQ_KD}, greedy search nearly equals beam 5",
        "seen": f"{gaps[1]:.2f} BLEU apart, {gaps[0]:.2f} for {BASELINE} (holds up to a third of that, or {BLEU_TOLERANCE} BLEU)",
        "holds": gaps[1] <= max(gaps[0] * SHARE_OF_GAP, BLEU_TOLERANCE) + ROUNDING,
    }


def claim_ppl(base, taught):
    return {
        "claim": f"{SEQ_KD} has a worse perplexity on gold than {BASELINE}",
        "seen": f"{taught['ppl']:.2f} against {base['ppl']:.2f} (holds above it)",
        "holds": taught["ppl"] > base["ppl"],
    }


def claim_mode(base, taught):
    mine, theirs = taught["mode_probability"], base["mode_probability"]
    ratio = f"{mine / theirs:.1f} times as much" if theirs else "and nothing to compare it with"
    return {
        "claim": f"{SEQ_KD} puts many times more probability on its own greedy output than {BASELINE}",
        "seen": f"{percent(mine)} against {percent(theirs)}, {ratio} (holds from {MODE_RATIO:.0f} times)",
        "holds": mine > 0 and mine >= MODE_RATIO * theirs * (1 - ROUNDING),
    }


# Text.


def to_markdown(report):
    """The report for reading: the table, what its columns are, the claims, and how it was made."""
    parts = [f"# {report['title']}", markdown_table(report["rows"]), "\n".join(explain(report)), claims_section(report["claims"])]
    return "\n\n".join(part for part in [*parts, provenance(report)] if part) + "\n"


def markdown_table(rows):
    """Table 1, its columns padded so that it can be read as text too."""
    return table(make_columns(rows), rows)


def make_columns(rows):
    """[(title, row -> text)]; the gains are there when there is something to gain over, and other rows."""
    base = next((row for row in rows if row["name"] == BASELINE), None)
    columns = [("Model", lambda row: row["name"]), ("Params", lambda row: millions(row.get("params")))]
    for title, key in (("BLEU K=1", "bleu_greedy"), ("BLEU K=5", "bleu_beam5")):
        columns.append((title, lambda row, key=key: with_deviation(row, key, "{:.2f}".format)))
        if base and len(rows) > 1:
            columns.append(("gain", lambda row, key=key: "" if row is base else f"{row[key] - base[key]:+.2f}"))
    columns += [
        ("PPL", lambda row: with_deviation(row, "ppl", "{:.2f}".format)),
        ("p(t = ŷ)", lambda row: with_deviation(row, "mode_probability", percent)),
        ("sent/s K=1", lambda row: number(row.get("sentences_per_second_greedy"), "{:,.0f}", "{:.1f}")),
        ("sent/s K=5", lambda row: number(row.get("sentences_per_second_beam5"), "{:,.0f}", "{:.1f}")),
    ]
    for title, key, form in (("length", "length_ratio", "{:.2f}"), ("at limit", "hit_limit", "{:.4g}")):
        for k, name in (("K=1", "greedy"), ("K=5", "beam5")):
            columns.append((f"{title} {k}", lambda row, key=f"{key}_{name}", form=form: number(row.get(key), form)))
    return columns


def explain(report):
    """A line for each column."""
    rows, settings = report["rows"], report["settings"]
    limit = ""
    if "max_len_a" in settings:
        limit = f" ({settings['max_len_a']} times the source's tokens plus {settings['max_len_b']}, the same for all)"
    lines = ["- **Params**: trainable parameters, tied weights once."]
    if any("seeds" in row for row in rows):
        lines.append("- **±**: mean and sample standard deviation over seeds; without it, a single run.")
    lines.append("- **BLEU K=1, K=5**: sacrebleu on detokenised text, greedy search and beam 5.")
    if any(row["name"] == BASELINE for row in rows) and len(rows) > 1:
        lines.append(f"- **gain**: BLEU above {BASELINE} with the same search.")
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
    lines = [f"- {c['claim']}: {c['seen']}. **{'Holds' if c['holds'] else 'Does not hold'}.**" for c in claims]
    return "## What the paper claims, and what is seen here\n\n" + "\n".join(lines)


def provenance(report):
    """How the numbers came about: data, versions, and every signature once."""
    rows = report["rows"]
    scored_by = dict.fromkeys(row["sacrebleu_signature"] for row in rows if row.get("sacrebleu_signature"))
    lines = [
        f"- Split: {report['split']}" + (f", {rows[0]['sentences']:,} sentences" if "sentences" in rows[0] else ""),
        *(f"- {key.capitalize()}: {flat(report[key])}" for key in FACTS if report.get(key)),
        *(f"- sacrebleu: `{signature}`" for signature in scored_by),
    ]
    taught = {}
    for row in rows:
        if row.get("distillation_signature"):
            taught.setdefault(row["distillation_signature"], []).append(row["name"])
    lines += [f"- {', '.join(names)}: `{signature}`" for signature, names in taught.items()]
    return "## How this was made\n\n" + "\n".join(lines)
