"""A report reads what fairseq logged, and describes the corpora of a run."""

import re
import shutil

import numpy as np
import pytest
import toys

from fairseq_seqkd.corpus import manifest, mmap_format
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.report import corpus_statistics, run_folder, training_logs

SIMPLE = re.compile(r"valid on 'valid' subset .*\| ppl ([\d.]+) .*num_updates (\d+)")


def test_a_real_training_tells_settings_and_perplexities(tiny, teacher, tmp_path):
    options = {"criterion": "word_kd", "teacher_path": teacher, "max_epoch": 2, "alpha": 0.3}
    log = tmp_path / "train.log"
    log.write_text(toys.train(tiny, tmp_path / "json", **options, log_format="json").stdout)
    simple = toys.train(tiny, tmp_path / "simple", **options, log_format="simple").stdout
    expected = {int(updates): float(ppl) for ppl, updates in SIMPLE.findall(simple)}
    assert training_logs.read_log(log) == training_logs.Log(True, expected) and len(expected) == 2
    settings = training_logs.read_settings(tmp_path / "json" / "checkpoint_last.pt")
    assert settings == {
        **settings,
        "save_dir": str(tmp_path / "json"),
        "data": str(tiny),
        "arch": "transformer",
        "lr": "0.005",
        "criterion": "word_kd",
        "teacher_path": str(teacher),
        "alpha": "0.3",
    }
    assert "teacher_distributions" not in settings and "freeze_zeros" not in settings


def test_gold_is_told_by_its_hash(distilled, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    shutil.copytree(tiny, tmp_path / "wrong")
    content = bytearray((tmp_path / "wrong" / "train.de-en.en.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "wrong" / "train.de-en.en.bin").write_bytes(content)
    decode = manifest.read(distilled)
    others = [tmp_path / "gone", tmp_path / "wrong", distilled / "seq_kd"]
    assert run_folder.find_gold([*others, tmp_path / "bin"], decode).folder == tmp_path / "bin"
    assert run_folder.find_gold(others, decode) is None


def test_of_a_large_corpus_the_same_part_is_aligned_everywhere(
    distilled, tiny, tmp_path, monkeypatch
):
    """Also where a view lacks sentences: entropies over other sentences do not compare."""
    monkeypatch.setattr(corpus_statistics, "MOST_LINKS", 4000)
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
    found = corpus_statistics.of_directory(gold, {"gold": tiny, "seq_kd": view})
    assert aligned[0] == aligned[1] and 5 < len(aligned[0]) < sentences / 2
    assert found["gold"].aligned == found["seq_kd"].aligned == len(aligned[0])
    assert found["seq_kd"].sentences == len(kept)


def test_tensorboard_files_tell_the_same(tiny, tmp_path):
    """Written by a real fairseq-train --tensorboard-logdir."""
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    options = {"criterion": "cross_entropy", "max_epoch": 2, "log_format": "json"}
    tensorboard = {"tensorboard_logdir": tmp_path / "tb"}
    done = toys.train(tiny, tmp_path / "student", **options, **tensorboard)
    (tmp_path / "text.log").write_text(done.stdout)
    (events,) = (tmp_path / "tb" / "valid").glob("events.out.tfevents*")
    curve = training_logs.read_log(events).curve
    assert len(curve) == 2
    expected = training_logs.read_log(tmp_path / "text.log").curve
    assert {updates: round(ppl, 2) for updates, ppl in curve.items()} == expected
