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
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from compact_json import compact
from msgspec.structs import replace

from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.evaluation import records
from fairseq_seqkd.evaluation.records import Evaluation, Measurement
from fairseq_seqkd.report import table1, table2, table3
from fairseq_seqkd.report.claims import ROUNDING, Thresholds, make_claims
from fairseq_seqkd.report.formatting import flat
from fairseq_seqkd.report.records import BASELINE, SEQ_KD, Claim, Report, Row

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


@dataclass
class TableOfRuns:
    """A report of all runs' files of one name: one line per file, and the seeds of each row."""

    report: Report
    files: List[str]
    seeds: Dict[str, List[Optional[int]]]

    def rows(self) -> List[Dict[str, Any]]:
        """The rows for results.json."""
        return [as_seeds(row, self.seeds[row.name]) for row in self.report.rows]


def main(work: str) -> None:
    """Write RESULTS.md and results.json into WORK."""
    measured = Path(work) / "measured"
    runs = [measured, *sorted(path for path in measured.glob("*") if path.is_dir())]
    content: Dict[str, List[Any]] = {
        name: [] for name in ("table1", "table2", "table3", "sweeps", "claims")
    }
    text = []
    columns = ""
    for pair, student, split in product(("transformer", "lstm"), ("small", "medium"), TESTS):
        table = table_of(runs, f"{pair}.{student}.{split}.json")
        if not table:
            continue
        where = {"pair": pair, "student": student, "test": TESTS[split]}
        claims = judge(table.report.rows, student) if split in CLAIMED_ON else []
        content["table1"] += [{**where, **row} for row in table.rows()]
        content["claims"] += [{**where, **tree(claim)} for claim in claims]
        title = f"## Table 1: {pair}, {student} student, {TESTS[split]}"
        text.append(f"{title}\n\n{body(table, claims)}")
        columns = columns or columns_of(table.report)
    for run in runs:
        of_run = {"run": run.name} if run != measured else {}
        for key, sections in (("table2", speeds_of), ("table3", pruned_of), ("sweeps", sweeps_of)):
            for where, rows, title, section in sections(run):
                content[key] += [{**where, **of_run, **row} for row in rows]
                text.append(f"## {title}{f', run {run.name}' if of_run else ''}\n\n{section}")
    (Path(work) / "results.json").write_text(compact(content), encoding="utf-8")
    (Path(work) / "RESULTS.md").write_text(HEAD + columns + "\n".join(text), encoding="utf-8")
    print(summary(content))


class Section(NamedTuple):
    """A section of RESULTS.md: pair and test, rows for results.json, title, Markdown."""

    where: Dict[str, str]
    rows: List[Dict[str, Any]]
    title: str
    text: str


def speeds_of(run: Path) -> Iterator[Section]:
    """Table 2 of each pair."""
    for pair in ("transformer", "lstm"):
        path = run / f"speed.{pair}.json"
        if not path.is_file():
            continue
        bench = records.read(path)
        base = table2.reference(bench).words_per_second
        rows = []
        for row in table2.make_rows(bench):
            beams = {
                beam: {
                    **tree(speed),
                    "times": speed.words_per_second / base,
                    "spread": table2.spread(speed),
                }
                for beam, speed in row.beams.items()
            }
            rows.append({**tree(row.first), "beams": beams})
        where = {"pair": pair, "test": TESTS["test"]}
        text = f"{table2.markdown(bench).rstrip()}\n- File: `{named(path)}`\n"
        yield Section(where, rows, f"Table 2: {pair}, {TESTS['test']}", text)


def pruned_of(run: Path) -> Iterator[Section]:
    """Table 3 of each split."""
    for split, test in TESTS.items():
        table = table_of([run], f"pruned.{split}.json")
        if table:
            pruned = table3.make_rows(table.report.rows)
            rows = [as_seeds(row, table.seeds[row.name]) for row in pruned]
            where = {"pair": "transformer", "student": "medium", "test": test}
            text = f"{table3.markdown(pruned)}\n{how_made(table)}\n"
            yield Section(where, rows, f"Table 3: the medium Transformer, {test}", text)


def sweeps_of(run: Path) -> Iterator[Section]:
    """What the settings change, for each split."""
    for split, test in TESTS.items():
        table = table_of([run], f"sweeps.{split}.json")
        if table:
            where = {"pair": "transformer", "student": "small", "test": test}
            title = f"What the settings change: the small Transformer, {test}"
            yield Section(where, table.rows(), title, body(table, []))


def table_of(runs: Sequence[Path], name: str) -> Optional[TableOfRuns]:
    """The table of all runs' files of one name, None where no run has such a file."""
    paths = [run / name for run in runs if (run / name).is_file()]
    measurements, comparisons, files = [], [], []
    for path in paths:
        content = records.read_evaluation(path)
        check_teacher(content.results, path)
        machine, date = (table1.common_fact(content.results, key) for key in ("machine", "date"))
        files.append(f"- File: `{named(path)}`, {flat(machine)}, {flat(date)}")
        if len(paths) > 1:
            content = of_first_seed(content)
        measurements += content.results
        comparisons += content.pairs
    if not measurements:
        return None
    seeds: Dict[str, List[Optional[int]]] = {}
    for measurement in measurements:
        seeds.setdefault(measurement.name, []).append(measurement.seed)
    report = table1.make_report(measurements, pairs=comparisons)
    return TableOfRuns(report, files, seeds)


def named(path: Path) -> str:
    """A file of measured/ as it is named from beside RESULTS.md, whatever folder that is."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("measured") - 1 :])


def check_teacher(measurements: Sequence[Measurement], path: Path) -> None:
    """Refuse students of several teachers in one file, the remains of a run that was restarted."""
    signatures = [measurement.distillation_signature or "" for measurement in measurements]
    teachers = {name for text in signatures for name in re.findall(r"teacher:(\w+)", text)}
    # A teacher is unknown where its files were gone, e.g. distributions in a moved work folder.
    teachers.discard("unknown")
    if len(teachers) > 1:
        raise SystemExit(
            f"results: {path} has students of several teachers ({', '.join(sorted(teachers))}), "
            "whose mean says nothing: remove it and measure students of one teacher, or keep the "
            "files of each run in a folder of its own"
        )


def of_first_seed(content: Evaluation) -> Evaluation:
    """A run's results and comparisons, with its teacher's under the run's first seed.

    This tells the teachers of several runs apart.
    """
    first = min((one.seed for one in content.results if one.seed is not None), default=None)
    results, pairs = (
        [replace(one, seed=first) if one.seed is None else one for one in entries]
        for entries in (content.results, content.pairs)
    )
    return Evaluation(results, pairs)


def as_seeds(row: Row, seeds: List[Optional[int]]) -> Dict[str, Any]:
    """A row with {"mean", "std", "seeds"} for each measured number; std is None for a single seed.

    Args:
        row: a row of a table.
        seeds: its seeds.
    """
    entries = {}
    for key, value in row.as_json().items():
        values = [getattr(seed, key, None) for seed in row.seeds or [row]]
        values = [value for value in values if value is not None]
        if key in records.NUMBERS and key not in ("params", "sentences") and values:
            entries[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "seeds": values,
            }
        elif key != "seeds" and not key.endswith("_std"):
            entries[key] = value
    return {**entries, "seeds": seeds}


def judge(rows: Sequence[Row], student: str) -> List[Claim]:
    """The claims of the paper's Table 1, judged on these rows. Empty where a row is missing."""
    by_name = {row.name: row for row in rows}
    if not {BASELINE, SEQ_KD, BEST, "Teacher", "Teacher + Seq-Inter"} <= by_name.keys():
        return []
    base, distilled, teacher, fine_tuned = (
        by_name[name] for name in (BASELINE, SEQ_KD, "Teacher", "Teacher + Seq-Inter")
    )

    def without_penalty(*sides: Tuple[Row, str]) -> str:
        scores = " against ".join(f"{unpunished(*side):.2f}" for side in sides)
        return f"; without the brevity penalty {scores}"

    as_beam, *others = make_claims(rows, ASKED)
    as_beam.seen += without_penalty((distilled, "greedy"), (base, "beam5"))
    claims = [as_beam]
    if student == "small":
        gain = distilled.bleu_greedy - base.bleu_greedy
        claims.append(
            Claim(
                f"{SEQ_KD} gains at least {GAIN} BLEU with greedy search",
                f"{gain:+.2f}{without_penalty((distilled, 'greedy'), (base, 'greedy'))}",
                gain >= GAIN - ROUNDING,
            )
        )
    claims += others
    claims.append(
        Claim(
            "Teacher + Seq-Inter is better than Teacher with greedy search",
            f"{fine_tuned.bleu_greedy:.2f} against {teacher.bleu_greedy:.2f}",
            fine_tuned.bleu_greedy > teacher.bleu_greedy,
        )
    )
    students = [row for row in rows if not row.name.startswith("Teacher")]
    every_method = by_name[BEST]
    for search in ("greedy", "beam5"):
        best = max(students, key=lambda row: row.score(f"bleu_{search}"))
        score, highest = (row.score(f"bleu_{search}") for row in (every_method, best))
        is_best = best is every_method
        penalty = "" if is_best else without_penalty((every_method, search), (best, search))
        claims.append(
            Claim(
                f"{BEST} is the best student or within {OF_BEST} of it, {search}",
                f"{score:.2f}; the best is {best.name}, {highest:.2f}{penalty}",
                score >= highest - OF_BEST - ROUNDING,
            )
        )
    return claims


def unpunished(row: Row, search: str) -> float:
    """BLEU without its brevity penalty exp(1 - 1 / length ratio), the mean over the seeds.

    Papineni et al. 2002, section 2.3.
    """
    scores = [
        (getattr(seed, f"bleu_{search}"), getattr(seed, f"length_ratio_{search}"))
        for seed in row.seeds or [row]
    ]
    return statistics.fmean(
        bleu / min(1.0, math.exp(1 - 1 / length)) if length else 0.0 for bleu, length in scores
    )


def body(table: TableOfRuns, claims: Sequence[Claim]) -> str:
    """A table of systems, the claims on it, and how it was made."""
    report = table.report
    lines = [f"- **{claim.verdict}**: {claim.claim}: {claim.seen}." for claim in claims]
    stars = [note.markdown() for note in table1.explain_stars(report)]
    parts = [
        table1.markdown_table(report.rows),
        *(["\n".join(lines)] if lines else []),
        "\n".join(stars),
    ]
    return "\n\n".join([*parts, how_made(table)]) + "\n"


def columns_of(report: Report) -> str:
    """The explanation of the columns, once for all tables; each table explains its own stars."""
    stars = table1.explain_stars(report)
    notes = [
        note.markdown()
        for note in table1.explain(replace(report, machine=None))
        if note not in stars
    ]
    return "\n".join(["## The columns", "", *notes, "", ""])


def how_made(table: TableOfRuns) -> str:
    """Files, split, machine, date, versions and signatures, under a heading of their own."""
    provenance = (note.markdown() for note in table1.provenance(table.report))
    return "\n".join(["### How this was made", "", *table.files, *provenance])


def summary(content: Dict[str, List[Any]]) -> str:
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
    arguments = parser.parse_args()
    if not Path(arguments.work).is_dir():
        parser.error(f"there is no folder {arguments.work}; name the work folder of paper.sh")
    main(arguments.work)
