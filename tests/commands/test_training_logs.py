"""A report finds what fairseq logged, and describes the corpora of a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toys

from fairseq_seqkd.corpus import mmap_format
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.report import corpus_statistics, run_folder, training_logs

FACTS = {
    "bleu_greedy": 20.0,
    "bleu_beam5": 21.0,
    "ppl": 3.0,
    "mode_probability": 0.1,
    "checkpoint": "/gone/x/checkpoint_last.pt",
}


def write(path, names, data="d", split="test", seed=None, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"split": split, "beam": 5}
    found = [
        {"name": n, "seed": seed, "data_sha256": data, "settings": settings, **FACTS, **more}
        for n in names
    ]
    path.write_text(json.dumps({"results": found}))


@pytest.fixture(scope="module")
def trained(tiny, teacher, tmp_path_factory):
    """{format: Training} of real trainings of two epochs, whose logs are in the formats simple and
    json.
    """
    home, found = tmp_path_factory.mktemp("logs"), {}
    for form in ("simple", "json"):
        options = {
            "criterion": "word_kd",
            "teacher_path": teacher,
            "log_format": form,
            "max_epoch": 2,
            "alpha": 0.3,
        }
        done = toys.train(tiny, home / form, **options)
        (home / f"{form}.log").write_text(done.stdout)
        assert training_logs.is_log(home / f"{form}.log")
        (training,) = training_logs.read(home / f"{form}.log")
        found[form] = training, done.stdout
    return found


def test_a_real_log_tells_settings_and_perplexities(trained, tiny, teacher):
    simple, printed = trained["simple"]
    said = [line for line in printed.splitlines() if "valid on 'valid' subset" in line]
    assert len(simple.curve) == len(said) == 2
    for line, (updates, ppl) in zip(said, simple.curve.items()):
        assert f"| ppl {ppl:g} |" in line and f"| num_updates {updates}" in line
    assert trained["json"][0].curve == simple.curve
    settings = simple.settings
    assert (
        settings["criterion"] == "word_kd"
        and settings["alpha"] == "0.3"
        and settings["teacher_path"] == str(teacher)
    )
    assert (
        settings["data"] == str(tiny)
        and settings["arch"] == "transformer"
        and settings["lr"] == "0.005"
    )
    assert simple.folder.name == "simple" and "teacher_distributions" not in settings


def test_gold_is_told_by_its_hash(distilled, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    shutil.copytree(tiny, tmp_path / "wrong")
    content = bytearray((tmp_path / "wrong" / "train.de-en.en.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "wrong" / "train.de-en.en.bin").write_bytes(content)
    write(tmp_path / "r.json", "A")
    shutil.copytree(distilled, tmp_path / "distilled")
    run = run_folder.look([tmp_path])
    assert sorted(path.name for path in run.bins) == ["bin", "wrong"]  # the views are not gold
    ((folder, manifest),) = run.distilled
    assert (
        folder.name == "distilled" and run_folder.gold_of(run, manifest).folder == tmp_path / "bin"
    )
    shutil.rmtree(tmp_path / "bin")
    assert run_folder.gold_of(run_folder.look([tmp_path]), manifest) is None


def test_of_a_large_corpus_the_same_part_is_aligned_everywhere(
    distilled, tiny, tmp_path, monkeypatch
):
    """Also where a view lacks sentences: entropies over other sentences do not compare."""
    monkeypatch.setattr(corpus_statistics, "LINKS", 4000)
    view = tmp_path / "seq_kd"
    shutil.copytree(distilled / "seq_kd", view)
    gold = Split(tiny, "train", LanguagePair("de", "en"))
    sentences = len(gold.read("en"))
    kept = np.setdiff1d(np.arange(sentences), [0, 7])
    for lang in ("de", "en"):  # the same view without the sentences 0 and 7
        side = Split(distilled / "seq_kd", "train", LanguagePair("de", "en")).read(lang)
        with mmap_format.Writer(view / f"train.de-en.{lang}", np.uint16) as writer:
            for i in kept:
                writer.add(side[int(i)].numpy(), [len(side[int(i)])])
    np.save(view / "rows.npy", kept)
    aligned, real = [], corpus_statistics.complexity
    monkeypatch.setattr(
        corpus_statistics,
        "complexity",
        lambda pairs: aligned.append([s.tolist() for s, _ in pairs]) or real(pairs),
    )
    found = corpus_statistics.of_directory(gold, [("gold", tiny), ("seq_kd", view)])
    assert aligned[0] == aligned[1] and 5 < len(aligned[0]) < sentences / 2
    assert found["gold"]["aligned"] == found["seq_kd"]["aligned"] == len(aligned[0]) and found[
        "seq_kd"
    ]["sentences"] == len(kept)


def test_tensorboard_files_tell_the_same(tiny, tmp_path):
    """Written by a real fairseq-train --tensorboard-logdir."""
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    options = {
        "criterion": "cross_entropy",
        "max_epoch": 2,
        "tensorboard_logdir": tmp_path / "tb" / "student",
    }
    toys.train(tiny, tmp_path / "student", **options)
    write(tmp_path / "r.json", "A", checkpoint=str(tmp_path / "student" / "checkpoint_last.pt"))
    done = toys.train(tiny, tmp_path / "again", **{**options, "tensorboard_logdir": None})
    (tmp_path / "text.log").write_text(done.stdout)
    run = run_folder.look([tmp_path])
    found = {Path(t.path).parent.parent.name: t for t in run.trainings if "tfevents" in t.path}
    assert len(found["student"].curve) == 2
    (text,) = (t for t in run.trainings if t.path.endswith("text.log"))
    assert {k: round(v, 2) for k, v in found["student"].curve.items()} == text.curve
    assert run_folder.training_of(run, run.results[0]).curve == found["student"].curve
