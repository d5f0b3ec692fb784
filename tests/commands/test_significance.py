"""`seqkd evaluate` compares systems, and measures COMET."""

import hashlib
import json
import re
import sys
import types

import pytest
import toys
from commands import refusal, run_here
from measurements import measurement

from fairseq_seqkd import cli
from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import comet, systems
from fairseq_seqkd.evaluation.cache import Cache
from fairseq_seqkd.report import table1 as table


@pytest.fixture(scope="module")
def evaluated(tiny, teacher, tmp_path_factory):
    """(folder, arguments of the command that was run there): the teacher and a weaker student under
    two names.
    """
    home = tmp_path_factory.mktemp("evaluated")
    options = {"criterion": "cross_entropy", "max_epoch": 2, "disable_validation": True}
    toys.train(tiny, home / "weak", **options)
    arguments = [
        f"Student={home}/weak/checkpoint_last.pt",
        f"Seq-KD={teacher}",
        "--data",
        tiny,
        "-o",
        home / "results.json",
    ]
    done = run_here("seqkd", "evaluate", *arguments, "--cache", home / "cache")
    return home, arguments, done.stdout


def test_evaluate_compares_pairs_and_knows_them_the_next_time(evaluated, tiny):
    home, arguments, printed = evaluated
    pairs = json.loads((home / "results.json").read_text())["pairs"]
    assert len(pairs) == 4 and all(0 < pair["p_value"] <= 1 for pair in pairs)
    rows = {r["name"]: r for r in json.loads((home / "results.json").read_text())["results"]}
    (greedy,) = (p for p in pairs if p["search_a"] == p["search_b"] == "greedy")
    assert greedy["difference"] == pytest.approx(
        rows["Seq-KD"]["bleu_greedy"] - rows["Student"]["bleu_greedy"]
    )
    assert ("*" in printed.splitlines()[-2]) == (greedy["p_value"] < 0.05)
    before = {path: path.stat().st_mtime_ns for path in (home / "cache").iterdir()}
    again = run_here("seqkd", "evaluate", *arguments, "--cache", home / "cache").stdout
    assert table_of(again) == table_of(printed)
    assert {path: path.stat().st_mtime_ns for path in (home / "cache").iterdir()} == before
    # A third system is compared with those of the file, which are not named again.
    third = [f"Third={home}/weak/checkpoint_last.pt", *arguments[2:]]
    run_here("seqkd", "evaluate", *third, "--cache", home / "cache")
    found = json.loads((home / "results.json").read_text())["pairs"]
    assert {(p["a"], p["b"]) for p in found} >= {
        ("Third", "Student"),
        ("Third", "Seq-KD"),
        ("Seq-KD", "Student"),
    }


def table_of(printed):
    """What the command printed on standard output, without the log and the progress before it."""
    return printed[printed.index("| Model") :]


@pytest.fixture
def scorer(monkeypatch):
    """A module in place of unbabel-comet, which is called as its own documentation calls it.

    What was `asked` and `loaded`.
    """
    asked, loaded = [], []

    class Model:
        def predict(self, samples, batch_size, gpus, progress_bar):
            asked.append(samples)
            share = sum(sample["mt"] == sample["ref"] for sample in samples) / len(samples)
            return types.SimpleNamespace(system_score=share, scores=[])

    module = types.ModuleType("comet")
    module.download_model = lambda name: f"/models/{name}"
    module.load_from_checkpoint = lambda path: loaded.append(path) or Model()
    module.__spec__ = types.SimpleNamespace(name="comet")
    monkeypatch.setitem(sys.modules, "comet", module)
    monkeypatch.setattr(comet.metadata, "version", lambda name: "2.2.6")
    return types.SimpleNamespace(asked=asked, loaded=loaded)


def test_the_command_measures_comet_and_text_as_it_is_told(tiny, teacher, scorer, tmp_path):
    words = [
        "--data",
        tiny,
        "--comet",
        "Unbabel/x",
        "--post-process",
        "none",
        "--cache",
        tmp_path,
        "-o",
        tmp_path / "r.json",
    ]
    assert cli.main(["evaluate", str(teacher), *map(str, words)]) == 0
    (found,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert found["comet_signature"] == "comet:2.2.6|model:Unbabel/x" and len(scorer.asked) == 2
    for search, samples in zip(("greedy", "beam5"), scorer.asked):
        assert (
            found[f"comet_{search}"] == sum(s["mt"] == s["ref"] for s in samples) / len(samples) > 0
        )
    assert found["settings"]["post_process"] is None
    assert any("@@" in sample["ref"] for sample in scorer.asked[0])


def test_comet_is_asked_with_sources_outputs_and_references(tiny, teacher, scorer, tmp_path):
    import torch

    import fairseq_seqkd
    from fairseq_seqkd.evaluation import measure

    fairseq_seqkd.register()
    system, device, asked = (
        systems.prepare(Checkpoint(teacher), tiny),
        torch.device("cpu"),
        scorer.asked,
    )
    _, outputs = measure.measure(system, device)
    cache, name = Cache(tmp_path), "Unbabel/wmt22-comet-da"
    found = [comet.Scorer(name, device, cache, [system]).scores(system, outputs) for _ in range(2)]
    assert scorer.loaded == [
        f"/models/{name}"
    ]  # before anything is scored, and not where everything is known
    sources, references = system.texts()
    assert found[0] == found[1] and len(asked) == 2  # once a search, and nothing the second time
    assert asked[0] == [
        {"src": s, "mt": m, "ref": r} for s, m, r in zip(sources, outputs["greedy"], references)
    ]
    assert (
        found[0].comet_greedy
        == sum(a == b for a, b in zip(outputs["greedy"], references)) / len(references)
        > 0
    )
    assert found[0].comet_signature == "comet:2.2.6|model:Unbabel/wmt22-comet-da"
    again = comet.Scorer(name, device, cache, [system], again=True).scores(system, outputs)
    assert again == found[0] and len(asked) == 4  # whatever the cache holds
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    signature = comet.Scorer(str(tmp_path / "model.ckpt"), device, cache, [system]).signature
    assert signature == f"comet:2.2.6|model:model.ckpt:{hashlib.sha256(b'weights').hexdigest()[:8]}"
    row = measurement("A", **tree(found[0]))
    assert "| COMET K=1 " in re.sub(" +", " ", table.markdown_table(table.make_rows([row])))
    assert "wmt22" in table.to_markdown(table.make_report([row]))


def test_a_cache_that_cannot_be_written_is_refused_before_the_work(tiny, teacher, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [
        teacher,
        "--data",
        tiny,
        "--cache",
        tmp_path / "file" / "cache",
        "-o",
        tmp_path / "r.json",
    ]
    done = run_here("seqkd", "evaluate", *arguments, check=False)
    assert "--cache" in refusal(done) and "BLEU" not in done.stdout


def test_without_comet_the_option_is_refused(tiny, teacher, monkeypatch):
    monkeypatch.setattr(comet, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match="pip install unbabel-comet"):
        cli.main(["evaluate", str(teacher), "--data", str(tiny), "--comet", "Unbabel/x"])
