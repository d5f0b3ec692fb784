"""`seqkd bench`: what it times is the work that `seqkd evaluate` measures, and Tables 2 and 3 say
what was measured.
"""

import json

import pytest
import toys
from commands import refusal, run_here
from measurements import measurement

from fairseq_seqkd import cli
from fairseq_seqkd.corpus.databin import LanguagePair
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records
from fairseq_seqkd.report import figures, report, table1
from fairseq_seqkd.report import table3 as pruning_table


@pytest.fixture(scope="module")
def measured(tiny, teacher, lstm_teacher, tmp_path_factory):
    """(results of evaluate, content of bench's file, what bench printed) of the teacher and an
    LSTM.
    """
    pytest.importorskip("ctranslate2")
    home = tmp_path_factory.mktemp("speed")
    models = [f"Teacher={teacher}", f"LSTM={lstm_teacher}"]
    run_here("seqkd", "evaluate", *models, "--data", tiny, "-o", home / "results.json")
    done = run_here(
        "seqkd", "bench", *models, "--data", tiny, "--rounds", 2, "-o", home / "speed.json"
    )
    results = json.loads((home / "results.json").read_text())["results"]
    return results, json.loads((home / "speed.json").read_text()), done.stdout


@pytest.mark.slow
def test_every_contender_translates_what_evaluate_translates(measured, tiny):
    results, made, printed = measured
    speeds = {(s["name"], s["engine"], s["beam"]): s for s in made["speeds"]}
    transformer = [
        ("Teacher", e, k)
        for e in ("fairseq", "ctranslate2-float32", "ctranslate2-int8")
        for k in (1, 5)
    ]
    assert list(speeds) == [*transformer, ("LSTM", "fairseq", 1), ("LSTM", "fairseq", 5)]
    assert "LSTM is no Transformer, so ctranslate2-int8 cannot hold it" in printed
    for result in results:
        for beam, column in ((1, "bleu_greedy"), (5, "bleu_beam5")):
            assert speeds[result["name"], "fairseq", beam]["bleu"] == pytest.approx(result[column])
            assert speeds[result["name"], "fairseq", beam]["params"] == result["params"]
    for beam in (1, 5):
        assert speeds["Teacher", "ctranslate2-float32", beam]["bleu"] == pytest.approx(
            speeds["Teacher", "fairseq", beam]["bleu"]
        )
    sizes = [
        speeds["Teacher", engine, 1]["size_bytes"]
        for engine in ("ctranslate2-float32", "ctranslate2-int8")
    ]
    assert sizes[1] < 0.8 * sizes[0]
    memory = {
        engine: speeds["Teacher", engine, 1]["peak_memory_mb"]
        for engine in ("fairseq", "ctranslate2-float32")
    }
    assert 10 < memory["ctranslate2-float32"] < 0.7 * memory["fairseq"]  # no torch in that process


@pytest.mark.slow
def test_rates_are_source_words_a_second(measured, tiny):
    text = (tiny.parent / "text" / "test.de").read_text().replace("@@ ", "")
    words = len(text.split())
    for speed in measured[1]["speeds"]:
        assert speed["words_per_second"] / speed["sentences_per_second"] == pytest.approx(
            words / 45
        )
        assert (
            len(speed["words_per_second_rounds"]) == 2 and min(speed["words_per_second_rounds"]) > 0
        )


@pytest.mark.slow
def test_table_2_compares_with_the_first_model_and_its_largest_beam(measured):
    _, made, printed = measured
    text = report.to_markdown(report.make_report([], [records.decode(made)], "Speed"))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 5 and rows[1].split("|")[10].strip() == "1.0"
    assert all(row in printed for row in rows)
    speeds = {(s["name"], s["engine"], s["beam"]): s["words_per_second"] for s in made["speeds"]}
    times = speeds["LSTM", "fairseq", 1] / speeds["Teacher", "fairseq", 5]
    assert rows[4].split("|")[9].strip() == f"{times:.1f}"


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (["--beams", "1,0"], "must be different positive numbers"),
        (["--beams", "5,5"], "must be different positive numbers"),
        (["--engines", "fairseq,marian"], "is none of"),
        (["--rounds", "0"], "must be at least 1"),
        (["--moses-no-escape"], "unknown options: --moses-no-escape; see `seqkd bench --help`"),
        (["--tokenizer", "typo"], "fairseq has no --tokenizer typo"),
        (["--split", "absent"], "there is no split"),
        (["-o", "absent/speed.json"], "make it first"),
    ],
)
def test_refusals_of_bench(tiny, teacher, arguments, sentence):
    done = run_here("seqkd", "bench", f"A={teacher}", "--data", tiny, *arguments, check=False)
    assert sentence in refusal(done)
    twice = run_here("seqkd", "bench", f"A={teacher}", f"A={teacher}", "--data", tiny, check=False)
    assert "two models are named A" in refusal(twice)


def test_bench_leaves_a_file_of_another_command_alone(tmp_path):
    (tmp_path / "results.json").write_text('{"results": [], "pairs": []}')
    with pytest.raises(Refusal, match="exists, and `seqkd bench` did not write it"):
        cli.main(["bench", "A=a.pt", "--data", str(tmp_path), "-o", str(tmp_path / "results.json")])


@pytest.mark.slow
def test_what_does_not_compare_is_refused(tiny, teacher, measured, tmp_path):
    """Another direction's words are others; an engine that holds none of the models leaves nothing
    to measure.
    """
    back = {
        "source_lang": "en",
        "target_lang": "de",
        "criterion": "cross_entropy",
        "max_epoch": 1,
        "disable_validation": True,
    }
    toys.train(tiny, tmp_path / "back", **back)
    models = [f"There={teacher}", f"Back={tmp_path}/back/checkpoint_last.pt"]
    done = run_here("seqkd", "bench", *models, "--data", tiny, check=False)
    assert "Back reads or writes other data than There" in refusal(done)
    toys.train(
        tiny,
        tmp_path / "lstm",
        toys.LSTM,
        criterion="cross_entropy",
        max_epoch=1,
        disable_validation=True,
    )
    lstm, out = f"{tmp_path}/lstm/checkpoint_last.pt", tmp_path / "speed.json"
    done = run_here(
        "seqkd",
        "bench",
        lstm,
        "--engines",
        "ctranslate2-int8",
        "--data",
        tiny,
        "-o",
        out,
        check=False,
    )
    assert "nothing is left to measure" in refusal(done) and not out.exists()
    results, made, _ = measured
    with pytest.raises(Refusal, match="on other data"):
        other = records.decode({**made, "data_sha256": "another"})
        report.make_report(records.decode({"results": results}).results, [other])


@pytest.mark.parametrize("language,expected", [("de", 3), ("zh", 6), ("jpn_Jpan", 6)])
def test_characters_are_counted_where_no_blanks_set_words_apart(language, expected):
    from types import SimpleNamespace

    from fairseq_seqkd.evaluation import speed

    system = SimpleNamespace(split=SimpleNamespace(languages=LanguagePair(language, "en")))
    assert (
        speed.count(["ab cd", "", "ef"], speed.counted(system)) == expected
        and speed.count([""], speed.WORDS) == 1
    )


def test_ratios_are_to_the_teacher_also_where_its_zeros_were_not_counted():
    older = [row("Teacher", 4_000_000, None, 30.0), *ROWS[1:]]
    made = pruning_table.make_rows(older)
    assert made[-1].ratio == 20 and "parameters of Teacher divided" in pruning_table.markdown(made)
    others = pruning_table.make_rows(ROWS[1:])
    assert "parameters of Seq-KD divided" in pruning_table.markdown(others)


def row(name, params, nonzero, bleu):
    scores = {"bleu_greedy": bleu - 1, "bleu_beam5": bleu}
    (made,) = table1.make_rows([measurement(name, params=params, nonzero_params=nonzero, **scores)])
    return made


ROWS = [
    row("Teacher", 4_000_000, 3_999_900, 30.0),
    row("Seq-KD", 1_000_000, 999_000, 28.0),
    row("Seq-KD 40%", 1_000_000, 600_000, 27.5),
    row("Seq-KD 80%", 1_000_000, 200_000, 5.0),
    row("Seq-KD 80% retrained", 1_000_000, 200_000, 27.8),
]


def test_table_3_is_there_where_models_are_pruned():
    made = pruning_table.make_rows(ROWS)
    assert [round(r.pruned, 3) for r in made] == [0.0, 0.001, 0.4, 0.8, 0.8]
    assert made[-1].ratio == 20
    lines = pruning_table.markdown(made).splitlines()
    assert [cell.strip() for cell in lines[6].split("|")[1:-1]] == [
        "Seq-KD 80% retrained",
        "80.0%",
        "0.20M",
        "26.80",
        "27.80",
        "20.0",
    ]
    assert pruning_table.make_rows(ROWS[:2]) == []
    # Measured before zeros were counted.
    assert pruning_table.make_rows([row("old", 3, None, 1.0)]) == []


def test_lines_of_the_picture_begin_with_the_model_that_was_pruned():
    lines = pruning_table.series(pruning_table.make_rows(ROWS))
    assert {name: [r.name for r in line] for name, line in lines.items()} == {
        "Seq-KD": ["Seq-KD 80%", "Seq-KD 40%", "Seq-KD"],
        "Seq-KD retrained": ["Seq-KD 80% retrained", "Seq-KD"],
    }


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    draw = figures.pruning_drawer(pruning_table.series(pruning_table.make_rows(ROWS)))
    figures.save(tmp_path / "x.svg", draw)
    assert (tmp_path / "x.svg").read_text().lstrip().startswith("<?xml")
    figures.save(tmp_path / "x.png", draw)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Refusal, match="cannot be drawn"):
        figures.save(tmp_path / "x.docx", draw)


def test_the_report_of_a_pruned_model(tiny, teacher, tmp_path):
    """From checkpoints to the table, by the commands."""
    run_here("seqkd", "prune", teacher, "--sparsity", 0.5, "-o", tmp_path / "p.pt")
    models = [f"Teacher={teacher}", f"Teacher 50%={tmp_path}/p.pt"]
    run_here("seqkd", "evaluate", *models, "--data", tiny, "-o", tmp_path / "results.json")
    outputs = ["--plot", tmp_path / "x.svg", "-o", tmp_path / "r.json", "-o", tmp_path / "r.md"]
    run_here("seqkd", "report", tmp_path / "results.json", *outputs)
    printed = (tmp_path / "r.md").read_text()
    made = json.loads((tmp_path / "r.json").read_text())
    assert (
        made["table3"][1]["pruned"] == pytest.approx(0.5, abs=0.03)
        and "## Pruning" in printed
        and len(made["rows"]) == 2
    )
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    (tmp_path / "one.json").write_text(json.dumps({"results": results[:1]}))
    refused = run_here(
        "seqkd", "report", tmp_path / "one.json", "--plot", tmp_path / "y.svg", check=False
    )
    assert "no result is of a pruned model" in refusal(refused)
