"""The pages: links resolve, figures are those that were measured, every option is listed."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "docs").is_dir())
MULTI30K = ROOT / "examples" / "multi30k"
FOLDERS = [ROOT / name for name in ("docs", "examples", "recipes")]
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))]


# Links.


def without_code(text):
    """A page without its code blocks and code spans, in which nothing is a link."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def links(text):
    """The targets of all links and images of a page."""
    return re.findall(r"\]\(([^()\s]+)\)", without_code(text))


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    made = {}
    for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        made[name] = made.get(name, -1) + 1
    return {
        name if not i else f"{name}-{i}" for name, times in made.items() for i in range(times + 1)
    }


def test_links_and_anchors_are_found_as_they_are_written():
    text = "# A page\n[a](b.md) `[no](c.md)` ![p](d.svg)\n```bash\n# no\n[no](e)\n```\n"
    text += "## It's (one) page, twice\n## A page\n"
    assert links(text) == ["b.md", "d.svg"]
    assert anchors(text) == {"a-page", "a-page-1", "its-one-page-twice"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        found = target.exists() and target.is_relative_to(ROOT)
        if found and anchor:
            found = anchor in anchors(target.read_text(encoding="utf-8"))
        if not found:
            broken.append(link)
    assert broken == []


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = set(links((ROOT / "README.md").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 8 and pages <= {link.partition("#")[0] for link in linked}


# Figures.


def table_rows(text):
    """The rows of all tables of a page, each a list of cells."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_the_readme_fits_two_screens_and_has_the_figures_of_the_results_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.encode()) <= 9000
    full = table_rows((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    header = next(row for row in full if row[0] == "Model")
    columns = [
        header.index(name) for name in ("Params", "BLEU K=1", "BLEU K=5", "p(t = ŷ)", "sent/s K=1")
    ]
    measured = {row[0]: row for row in full if len(row) == len(header)}
    names = {
        "Student without distillation": "Student",
        "All methods (Seq-KD + Seq-Inter + Word-KD)": "Seq-KD + Seq-Inter + Word-KD",
    }
    seen = []
    for name, *cells in table_rows(readme):
        row = measured.get(names.get(name, name))
        if row and len(cells) == 5 and name != "Model":
            without_spread = row[columns[3]].split(" ± ")[0]
            expected = [row[column] for column in columns]
            assert cells == [*expected[:3], without_spread, expected[4]]
            seen.append(name)
    assert len(seen) == 5


def table1():
    """The rows of Multi30k's Table 1: {(pair, student, test, name): row}."""
    rows = json.loads((MULTI30K / "results.json").read_text(encoding="utf-8"))["table1"]
    return {(row["pair"], row["student"], row["test"], row["name"]): row for row in rows}


def test_the_summary_of_multi30k_has_the_means_of_the_results():
    names = ("Teacher", "Student", "Word-KD", "Seq-KD", "Seq-KD + Seq-Inter + Word-KD")
    rows, compared = table1(), 0
    for pair, student, test, *cells in table_rows(
        (MULTI30K / "README.md").read_text(encoding="utf-8")
    ):
        if test in ("test_2016_flickr", "test_2017_flickr"):
            measured = [rows[pair.lower(), student, test, name] for name in names]
            means = [
                [row[f"bleu_{search}"]["mean"] for search in ("greedy", "beam5")]
                for row in measured
            ]
            assert cells == [f"{greedy:.2f} / {beam:.2f}" for greedy, beam in means]
            compared += 1
    assert compared == 8


def grouped_rows(begin, end):
    """Rows of Multi30k's notebook between two texts, as (group, name, other cells).

    A first cell "group: name" begins a group, to which the rows below belong.
    """
    text = (MULTI30K / "notebook.md").read_text(encoding="utf-8")
    group = None
    for first, *others in table_rows(text.partition(begin)[2].partition(end)[0]):
        if others and any(" / " in cell for cell in others):
            group = first.partition(": ")[0] if ": " in first else group
            yield group, first.rpartition(": ")[2], others


@pytest.mark.parametrize(
    "pair, begin",
    [("transformer", "\nThe Transformer pair, BLEU"), ("lstm", "\nThe LSTM pair, three seeds:")],
)
def test_the_notebooks_means_are_those_of_the_results(pair, begin):
    rows, students = table1(), set()
    for student, name, cells in grouped_rows(begin, "\n* "):
        students.add(student)
        for test, cell in zip(("test_2016_flickr", "test_2017_flickr", "val"), cells, strict=True):
            row = rows[pair, student or "medium", test, name]
            values = [row[f"bleu_{search}"] for search in ("greedy", "beam5")]
            if name == "Teacher":  # of several one's figures are there
                assert cell == " / ".join(f"{value['seeds'][0]:.2f}" for value in values)
            else:
                assert cell == " / ".join(
                    f"{value['mean']:.2f} ± {value['std']:.2f}" for value in values
                )
    assert students == {None, "medium", "small"}


def tried(name):
    return json.loads((MULTI30K / "tried" / f"{name}.json").read_text(encoding="utf-8"))["results"]


def test_what_was_tried_has_the_figures_that_were_measured():
    splits = {"test_2016_flickr": "test", "test_2017_flickr": "test1"}
    compared = 0
    for test, name, cells in grouped_rows(
        "**Longer training makes the better student of", "(Seed 3 of the rows"
    ):
        measured = [
            one for one in tried(f"lstm.medium.8000_updates.{splits[test]}") if one["name"] == name
        ]
        figures = [f"{one['bleu_greedy']:.2f} / {one['bleu_beam5']:.2f}" for one in measured]
        assert figures == [cell for cell in cells if cell]
        compared += len(measured)
    assert compared == 42


def test_the_longer_transformer_has_the_figures_that_were_measured():
    longer, means, seen = {}, {}, []
    for split, test in (("test", "test_2016_flickr"), ("valid", "val")):
        for one in tried(f"transformer.medium.9000_updates.{split}"):
            longer[one["name"], test] = f"{one['bleu_greedy']:.2f} / {one['bleu_beam5']:.2f}"
    for (pair, student, test, name), row in table1().items():
        if (pair, student) == ("transformer", "medium"):
            means[name, test] = (
                f"{row['bleu_greedy']['mean']:.2f} / {row['bleu_beam5']['mean']:.2f}"
            )
    begin, end = "### What was tried for the medium Transformer", "### What was tried for the LSTM"
    for _, name, cells in grouped_rows(begin, end):
        source, name = (longer, name) if name != "after 5,000" else (means, seen[-1])
        assert cells == [source[name, test] for test in ("test_2016_flickr", "val")]
        seen.append(name)
    assert seen == ["Teacher", "Student", "Student", "Seq-KD", "Seq-KD"]


@pytest.mark.parametrize(
    "path", sorted(MULTI30K.rglob("*.json")), ids=lambda path: str(path.relative_to(MULTI30K))
)
def test_measured_json_has_one_row_per_line(path, monkeypatch):
    monkeypatch.syspath_prepend(MULTI30K)
    from compact_json import compact

    text = path.read_text(encoding="utf-8")
    assert compact(json.loads(text)) == text


# Options.


def test_the_page_of_options_is_what_the_parsers_say():
    command = [sys.executable, ROOT / "recipes" / "options_page.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def options_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes")
    import options_page

    return options_page


def test_an_option_is_listed_with_its_value_default_and_note(options_page):
    parser = argparse.ArgumentParser()
    actions = [
        parser.add_argument("files", metavar="FILE", nargs="+", help="what to read"),
        parser.add_argument("-o", "--output", required=True, help="a *new* file"),
        parser.add_argument(
            "--kind", choices=["a", "b"], default="a", help="a|b (default: %(default)s)"
        ),
        parser.add_argument("--beam", type=int, default=5),
        parser.add_argument("--force", action="store_true", help="replace <FILE>"),
    ]
    table = options_page.table(actions, {"--force": "Careful."}, {"--beam": "The paper's."})
    assert table.splitlines()[2:] == [
        "| `FILE [FILE ...]` | required | what to read |  |",
        r"| `-o, --output OUTPUT` | required | a \*new\* file |  |",
        r"| `--kind {a,b}` | a | a\|b |  |",
        "| `--beam N` | `5` |  | The paper's. |",
        "| `--force` | off | replace &lt;FILE> | Careful. |",
    ]


def test_a_note_about_an_absent_option_is_refused(options_page):
    action = argparse.ArgumentParser().add_argument("--beam")
    sections = [("seqkd x", "seqkd x", "", [action])]
    notes = {
        "shared": {"--beam": "a"},
        "seqkd x": {"text": "b", "--beam": "c"},
        "fairseq": {"--lenpen, --beam": "d"},
    }
    options_page.check_notes(notes, sections)
    with pytest.raises(SystemExit, match=r"\[seqkd x\] has no option --been"):
        options_page.check_notes({**notes, "seqkd x": {"--been": "c"}}, sections)
    with pytest.raises(SystemExit, match=r"\[fairseq\] has no option --lenpenalty"):
        options_page.check_notes({**notes, "fairseq": {"--lenpenalty": "c"}}, sections)
