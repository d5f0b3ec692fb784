"""The benchmark's contenders do the same work: what they are timed on is comparable."""

import importlib.util
import subprocess
import sys

import helpers
import pytest

RECIPES = helpers.ROOT / "recipes"


@pytest.fixture
def bench(tiny, teacher, tmp_path):
    pytest.importorskip("ctranslate2")
    spec = importlib.util.spec_from_file_location("bench_decoding", RECIPES / "bench_decoding.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.Bench(tiny, teacher, "train", tmp_path)


def test_contenders_decode_the_same_sentences_to_the_same_translations(bench, tiny):
    module, made = bench
    texts, found = module.Texts(made), {}
    for name in ("fairseq_generate", "plugin_ctranslate2_float32", "raw_ctranslate2_float32"):
        started, seconds, result = made.run(name, 45, 500)
        assert started > 0 and seconds > 0
        found[name] = texts.of(name, result)
    assert [len(rows) for rows in found.values()] == [45] * 3
    assert found["fairseq_generate"] == found["plugin_ctranslate2_float32"]
    # By itself CTranslate2 has one length limit for everything, and does not forbid the empty translation.
    assert sum(a == b for a, b in zip(found["fairseq_generate"], found["raw_ctranslate2_float32"])) >= 43
    assert texts.bleu(found["fairseq_generate"]) > 10
    assert made.workers(2, 45, 500) > 0


@pytest.mark.parametrize("recipe", ["bench_decoding.sh", "quickstart.sh", "slurm/decode.sh", "test.sh"])
def test_help_is_the_head_of_the_file(recipe):
    done = subprocess.run(["bash", RECIPES / recipe, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"recipes/{recipe}" in done.stdout


def test_a_benchmark_without_data_says_what_to_run(tmp_path):
    done = subprocess.run([sys.executable, RECIPES / "bench_decoding.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "run recipes/quickstart.sh first" in done.stderr and "Traceback" not in done.stderr
