"""What `seqkd report` finds in a folder of experiments: results that belong together, trainings,
data, corpus statistics.
"""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.errors import Refusal
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


def names(run):
    return [result["name"] for result in run.results]


def test_of_a_folder_the_largest_set_of_the_test_split_is_taken(tmp_path):
    write(tmp_path / "valid.json", "ABCDE", data="v", split="valid")
    write(tmp_path / "a" / "test.json", "AB")
    write(tmp_path / "b" / "more.json", "ABC", bleu_greedy=25.0)
    write(tmp_path / "other.json", "X", data="other")
    write(tmp_path / "venv" / "hidden.json", "Y")
    (tmp_path / "strange.json").write_text('{"results": [{"name": "not ours"}]}')
    run = run_folder.look([tmp_path])
    assert (
        names(run) == ["A", "B", "C"] and run.results[0]["bleu_greedy"] == 25.0
    )  # of the file with more systems
    assert sorted(Path(r.split(" is ")[0]).name for r in run.remarks) == [
        "other.json",
        "valid.json",
    ]


def test_what_comes_with_a_clone_is_nobodys_experiment(tmp_path):
    write(tmp_path / "results.json", "AB")
    write(
        tmp_path / "clone" / "examples" / "multi30k" / "measured" / "test.json",
        "CDEFG",
        data="of the example",
    )
    write(tmp_path / "mine" / "examples" / "test.json", "H")
    package = tmp_path / "clone" / "fairseq_seqkd"
    package.mkdir()
    (package / "version.py").touch()
    run = run_folder.look([tmp_path])
    assert sorted(names(run)) == ["A", "B", "H"] and not run.remarks
    assert names(run_folder.look([tmp_path / "clone" / "examples"])) == [
        *"CDEFG"
    ]  # where they are asked for


def test_another_system_of_the_same_name_is_no_further_seed(tmp_path):
    write(tmp_path / "a.json", ["Student", "A", "B"], params=30)
    write(tmp_path / "b.json", ["Student"], seed=2, params=30)
    write(tmp_path / "c.json", ["A"], seed=None, params=31, checkpoint_sha256="another")
    run = run_folder.look([tmp_path])
    assert names(run) == ["Student", "A", "B"]
    assert run.remarks[0] == (
        f"{tmp_path / 'b.json'} has another Student (one has a seed, and one has none), "
        f"which is left out"
    )
    assert "c.json" in run.remarks[1] and "another checkpoint named A" in run.remarks[1]


def test_files_that_are_named_decide(tmp_path):
    write(tmp_path / "run" / "test.json", "ABC")
    write(tmp_path / "valid.json", "AB", data="v", split="valid")
    run = run_folder.look([tmp_path / "valid.json", tmp_path / "run"])
    assert names(run) == ["A", "B"] and "test.json" in run.remarks[0]
    assert names(run_folder.look([tmp_path / "run" / "test.json", tmp_path])) == ["A", "B", "C"]


def test_other_settings_are_left_out_and_nothing_is_refused(tmp_path):
    write(tmp_path / "a.json", "ABC")
    write(tmp_path / "b.json", "D", settings={"split": "test", "beam": 4})
    run = run_folder.look([tmp_path])
    assert names(run) == ["A", "B", "C"] and "other settings" in run.remarks[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match="nothing to report"):
        run_folder.look([tmp_path / "empty"])
    with pytest.raises(Refusal, match="there is no"):
        run_folder.look([tmp_path / "absent.json"])


def test_a_log_of_several_attempts_is_one_training(tmp_path):
    line = (
        "2026-01-01 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 4 | ppl "
        "{} | wps 1 | num_updates {}\n"
    )
    cut = (
        "2026-01-01 | INFO | fairseq_cli.train | {'_name': None, 'checkpoint': {'save_dir': "
        "'x@1'}}\n"
    ) + line.format(9.5, 100)
    (tmp_path / "train.log").write_text(
        cut + "2026-01-01 | INFO | valid | epo\n" + cut + line.format(8.25, 200)
    )
    (found,) = training_logs.read(tmp_path / "train.log")
    assert found.curve == {100: 9.5, 200: 8.25} and found.folder == tmp_path / "x@1"
    others = (
        line.format(9.5, 100)
        + line.format(99.5, 100).replace("'valid'", "'valid1'")
        + line.format("nan", 200)
    )
    (tmp_path / "train.log").write_text(others)
    assert [one.curve for one in training_logs.read(tmp_path / "train.log")] == [{100: 9.5}]
    (tmp_path / "other.log").write_text("epoch 001 | ppl 3\n")
    assert not training_logs.is_log(tmp_path / "other.log")


def test_trainings_of_one_log_are_told_apart(tmp_path):
    """What a job of a cluster prints: a teacher, its student, and the teacher's further attempt."""
    begin = (
        "2026-01-01 | INFO | fairseq_cli.train | {'_name': None, 'checkpoint': "
        "{'save_dir': '%s'}}\n"
    )
    line = (
        "2026-01-01 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 4 | ppl "
        "%s | wps 1 | num_updates %s\n"
    )
    said = [
        begin % "t",
        line % (9, 1000),
        begin % "s",
        line % (30, 400),
        line % (20, 1000),
        begin % "t",
        line % (8, 2000),
    ]
    (tmp_path / "slurm.out").write_text("".join(said))
    found = training_logs.read(tmp_path / "slurm.out")
    assert [one.curve for one in found] == [{1000: 9, 2000: 8}, {400: 30, 1000: 20}]
    assert [one.folder.name for one in found] == ["t", "s"]


def trained_in(folder, log, curve, **settings):
    return training_logs.Training(str(log), {"save_dir": str(folder), **settings}, curve)


def result_in(folder, name="checkpoint_last.pt"):
    return {"checkpoint": f"{folder}/{name}"}


def test_trainings_are_told_by_the_folder_of_the_checkpoint():
    run = run_folder.Run(trainings=[trained_in("/old/place/seq_kd@1", "a.log", {1: 2.0})])
    run.results = [result_in("/new/place/seq_kd@1"), result_in("/new/place/student@1")]
    assert run_folder.training_of(run, run.results[0]).path == "a.log"
    assert run_folder.training_of(run, run.results[1]) is None
    # A name that several have tells nothing; nor is a checkpoint's training that of what was made
    # of it.
    run.results.append(result_in("/other/place/seq_kd@1"))
    assert run_folder.training_of(run, run.results[0]) is None
    run.trainings.append(trained_in("/new/place/seq_kd@1", "b.log", {1: 3.0}))
    assert run_folder.training_of(run, run.results[0]).path == "b.log"
    assert run_folder.training_of(run, result_in("/new/place/seq_kd@1", "pruned.pt")) is None


def test_a_relative_folder_is_looked_for_around_the_log(tmp_path):
    for name in ("student", "teacher"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    logs = [
        trained_in("checkpoints", tmp_path / name / "train.log", {1: 2.0})
        for name in ("student", "teacher")
    ]
    run = run_folder.Run(
        trainings=logs,
        results=[result_in(tmp_path / name / "checkpoints") for name in ("student", "teacher")],
    )
    assert [run_folder.training_of(run, result).path for result in run.results] == [
        log.path for log in logs
    ]


def test_several_logs_of_a_folder_are_one_training():
    logs = [
        trained_in("/x", "1.out", {1: 9.0, 2: 8.0}, arch="lstm"),
        trained_in("/x", "2.out", {3: 7.0}),
        trained_in("/x", "tb", {3: 7.0}),
    ]
    found = run_folder.training_of(run_folder.Run(trainings=logs), result_in("/x"))
    assert found.curve == {1: 9.0, 2: 8.0, 3: 7.0} and found.settings["arch"] == "lstm"


def test_another_checkpoint_of_the_same_name_is_not_merged(tmp_path):
    write(tmp_path / "a.json", "A", checkpoint_sha256="one")
    write(tmp_path / "b.json", "AB", checkpoint_sha256="two")
    with pytest.raises(Refusal, match="another checkpoint named A"):
        run_folder.look([tmp_path / "a.json", tmp_path / "b.json"])
    run = run_folder.look([tmp_path])
    assert [r["checkpoint_sha256"] for r in run.results] == [
        "two",
        "two",
    ] and "another checkpoint" in run.remarks[0]
    assert names(run_folder.look([tmp_path / "a.json", tmp_path / "a.json"])) == ["A"]


def test_strange_files_are_passed_over(tmp_path):
    write(tmp_path / "r.json", "A")
    (tmp_path / "latest.log").symlink_to(tmp_path / "gone")
    (tmp_path / "x.json").symlink_to(tmp_path / "gone")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "app"}')
    write(tmp_path / "web" / "more.json", "AB", data="other")
    run = run_folder.look([tmp_path, tmp_path])
    assert names(run) == ["A", "B"]
    assert any("web/manifest.json is not a manifest" in remark for remark in run.remarks)


# Statistics.


def entropy_by_hand(pairs, iterations=5):
    """C of Zhou et al.

    with dictionaries: Model 1 with NULL from a uniform start, then counts over its best links.
    """
    t = {(x, y): 1.0 for source, target in pairs for x, y in product([None, *source], target)}
    for _ in range(iterations):
        counts, totals = {}, {}
        for source, target in pairs:
            for y in target:
                whole = sum(t[x, y] for x in [None, *source])
                for x in [None, *source]:
                    counts[x, y] = counts.get((x, y), 0) + t[x, y] / whole
                    totals[x] = totals.get(x, 0) + t[x, y] / whole
        t = {(x, y): count / totals[x] for (x, y), count in counts.items()}
    linked = {x: {} for x, _ in t if x is not None}
    for source, target in pairs:
        for y in target:
            x = max([None, *source], key=lambda x: t[x, y])
            if x is not None:
                linked[x][y] = linked[x].get(y, 0) + 1
    shares = [[n / sum(found.values()) for n in found.values()] for found in linked.values()]
    return sum(-p * math.log(p) for share in shares for p in share) / len(linked)


def test_complexity_is_that_of_model_1_by_hand():
    random = np.random.default_rng(3)
    pairs = []
    for _ in range(40):
        source = random.integers(4, 12, random.integers(1, 7))
        pairs.append(
            (source, np.array([x + 10 * (1 + random.integers(0, 2) * (x % 2)) for x in source]))
        )
    by_hand = entropy_by_hand([(s.tolist(), t.tolist()) for s, t in pairs])
    assert corpus_statistics.complexity(pairs) == pytest.approx(by_hand, rel=1e-9) and by_hand > 0.1
    assert corpus_statistics.complexity(list(reversed(pairs))) == pytest.approx(by_hand, rel=1e-9)


def test_a_dictionary_has_no_complexity_and_free_choice_has_ln_2():
    random = np.random.default_rng(4)
    sources = [random.permutation(np.arange(4, 24))[:5] for _ in range(400)]
    fixed = [(s, s + 100) for s in sources]
    free = [(s, s + 100 * (1 + random.integers(0, 2, len(s)))) for s in sources]
    assert corpus_statistics.complexity(fixed) == pytest.approx(0, abs=1e-9)
    assert corpus_statistics.complexity(free) == pytest.approx(math.log(2), abs=0.03)
    assert corpus_statistics.complexity([]) == 0.0


def test_statistics_are_those_of_the_text(tiny):
    gold = Split(tiny, "train", LanguagePair("de", "en"))
    found = corpus_statistics.of_directory(gold, [("gold", tiny)])["gold"]
    lines = [line.split() for line in (tiny.parent / "text" / "train.en").read_text().splitlines()]
    sources = [
        line.split() for line in (tiny.parent / "text" / "train.de").read_text().splitlines()
    ]
    assert found["sentences"] == found["aligned"] == len(lines)
    assert found["tokens"] == pytest.approx(sum(map(len, lines)) / len(lines))
    assert found["ratio"] == pytest.approx(sum(map(len, lines)) / sum(map(len, sources)))
    assert found["vocabulary"] == len({word for line in lines for word in line})
    assert found["duplicates"] == pytest.approx(
        1 - len({tuple(line) for line in lines}) / len(lines)
    )
    assert found["complexity"] > 0
