"""The benchmark's contenders do the same work: what they are timed on is comparable."""

import importlib
import json
import subprocess
import sys

import pytest
from commands import ROOT

RECIPES = ROOT / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    """Loads a recipe's Python part as a module."""
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module


@pytest.fixture
def bench(recipe, tiny, teacher, tmp_path):
    pytest.importorskip("ctranslate2")
    module = recipe("bench_decoding")
    return module, module.Bench(tiny, teacher, "train", tmp_path)


@pytest.mark.slow
def test_contenders_decode_the_same_sentences_to_the_same_translations(bench, tiny):
    module, made = bench
    texts, found = module.Texts(made), {}
    for name in ("fairseq_generate", "plugin_ctranslate2_float32", "raw_ctranslate2_float32"):
        started, seconds, result = made.run(name, 45, 500)
        assert started > 0 and seconds > 0
        found[name] = texts.of(name, result)
    assert [len(rows) for rows in found.values()] == [45] * 3
    assert found["fairseq_generate"] == found["plugin_ctranslate2_float32"]
    # By itself CTranslate2 has one length limit for everything, and does not forbid the empty
    # translation.
    assert (
        sum(a == b for a, b in zip(found["fairseq_generate"], found["raw_ctranslate2_float32"]))
        >= 43
    )
    assert texts.bleu(found["fairseq_generate"]) > 10
    assert made.workers(2, 45, 500) > 0


@pytest.mark.slow
def test_the_benchmark_of_word_level_distillation_writes_what_it_says(tiny, teacher, tmp_path):
    command = [
        sys.executable,
        RECIPES / "bench_word_kd.py",
        tiny,
        teacher,
        "--rounds",
        "1",
        "--updates",
        "12",
        "--topk",
        "4",
    ]
    done = subprocess.run(
        [*map(str, command), "--max-tokens", "200"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "bench_word_kd.json").read_text())
    names = (
        "label_smoothed_cross_entropy",
        "word_kd_live",
        "word_kd_stored",
        "teacher_forward_only",
    )
    assert all(
        found[name] > 0 and found["peak_memory_mb"][name] > 50 and f"| {name} |" in done.stdout
        for name in names
    )
    assert found["stored_over_plain"] == pytest.approx(
        found["word_kd_stored"] / found["label_smoothed_cross_entropy"], rel=0.01
    )
    ideal = 1 / (1 / found["label_smoothed_cross_entropy"] + 1 / found["teacher_forward_only"])
    assert found["live_over_ideal"] == pytest.approx(found["word_kd_live"] / ideal, rel=0.01)
    # Per token: 4 ids and 4 probabilities of 2 bytes, the rest and the target's; per sentence 20;
    # and the file's head.
    assert 4 * (2 + 2) + 2 + 2 < found["bytes_per_token"] < 26
    assert 0.5 < found["mass"] <= 1 and found["topk"] == 4


@pytest.mark.parametrize(
    "name", ["bench_decoding.sh", "bench_word_kd.sh", "quickstart.sh", "slurm/decode.sh", "test.sh"]
)
def test_help_is_the_head_of_the_file(name):
    done = subprocess.run(["bash", RECIPES / name, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"recipes/{name}" in done.stdout


def test_a_benchmark_without_data_says_what_to_run(tmp_path):
    done = subprocess.run(
        [sys.executable, RECIPES / "bench_decoding.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (
        done.returncode == 1
        and "run recipes/quickstart.sh first" in done.stderr
        and "Traceback" not in done.stderr
    )
