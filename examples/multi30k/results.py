"""Make RESULTS.md and results.json of examples/multi30k/paper.sh from its measurements.

    python examples/multi30k/results.py WORK

`seqkd evaluate` and `seqkd bench` wrote the measurements to WORK/measured:

    <pair>.<student>.<split>.json    systems of a Table 1
    speed.<pair>.json                Table 2
    pruned.<split>.json              Table 3
    sweeps.<split>.json              what the settings change

What was not run is absent. Only seeds are averaged. A folder in WORK/measured holds the same files
of a further run of paper.sh with other seeds. Each run has its own teacher and students. Rows of
Table 1 are means over the seeds of all runs; the other tables are of one run each.
"""

import argparse
import json
import math
import re
import statistics
from pathlib import Path

from compact_json import compact

from fairseq_seqkd.evaluation import results
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.report import table2 as speed_table
from fairseq_seqkd.report import table3 as pruning_table
from fairseq_seqkd.report.claims import BASELINE, ROUNDING, SEQ_KD, Thresholds, make_claims, verdict
from fairseq_seqkd.report.formatting import flat

TESTS = {"test": "test_2016_flickr", "test1": "test_2017_flickr", "valid": "val"}
BEST = "Seq-KD + Seq-Inter + Word-KD"

# Thresholds of the claims on 1,000 sentences and up to three seeds, as the paper words them.
ASKED = Thresholds(bleu=0.0, mode_ratio=4.0)
GAIN, OF_BEST = 2, 0.2  # BLEU
HEAD = """# Kim & Rush (2016) on Multi30k, German to English

examples/multi30k/paper.sh made this page from the files in measured/. `seqkd evaluate` and
`seqkd bench` wrote these files, and every table names its own. results.json has the same numbers.

* The data-bin calls test_2016_flickr `test` and test_2017_flickr `test1`.
* A row is the mean and standard deviation over seeds where there are several.
* BLEU penalises translations that are shorter than the references. Claims about BLEU are printed
  with the figures without that penalty.
* Speeds in Table 1 were measured beside other work, some of them on several machines. Compare the
  speeds in Table 2, which were measured alone on one machine.
* Tables that were measured at different times may be of different trainings under the same
  settings. measured/ has the hash of every checkpoint.
* Seeds that were run at different times have their own teacher, trained under the same settings,
  and its search. The teacher's rows are means then, too. Where two machines round alike, the second
  teacher equals the first: its row has a deviation of 0.00.

"""
CLAIMED_ON = ("test", "test1")


def main(work):
    measured = Path(work) / "measured"
    runs = [measured, *sorted(path for path in measured.glob("*") if path.is_dir())]
    content = {"table1": [], "table2": [], "table3": [], "sweeps": [], "claims": []}
    text = []
    columns = ""
    for pair in ("transformer", "lstm"):
        for student in ("small", "medium"):
            for split in TESTS:
                made = report_of(runs, f"{pair}.{student}.{split}.json")
                if made:
                    where = {"pair": pair, "student": student, "test": TESTS[split]}
                    claims = judge(made["rows"], student) if split in CLAIMED_ON else []
                    content["table1"] += [
                        {**where, **as_seeds(row, made["seeds"])} for row in made["rows"]
                    ]
                    content["claims"] += [{**where, **claim} for claim in claims]
                    title = f"## Table 1: {pair}, {student} student, {TESTS[split]}"
                    text.append(f"{title}\n\n{body(made, claims)}")
                    columns = columns or columns_of(made)
    for run in runs:
        of_run = {"run": run.name} if run != measured else {}
        for key, sections in (("table2", speeds_of), ("table3", pruned_of), ("sweeps", sweeps_of)):
            for where, rows, title, rest in sections(run):
                content[key] += [{**where, **of_run, **row} for row in rows]
                text.append(f"## {title}{f', run {run.name}' if of_run else ''}\n\n{rest}")
    (Path(work) / "results.json").write_text(compact(content), encoding="utf-8")
    (Path(work) / "RESULTS.md").write_text(HEAD + columns + "\n".join(text), encoding="utf-8")
    print(summary(content))


def speeds_of(run):
    """Table 2 of each pair, as (pair and test, rows, title of the section, its text)."""
    for pair in ("transformer", "lstm"):
        path = run / f"speed.{pair}.json"
        if path.is_file():
            made = results.speeds(results.read_json(path), path)
            rows = speed_table.make_rows(made)
            where = {"pair": pair, "test": TESTS["test"]}
            rest = f"{speed_table.markdown(made).rstrip()}\n- File: `{named(path)}`\n"
            yield where, rows, f"Table 2: {pair}, {TESTS['test']}", rest


def pruned_of(run):
    """Table 3 of each split, as speeds_of."""
    for split, test in TESTS.items():
        made = report_of([run], f"pruned.{split}.json")
        if made:
            rows = pruning_table.make_rows(made["rows"])
            where = {"pair": "transformer", "student": "medium", "test": test}
            rest = f"{pruning_table.markdown(rows)}\n{how_made(made)}\n"
            yield (
                where,
                [as_seeds(row, made["seeds"]) for row in rows],
                f"Table 3: the medium Transformer, {test}",
                rest,
            )


def sweeps_of(run):
    """What the settings change, of each split, as speeds_of."""
    for split, test in TESTS.items():
        made = report_of([run], f"sweeps.{split}.json")
        if made:
            where = {"pair": "transformer", "student": "small", "test": test}
            title = f"What the settings change: the small Transformer, {test}"
            yield (
                where,
                [as_seeds(row, made["seeds"]) for row in made["rows"]],
                title,
                body(made, []),
            )


def report_of(runs, name):
    """The report of all runs' files of one name, None where no run has such a file.

    It has two more keys: "seeds", {name: [seed or None]}, and "files", one line per file with its
    machines and dates.
    """
    paths = [run / name for run in runs if (run / name).is_file()]
    found, pairs, files = [], [], []
    for path in paths:
        content = results.read_json(path)
        of_run, pairs_of_run = results.of(content, path), results.pairs_of(content, path)
        check_teacher(of_run, path)
        facts = table.common_facts(of_run)
        files.append(f"- File: `{named(path)}`, {flat(facts['machine'])}, {flat(facts['date'])}")
        if len(paths) > 1:
            of_run, pairs_of_run = of_first_seed(of_run, pairs_of_run)
        found += of_run
        pairs += pairs_of_run
    if not found:
        return None
    seeds = {}
    for result in found:
        seeds.setdefault(result["name"], []).append(result.get("seed"))
    return {**table.make_report(found, pairs=pairs), "seeds": seeds, "files": files}


def named(path):
    """A file of measured/ as it is named from beside RESULTS.md, whatever folder that is."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("measured") - 1 :])


def check_teacher(found, path):
    """Refuse students of several teachers in one file, the remains of a run that was restarted."""
    signatures = [result["distillation_signature"] or "" for result in found]
    teachers = {name for text in signatures for name in re.findall(r"teacher:(\w+)", text)}
    # A teacher is unknown where its files were gone, e.g. distributions in a moved work folder.
    teachers.discard("unknown")
    if len(teachers) > 1:
        raise SystemExit(
            f"results: {path} has students of several teachers ({', '.join(sorted(teachers))}), "
            "whose mean says nothing: remove it and measure students of one teacher, or keep the "
            "files of each run in a folder of its own"
        )


def of_first_seed(found, pairs):
    """A run's results and comparisons, with its teacher's under the run's first seed.

    This tells the teachers of several runs apart.
    """
    first = min(
        (result["seed"] for result in found if result.get("seed") is not None), default=None
    )
    return tuple(
        [{**one, "seed": first if one.get("seed") is None else one["seed"]} for one in some]
        for some in (found, pairs)
    )


def as_seeds(row, names):
    """A row with {"mean", "std", "seeds"} for each measured number; std is None for a single seed.

    Args:
        names: {name of the row: its seeds}.
    """
    seeds = row.get("seeds", [row])
    made = {}
    for key, value in row.items():
        values = [seed[key] for seed in seeds if key in seed]
        if key in results.NUMBERS and key not in ("params", "sentences") and values:
            made[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "seeds": values,
            }
        elif key != "seeds" and not key.endswith("_std"):
            made[key] = value
    return {**made, "seeds": names[row["name"]]}


def judge(rows, student):
    """The claims of the paper's Table 1, judged on these rows: [{"claim", "seen", "holds"}].

    The list is empty where a row is missing.
    """
    row = {row["name"]: row for row in rows}
    if not {BASELINE, SEQ_KD, BEST, "Teacher", "Teacher + Seq-Inter"} <= row.keys():
        return []
    base, taught, teacher, fine_tuned = (
        row[name] for name in (BASELINE, SEQ_KD, "Teacher", "Teacher + Seq-Inter")
    )
    students = [r for r in rows if not r["name"].startswith("Teacher")]

    def without_penalty(*sides):
        return "; without the brevity penalty " + " against ".join(
            f"{unpunished(*side):.2f}" for side in sides
        )

    as_beam, *others = make_claims(rows, ASKED)
    found = [
        {**as_beam, "seen": as_beam["seen"] + without_penalty((taught, "greedy"), (base, "beam5"))}
    ]
    if student == "small":
        gain = taught["bleu_greedy"] - base["bleu_greedy"]
        found.append(
            {
                "claim": f"{SEQ_KD} gains at least {GAIN} BLEU with greedy search",
                "seen": f"{gain:+.2f}{without_penalty((taught, 'greedy'), (base, 'greedy'))}",
                "holds": gain >= GAIN - ROUNDING,
            }
        )
    found += others
    found.append(
        {
            "claim": "Teacher + Seq-Inter is better than Teacher with greedy search",
            "seen": f"{fine_tuned['bleu_greedy']:.2f} against {teacher['bleu_greedy']:.2f}",
            "holds": fine_tuned["bleu_greedy"] > teacher["bleu_greedy"],
        }
    )
    for search in ("greedy", "beam5"):
        best = max(students, key=lambda r: r[f"bleu_{search}"])
        mine, most = row[BEST][f"bleu_{search}"], best[f"bleu_{search}"]
        found.append(
            {
                "claim": f"{BEST} is the best student or within {OF_BEST} of it, {search}",
                "seen": f"{mine:.2f}; the best is {best['name']}, {most:.2f}"
                + (
                    without_penalty((row[BEST], search), (best, search))
                    if best is not row[BEST]
                    else ""
                ),
                "holds": mine >= most - OF_BEST - ROUNDING,
            }
        )
    return found


def unpunished(row, search):
    """BLEU without its brevity penalty exp(1 - 1 / length ratio), the mean over the seeds.

    Papineni et al. 2002, section 2.3.
    """
    seeds = [
        (seed[f"bleu_{search}"], seed[f"length_ratio_{search}"]) for seed in row.get("seeds", [row])
    ]
    return statistics.fmean(
        bleu / min(1.0, math.exp(1 - 1 / length)) if length else 0.0 for bleu, length in seeds
    )


def body(made, claims):
    """A table of systems, the claims on it, and how it was made."""
    lines = [table.markdown_table(made["rows"])]
    if claims:
        lines.append(
            "\n".join(
                f"- **{verdict(claim)}**: {claim['claim']}: {claim['seen']}." for claim in claims
            )
        )
    return "\n\n".join([*lines, "\n".join(table.explain_stars(made)), how_made(made)]) + "\n"


def columns_of(made):
    """The explanation of the columns, once for all tables; each table explains its own stars."""
    lines = table.explain({**made, "machine": None})
    return "\n".join(
        [
            "## The columns",
            "",
            *(line for line in lines if line not in table.explain_stars(made)),
            "",
            "",
        ]
    )


def how_made(made):
    """Files, split, machine, date, versions and signatures, under a heading of their own."""
    return "\n".join(["### How this was made", "", *made["files"], *table.provenance(made)])


def summary(content):
    """One line per claim, and the number of rows of each table, for the terminal."""
    lines = []
    for claim in content["claims"]:
        word = "holds" if claim["holds"] else "DOES NOT HOLD"
        system = f"{claim['pair']}, {claim['student']}, {claim['test']}"
        lines.append(f"{word}: {system}: {claim['claim']}: {claim['seen']}")
    return "\n".join([*lines, json.dumps({name: len(rows) for name, rows in content.items()})])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "work", metavar="WORK", help="the work folder of paper.sh, or examples/multi30k"
    )
    wanted = parser.parse_args()
    if not Path(wanted.work).is_dir():
        parser.error(f"there is no folder {wanted.work}; name the work folder of paper.sh")
    main(wanted.work)
