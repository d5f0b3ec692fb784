"""`seqkd inspect` and `seqkd doctor`: what they say is what is there, and damage is seen."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toys
from commands import PLUGIN, ROOT, refusal, run_here

from fairseq_seqkd import cli
from fairseq_seqkd.commands import diagnosis
from fairseq_seqkd.corpus import inspection, manifest
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.errors import Refusal


def inspect(*arguments, check=True):
    return run_here("seqkd", "inspect", *arguments, check=check)


def test_a_finished_directory_in_words(distilled):
    printed = inspect(distilled).stdout
    content = json.loads((distilled / "manifest.json").read_text())
    assert "split train, de-en: complete" in printed and content["signature"] in printed
    for view in ("seq_kd", "seq_inter"):
        assert f"the view {view}, {content['sentences']:,} sentences, 0 left out" in printed
    assert printed.count("as they were written") == 2


def test_nbest_lists_are_those_of_the_store(distilled, tiny):
    found = json.loads(inspect(distilled, "--ids", "3,0", "--data", tiny, "--json").stdout)
    store, text = NBestStore(distilled), tiny.parent / "text"
    lines = {
        lang: (text / f"train.{lang}").read_text().replace("@@ ", "").splitlines()
        for lang in ("de", "en")
    }
    assert [entry["id"] for entry in found["nbest"]] == [3, 0]
    for entry in found["nbest"]:
        assert (entry["source"], entry["gold"]) == (
            lines["de"][entry["id"]],
            lines["en"][entry["id"]],
        )
        assert [h["score"] for h in entry["hypotheses"]] == [h.score for h in store[entry["id"]]]
        assert all(h["text"] and "@@" not in h["text"] for h in entry["hypotheses"])


def test_sentences_that_differ_most_are_the_least_similar(distilled):
    store = NBestStore(distilled)
    by_hand = [store[i][0].similarity for i in range(len(store))]
    found = inspection.most_different(store, 7)
    assert [i for i, _ in found] == np.argsort(by_hand, kind="stable")[:7].tolist()
    printed = inspect(distilled, "--differ", 2, "--post-process", "none").stdout
    assert re.findall(r"^(\d+)  ", printed, re.MULTILINE) == [str(i) for i, _ in found[:2]]


def copied(distilled, tmp_path):
    shutil.copytree(distilled, tmp_path / "d")
    return tmp_path / "d"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage,sentence",
    [
        (lambda folder: flip(folder / "seq_kd" / "train.de-en.en.bin"), "its hash is another"),
        (lambda folder: (folder / "seq_inter" / "dict.de.txt").unlink(), "is missing"),
        (lambda folder: shutil.rmtree(folder / "seq_inter"), "the view seq_inter is missing"),
        (lambda folder: (folder / NBestStore.NAME).unlink(), "there is no"),
        (lambda folder: flip(folder / NBestStore.NAME), "its hash is not the manifest's"),
        (
            lambda folder: (folder / NBestStore.NAME).write_bytes(b"x" * 100),
            "decode the split again",
        ),
    ],
)
def test_damage_is_seen_and_said_to_who_asks_for_lists_too(distilled, tmp_path, damage, sentence):
    folder = copied(distilled, tmp_path)
    damage(folder)
    done = inspect(folder, "--ids", 1, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert [
        line for line in done.stdout.splitlines() if line.startswith("wrong: ") and sentence in line
    ], done.stdout


def test_no_problem_in_json_has_the_prefix_of_errors(distilled, tmp_path, capfd):
    """Of the store, which raises a refusal, of the views, which do not, and of a missing file."""
    folder = copied(distilled, tmp_path)
    flip(folder / "hypotheses.safetensors")
    flip(folder / "seq_kd" / "train.de-en.en.bin")
    (folder / "seq_inter" / "dict.de.txt").unlink()
    assert cli.main(["inspect", str(folder), "--json"]) == 1
    printed = capfd.readouterr()
    problems = json.loads(printed.out)["problems"]
    assert len(problems) == 3
    assert not [problem for problem in problems if "fairseq_seqkd: " in problem]
    assert printed.err.splitlines() == [f"wrong: {problem}" for problem in problems]


def test_wrong_options_are_reported_together(distilled):
    sentence = refusal(inspect(distilled, "--ids", "one", "--differ", "0", check=False))
    assert sentence == "fairseq_seqkd: 2 problems:"


def test_a_view_and_an_unfinished_directory(distilled, tiny, teacher, tmp_path):
    view = copied(distilled, tmp_path) / "seq_kd"
    assert "the view seq_kd" in inspect(view).stdout
    flip(view / "valid.de-en.de.bin")
    assert inspect(view, check=False).returncode == 1
    worker = toys.decode_until(1, tiny, teacher, tmp_path / "half")
    worker.kill()
    worker.communicate()
    done = inspect(tmp_path / "half")
    assert re.search(r"NOT FINISHED: [1-9]\d* of \d+ parts", done.stdout)
    assert "holds no complete n-best lists" in refusal(
        inspect(tmp_path / "half", "--ids", 1, check=False)
    )
    part = next((tmp_path / "half" / "parts").glob("*.part"))
    part.write_bytes(part.read_bytes()[:-1])
    done = inspect(tmp_path / "half", check=False)
    assert done.returncode == 1 and "is cut short" in done.stdout


def test_stored_distributions_are_shown_too(whole):
    assert "the teacher's distributions for split train, de-en: complete" in inspect(whole).stdout


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (["--ids", "one"], "must be sentence ids"),
        (["--ids", "99999"], "there is no sentence 99999"),
        (["--differ", "0"], "must be at least 1"),
        (["--ids", "1", "--data", "absent"], "there is no split"),
        (["--data", "absent"], "ask for lists with --ids or --differ"),
        (["--post-process", "none"], "ask for lists with --ids or --differ"),
    ],
)
def test_refusals_of_inspect(distilled, arguments, sentence):
    assert sentence in refusal(inspect(distilled, *arguments, check=False))


def test_other_folders_and_other_gold_are_refused(distilled, tiny, tmp_path):
    assert "holds no teacher's work" in refusal(inspect(tmp_path, check=False))
    other = tmp_path / "bin"
    shutil.copytree(tiny, other)
    flip(other / "train.de-en.en.bin")
    assert "is not the data-bin that was decoded" in refusal(
        inspect(distilled, "--ids", 1, "--data", other, check=False)
    )


def test_sources_of_a_view_with_fewer_rows(distilled, tmp_path):
    """Rows that a filter left out: ids still name gold's sentences."""
    folder = copied(distilled, tmp_path) / "seq_kd"
    content = json.loads((folder / "manifest.json").read_text())
    everything = inspection.Sources(folder, manifest.read(folder))
    kept = np.setdiff1d(
        np.arange(content["rows"] + 1), [2]
    )  # row r is sentence r, or r + 1 from the third on
    np.save(folder / "rows.npy", kept)
    some = inspection.Sources(folder, manifest.read(folder))
    assert some[2] is None and some[1].equal(everything[1]) and some[4].equal(everything[3])


def test_the_doctor_tells_what_is_in_use():
    done = run_here("seqkd", "doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    import torch

    assert (
        found["torch"]["says"].startswith(torch.__version__)
        and f"--user-dir {PLUGIN} " in found["torch"]["do"]
    )
    assert found["threads"]["level"] == "ok"  # the tests set OMP_NUM_THREADS
    assert all(finding["do"] for finding in found.values() if finding["level"] != "ok")
    printed = run_here("seqkd", "doctor").stdout
    assert all(name in printed for name in found)


def test_the_doctor_tells_of_a_gpu_that_ctranslate2_cannot_use(monkeypatch):
    import ctranslate2
    import torch

    from fairseq_seqkd.engines import ctranslate2_support

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda device: {"float32"})
    monkeypatch.setattr(ctranslate2_support, "cublas_name", lambda: "libcublas.so.0")
    found = diagnosis.check_ctranslate2()
    assert found.level == diagnosis.WARNING and found.advice.startswith(
        "CTranslate2 needs libcublas.so.0 on a GPU"
    )
    monkeypatch.setattr(ctranslate2_support, "cublas_name", lambda: None)
    assert diagnosis.check_ctranslate2().level == diagnosis.OK


@pytest.mark.trap(1)
def test_the_doctor_sees_whether_batches_lose_sentences(monkeypatch):
    """As fairseq itself makes them, not as a version number says."""
    from fairseq.data import data_utils

    whole = [np.arange(8), np.arange(8, 9)]
    monkeypatch.setattr(data_utils, "batch_by_size", lambda *args, **more: whole)
    assert diagnosis.check_batches().level == "ok"
    monkeypatch.setattr(data_utils, "batch_by_size", lambda *args, **more: whole[:1])
    assert (
        diagnosis.check_batches().level == "warning"
        and "--required-batch-size-multiple 1" in diagnosis.check_batches().advice
    )

    def broken(*args, **more):
        raise ImportError("compiled for another Python")

    monkeypatch.setattr(data_utils, "batch_by_size", broken)
    assert diagnosis.check_batches().level == "error"


def test_the_doctor_names_what_prevents_work(monkeypatch):
    monkeypatch.setattr(
        diagnosis,
        "version",
        lambda package: {"fairseq": "0.12.2", "ve-fairseq": "0.12.3"}.get(package),
    )
    assert (
        diagnosis.check_fairseq().level == "error"
        and "uninstall all but one" in diagnosis.check_fairseq().advice
    )
    assert diagnosis.check_ctranslate2().level == "warning"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert diagnosis.check_threads().level == "warning"


def test_the_doctor_says_what_ends_in_an_error_as_soon_as_it_is_asked(tmp_path):
    """Such as fairseq 0.12.2 on Python 3.11, which is what a doctor is called for."""
    (tmp_path / "fairseq").mkdir()
    (tmp_path / "fairseq" / "__init__.py").write_text(
        "raise ValueError('mutable default for field common\\nmore')\n"
    )
    (tmp_path / "ctranslate2.py").write_text(
        "raise ImportError('libctranslate2.so.4: cannot open shared object file')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_seqkd", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert (
        found["fairseq's batches"]["says"]
        == "does not work: ValueError: mutable default for field common"
    )
    assert (
        found["CTranslate2"]["says"].endswith("cannot open shared object file")
        and found["NumPy"]["level"] != "error"
    )
    assert {what for what, finding in found.items() if finding["level"] == "error"} == {
        "fairseq's batches",
        "CTranslate2",
    }


def test_a_store_without_gold_has_nothing_to_compare(tmp_path):
    class Bare:
        has_similarity, path = False, tmp_path

    with pytest.raises(Refusal, match="no similarity to gold"):
        inspection.most_different(Bare(), 3)
