"""The report's page: what it says is what was measured, it needs nothing but itself, and a browser
can use it.

The tests in a browser run where Debian's chromium and chromium-driver and the package selenium are:
recipes/test_page.sh.
"""

import base64
import json
import os
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import toys
from commands import run_here

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.report import page, report, run_folder, sections
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.report.records import Report, RunDetails

FIGURES = ("curves", "search", "mode", "speed", "pruning", "beam0")
VOID = ("meta", "link", "br")
WIDTHS = {"phone": 390, "desk": 1280}


def make_experiments(home, tiny, teacher, distilled):
    """Trains, prunes and evaluates as a user does; only the speeds are written by hand."""
    shutil.copytree(tiny, home / "bin")
    shutil.copytree(distilled, home / "distilled")
    common = {"max_epoch": 2, "max_tokens": 300, "log_format": "json"}
    trainings = {
        "student": (tiny, "cross_entropy"),
        "seq_kd": (home / "distilled" / "seq_kd", "seq_kd"),
    }
    for name, (data, criterion) in trainings.items():
        done = toys.train(data, home / name, criterion=criterion, **common)
        (home / f"{name}.log").write_text(done.stdout)
    run_here(
        "seqkd",
        "prune",
        home / "seq_kd" / "checkpoint_last.pt",
        "--sparsity",
        0.5,
        "-o",
        home / "pruned.pt",
    )
    last = {name: f"{home}/{name}/checkpoint_last.pt" for name in trainings}
    systems = [
        f"Teacher={teacher}",
        f"Student={last['student']}",
        f"Seq-KD={last['seq_kd']}",
        f"Seq-KD 50%={home}/pruned.pt",
    ]
    run_here("seqkd", "evaluate", *systems, "--data", tiny, "-o", home / "results.json")
    first = json.loads((home / "results.json").read_text())["results"][0]
    speeds = [
        {
            **first,
            "engine": engine,
            "beam": beam,
            "words_per_second": 100.0 * k,
            "words_per_second_rounds": [100.0 * k],
            "size_bytes": 10**6,
            "bleu": 30.0 + k,
            "peak_memory_mb": 200.0,
        }
        for k, (engine, beam) in enumerate(
            [("fairseq", 5), ("fairseq", 1), ("ctranslate2-int8", 5), ("ctranslate2-int8", 1)], 1
        )
    ]
    facts = {key: first[key] for key in ("data_sha256", "settings", "versions", "machine", "date")}
    (home / "speed.json").write_text(json.dumps({"speeds": speeds, **facts}))
    index = {
        "results": ["results.json"],
        "speeds": ["speed.json"],
        "trainings": {"Student": "student.log", "Seq-KD": "seq_kd.log"},
        "distilled": ["distilled"],
        "data": ["bin"],
    }
    (home / "run.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def run_dir(tiny, teacher, distilled, shared):
    """A folder of experiments made by real commands."""

    def make(folder):
        make_experiments(folder / "run", tiny, teacher, distilled)

    return shared("experiments", make) / "run"


@pytest.fixture(scope="module")
def written(run_dir):
    """(text of the page, content of the JSON, text of the Markdown) of one call."""
    out = run_dir.parent
    outputs = [word for kind in ("html", "json", "md") for word in ("-o", out / f"report.{kind}")]
    run_here("seqkd", "report", run_dir, *outputs)
    texts = [(out / f"report.{kind}").read_text() for kind in ("html", "json", "md")]
    return texts[0], json.loads(texts[1]), texts[2]


class Elements(HTMLParser):
    """Every element with its attributes and the text in it; complains of what is not closed in
    order.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.all.append({"tag": tag, "text": "", **dict(attributes)})
        if tag not in VOID:
            self.open.append((tag, self.all[-1]))

    def handle_startendtag(self, tag, attributes):
        self.all.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, element in self.open:
            element["text"] += data

    def of(self, tag):
        return [element for element in self.all if element["tag"] == tag]


@pytest.fixture(scope="module")
def elements(written):
    return Elements(written[0])


def test_every_figure_is_drawn_and_says_what_it_is(elements, written):
    pictures = elements.of("svg")
    assert len(pictures) == len(FIGURES) - 1 + len(written[1]["beams"]) and all(
        len(svg["aria-label"]) > 20 for svg in pictures
    )
    ids = [element["id"] for element in elements.all if "id" in element]
    assert len(ids) == len(set(ids))
    assert all(any(name.startswith(f"{figure}-") for name in ids) for figure in FIGURES)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', written[0]))
    assert used <= set(ids)


def test_nothing_comes_from_elsewhere(elements, written):
    text = written[0]
    assert (
        not re.findall(r'(?:src|xlink:href)="(?!#|data:)', text)
        and "@import" not in text
        and "url(http" not in text
    )
    assert [e["href"] for e in elements.all if str(e.get("href", "#"))[0] not in "#d"] == [
        "https://aclanthology.org/D16-1139/"
    ]
    assert len(text) < 3e6


def test_the_tables_say_what_was_measured(elements, written, run_dir):
    made = written[1]
    cells = [element["text"] for element in elements.all if element["tag"] in ("td", "th")]
    for row in made["rows"]:
        assert (
            row["name"] in cells
            and f"{row['bleu_greedy']:.2f}" in cells
            and f"{row['ppl']:.2f}" in cells
        )
    for name, found in made["corpus"].items():
        assert name in cells and f"{found['complexity']:.2f}" in cells
    assert {row["name"] for row in made["table3"]} >= {"Seq-KD", "Seq-KD 50%"} and "300" in cells
    assert made["corpus"].keys() == {"gold", "seq_kd", "seq_inter"}
    said = [element["text"] for element in elements.of("li")]
    rows = make_report(run_dir).rows
    for note in table.explain(Report(title="", rows=rows)):
        assert any(text.startswith(f"{note.term}: ") for text in said)


def test_curves_are_those_of_the_logs(written, run_dir):
    curves = {curve["name"]: curve["points"] for curve in written[1]["curves"]}
    assert curves.keys() == {"Student", "Seq-KD"}
    for name, log in (("Student", "student.log"), ("Seq-KD", "seq_kd.log")):
        logged = re.findall(
            r'"valid_ppl": "([\d.]+)".*"valid_num_updates": "(\d+)"', (run_dir / log).read_text()
        )
        assert curves[name] == [[int(updates), float(ppl)] for ppl, updates in logged]
        assert len(logged) == 2


def test_beams_are_those_of_the_store(written, distilled):
    from fairseq_seqkd.corpus.nbest_store import NBestStore

    store, found = NBestStore(distilled), written[1]["beams"]
    assert len(found) > 10
    for entry in found:
        nbest = store[entry["id"]]
        assert [h["log_prob"] for h in entry["hypotheses"]] == [h.log_prob for h in nbest]
        similarity = [h["similarity"] for h in entry["hypotheses"]]
        assert similarity[entry["seq_inter"]] == max(similarity) and entry["seq_kd"] == 0
    gains = [
        e["hypotheses"][e["seq_inter"]]["similarity"] - e["hypotheses"][0]["similarity"]
        for e in found
    ]
    best = max(
        max(h.similarity for h in store[i]) - store[i][0].similarity
        for i in range(len(store))
        if len(store[i]) > 1
    )
    assert max(gains) == pytest.approx(best, abs=1e-4)  # the most telling one is among them


def test_markdown_and_page_have_the_same_sections(written):
    for words in (
        "complexity",
        "The teacher's search",
        "Training: Seq-KD",
        "## Pruning",
        "## Speed",
    ):
        assert words in written[2]


def test_a_page_of_files_alone_has_what_they_have(run_dir, tmp_path):
    run_here("seqkd", "report", run_dir / "results.json", "-o", tmp_path / "r.html")
    found = Elements((tmp_path / "r.html").read_text())
    assert (
        len(found.of("svg")) == 4 and "Single sentences" not in found.all[0]["text"]
    )  # search, mode, speed, pruning
    assert (
        "sentences per second, fairseq" in found.all[0]["text"]
        and "source words per second" not in found.all[0]["text"]
    )


def make_report(run_dir):
    """Returns the report of the run folder."""
    inputs = run_folder.read([run_dir])
    made = report.make_report(inputs.measurements, inputs.benches, None, inputs.comparisons)
    made.details = sections.make_details(inputs)
    return made


def test_text_is_text(run_dir):
    """Names and sentences may hold anything."""
    made = make_report(run_dir)
    made.title = "<script>alert(1)</script>"
    for one in (*made.rows, *made.details.curves):
        one.name += " <b> & | ` **"
    made.details.beams = made.details.beams[:1]
    made.details.beams[0].source = "</option><img src=x>"
    found = Elements(page.render(made))
    assert not found.of("b") and not found.of("img") and len(found.of("script")) == 1
    assert "Seq-KD <b> & | ` **" in [cell["text"] for cell in found.of("th")]


def test_without_matplotlib_the_page_is_refused_before_the_work(run_dir, tmp_path, monkeypatch):
    import sys

    from fairseq_seqkd import cli

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Refusal, match="pip install .*report"):
        cli.main(["report", str(run_dir), "-o", str(tmp_path / "r.html")])
    assert not list(tmp_path.iterdir())
    assert cli.main(["report", str(run_dir / "results.json"), "-o", str(tmp_path / "r.md")]) == 0


def test_letters_of_formulas_are_letters_and_logs_need_no_decode(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("distilled", "bin"))
    index = {"results": ["results.json"], "trainings": {"Seq-KD": "seq_kd.log"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(index))
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    content["results"][1]["name"] = "A $\\frac$ b"
    (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    run_here("seqkd", "report", tmp_path / "run", "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "A $\\frac$ b" in text and "Training: Seq-KD" in text and "Single sentences" not in text


def details_of(folder, data):
    """Returns the details of a run folder with a distilled directory."""
    decode = manifest.read(folder)
    gold = run_folder.find_gold([data], decode)
    distilled = run_folder.Distilled(folder, decode, gold)
    return sections.make_details(run_folder.Run(distilled=[distilled]))


@pytest.mark.parametrize("how", [{"select": "mbr"}, {"similarity": "ter"}])
def test_other_choices_are_shown_as_they_were_made(tiny, teacher, tmp_path, how):
    from fairseq_seqkd.corpus.nbest_store import NBestStore

    toys.decode(tiny, teacher, tmp_path / "distilled", **how)
    details = details_of(tmp_path / "distilled", tiny)
    entry = max(details.beams, key=lambda beam: beam.seq_kd + beam.seq_inter)
    nbest = NBestStore(tmp_path / "distilled")[entry.id]
    page_text = page.render(Report(title="x", details=details))
    if "select" in how:
        assert entry.seq_kd > 0 and nbest[entry.seq_kd].consensus == max(h.consensus for h in nbest)
        assert "most similar to the others" in page_text and "the teacher's 1-best" not in page_text
    else:
        assert max(h.similarity for h in nbest) <= 0
        clip = re.search(
            r'<clipPath id="beam0-[^>]*>\s*<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" '
            r'height="([\d.]+)"',
            page_text,
        )
        x, y, width, height = map(float, clip.groups())
        for point in re.findall(r'<g id="beam0-h\d+">.*?</g>\s*</g>', page_text, re.DOTALL):
            at = re.search(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', point)
            assert x <= float(at[1]) <= x + width and y <= float(at[2]) <= y + height


def test_text_without_targets_has_a_pipeline_and_no_beams(tiny, teacher, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    for ending in ("bin", "idx"):
        (tmp_path / "bin" / f"train.de-en.en.{ending}").unlink()
    toys.decode(tmp_path / "bin", teacher, tmp_path / "distilled")
    details = details_of(tmp_path / "distilled", tmp_path / "bin")
    assert [step.step for step in details.pipeline] == [
        "Gold",
        "The teacher's search",
        "Data seq_kd",
    ]
    assert (
        details.pipeline[0].where == str(tmp_path / "bin")
        and "without targets" in details.pipeline[0].description
    )
    assert (
        not details.beams and not details.corpus and page.render(Report(title="x", details=details))
    )


def test_what_is_left_out_is_said_where_nothing_else_is():
    details = RunDetails(remarks=["a.log has no curve"])
    found = Elements(page.render(Report(title="x", details=details)))
    assert "a.log has no curve" in [element["text"] for element in found.of("li")]


def test_one_system_needs_no_comparison(run_dir):
    first = run_folder.read([run_dir / "results.json"]).measurements[:1]
    found = Elements(page.render(report.make_report(first)))
    assert len(found.of("svg")) == 1 and len(found.of("table")) == 1  # its two speeds


# In a browser.


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver and find_spec("selenium")):
        pytest.skip("needs chromium, chromedriver and selenium; recipes/test_page.sh installs them")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def visit(browser, path, width=1280, scheme="light", media=""):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    phone = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(f"file://{path}")


def script(browser, text):
    return browser.execute_script(f"return {text}")


@pytest.fixture
def opened(browser, written, run_dir):
    def visited(**how):
        visit(browser, run_dir.parent / "report.html", **how)
        return browser

    return visited


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_error_no_overflow_and_every_figure_has_a_size(opened, width, scheme):
    browser = opened(width=width, scheme=scheme)
    assert browser.get_log("browser") == []
    assert script(browser, "document.documentElement.scrollWidth") <= width
    sizes = script(
        browser, "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect())"
    )
    sizes = [(size["width"], size["height"]) for size in sizes if size["width"]]
    assert len(sizes) == len(FIGURES) and all(
        250 < w <= width and h > 80 for w, h in sizes
    )  # one beam is shown
    ink, paper = (
        script(browser, f"getComputedStyle(document.body).{key}")
        for key in ("color", "backgroundColor")
    )
    assert contrast(ink, paper) > 7
    assert (
        script(
            browser,
            "getComputedStyle(document.querySelector('#curves-text_1 text, #curves-text_1 "
            "g')).fill",
        )
        == ink
    )
    folder = os.environ.get("SEQKD_SCREENSHOTS")
    if folder:
        full = {"captureBeyondViewport": True, "format": "png"}
        height = script(browser, "document.documentElement.scrollHeight")
        full["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        image = browser.execute_cdp_cmd("Page.captureScreenshot", full)["data"]
        Path(folder, f"{width}-{scheme}.png").write_bytes(base64.b64decode(image))


def contrast(one, other):
    """The ratio of WCAG 2, from rgb(r, g, b)."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        r, g, b = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_sentences_are_chosen_with_the_keyboard(opened, written):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser, beams = opened(), written[1]["beams"]
    shown = (
        "[...document.querySelectorAll('[data-beam]')].filter(b => "
        "b.getClientRects().length).map(b => b.dataset.beam)"
    )
    assert script(browser, shown) == ["0"]
    browser.find_element(By.ID, "sentence").send_keys(Keys.ARROW_DOWN)
    assert script(browser, shown) == ["1"]
    browser.find_element(By.ID, "before").send_keys(Keys.ENTER)
    browser.find_element(By.ID, "before").send_keys(Keys.SPACE)
    last = len(beams) - 1
    assert script(browser, shown) == [str(last)]
    # From the button by Tab to the rows; the row under the cursor marks its point.
    button = browser.find_element(By.ID, "after")
    button.send_keys(Keys.TAB)
    assert script(browser, "document.activeElement.dataset.rank") == "0"
    assert script(browser, f"document.getElementById('beam{last}-h0').classList.contains('chosen')")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert script(browser, "document.querySelectorAll('g.chosen').length") == 1
    assert script(browser, f"document.getElementById('beam{last}-h1').classList.contains('chosen')")


def test_a_click_on_a_point_shows_its_text(opened):
    from selenium.webdriver.common.by import By

    browser = opened()
    browser.execute_script(
        "document.getElementById('beam0-h1').dispatchEvent(new MouseEvent('click'))"
    )
    row = browser.find_element(By.CSS_SELECTOR, "[data-beam='0'] tr.chosen")
    assert (
        row.get_attribute("data-rank") == "1"
        and script(browser, "document.activeElement.dataset.rank") == "1"
    )


def test_printed_it_has_every_section_and_nothing_to_press(opened):
    browser = opened(media="print", width=700)
    assert not script(browser, "document.querySelector('.controls').getClientRects().length")
    sections = script(
        browser,
        "[...document.querySelectorAll('section')].map(s => [s.id, "
        "s.getBoundingClientRect().height > 100])",
    )
    assert [name for name, _ in sections] == [
        "results",
        "pipeline",
        "training",
        "search",
        "speed",
        "pruning",
        "corpus",
        "beams",
    ]
    assert all(tall for _, tall in sections)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
    assert browser.get_log("browser") == []
