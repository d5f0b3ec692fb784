"""Reads run folders: their index, results that belong together, logs, corpus statistics."""

import json
import math
from itertools import product

import numpy as np
import pytest
from measurements import measurement, result

from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.report import corpus_statistics, run_folder, sections, training_logs


def write(path, names, **changes):
    """Writes a file of results."""
    path.write_text(json.dumps({"results": [result(name, **changes) for name in names]}))


def names(run):
    return [one.name for one in run.measurements]


def test_the_index_names_what_is_read(tmp_path):
    write(tmp_path / "a.json", "AB")
    write(tmp_path / "b.json", "C")
    write(tmp_path / "other.json", "X")
    index = {"results": ["a.json", "b.json"], "trainings": {"A": "a.log", "B": ["1.log", "2.log"]}}
    (tmp_path / "run.json").write_text(json.dumps({**index, "data": ["bin"]}))
    run = run_folder.read([tmp_path])
    assert names(run) == ["A", "B", "C"] and run.data == [tmp_path / "bin"]
    assert run.trainings == {
        "A": [tmp_path / "a.log"],
        "B": [tmp_path / "1.log", tmp_path / "2.log"],
    }
    run = run_folder.read([tmp_path / "other.json", tmp_path, tmp_path / "a.json"])
    assert names(run) == ["X", "A", "B", "C"]  # each file once


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "has no run.json, which names the results, logs and data of a run; write it"),
        ("{", "run.json is not an index of a run"),
        ('{"result": ["a.json"]}', "unknown field `result`"),
        ('{"results": "a.json"}', r"Expected `array`, got `str` - at `\$.results`"),
        ('{"data": ["bin"]}', "there is nothing to report"),
        ('{"results": ["gone.json"]}', "there is no .*gone.json"),
        ('{"distilled": ["gone"]}', "names gone, which is not a finished distilled directory"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(Refusal, match=sentence):
        run_folder.read([tmp_path])


def test_another_checkpoint_of_the_same_name_is_refused(tmp_path):
    write(tmp_path / "a.json", "A", checkpoint_sha256="one")
    write(tmp_path / "b.json", "AB", checkpoint_sha256="two")
    with pytest.raises(Refusal, match="b.json has another checkpoint named A than the file before"):
        run_folder.read([tmp_path / "a.json", tmp_path / "b.json"])
    write(tmp_path / "c.json", "AB", checkpoint_sha256="one")
    assert names(run_folder.read([tmp_path / "a.json", tmp_path / "c.json"])) == ["A", "B"]


# Logs.

LINE = '2026-01-01 00:00:00 | INFO | valid | {"epoch": 1, "%s_ppl": "%s", "%s_num_updates": "%s"}\n'


def line(ppl, updates, split="valid"):
    """Returns a line of fairseq-train --log-format json about a validation."""
    return LINE % (split, ppl, split, updates)


def test_a_log_of_several_attempts_is_one_training(tmp_path):
    log = tmp_path / "train.log"
    log.write_text(
        "2026-01-01 00:00:00 | INFO | fairseq_cli.train | {'_name': None, 'common': {}}\n"
        + line(9.5, 100)
        + line(7.5, 200)
        + line(6.0, 300)[:60]  # cut short
        + "\n"
        + line(8.25, 200)
        + line(99.5, 200, split="valid1")
        + line("nan", 300)
        + line("inf", 400)
    )
    assert training_logs.read_log(log) == training_logs.Log(True, {100: 9.5, 200: 8.25})
    lines = [text.partition("valid | ")[2] or text for text in log.read_text().splitlines()]
    log.write_text("\n".join(lines))  # as --log-file has them
    assert training_logs.read_log(log).curve == {100: 9.5, 200: 8.25}


def test_a_log_in_another_format_is_named(tmp_path):
    (tmp_path / "a.log").write_text("valid on 'valid' subset | loss 4 | ppl 9 | num_updates 5")
    (tmp_path / "b1.log").write_text(line(9.0, 1))
    (tmp_path / "b2.log").write_text(line(8.0, 2))
    run = run_folder.Run(measurements=[measurement("A"), measurement("B", 1)])
    run.trainings = {
        "A": [tmp_path / "a.log"],
        "B@1": [tmp_path / "b1.log", tmp_path / "b2.log"],
        "C": [tmp_path / "c.log"],
    }
    details = sections.make_details(run)
    assert details.remarks == [
        f"{tmp_path}/a.log has no curve: train with --log-format json",
        "no result is named C, so its log is not used",
    ]
    (curve,) = details.curves
    assert (curve.name, curve.seed, curve.points) == ("B", 1, [[1, 9.0], [2, 8.0]])
    assert [training.name for training in details.trainings] == ["A", "B"]
    with pytest.raises(Refusal, match="gone.log cannot be read"):
        training_logs.read_log(tmp_path / "gone.log")


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
    found = corpus_statistics.of_directory(gold, {"gold": tiny})["gold"]
    lines = [line.split() for line in (tiny.parent / "text" / "train.en").read_text().splitlines()]
    sources = [
        line.split() for line in (tiny.parent / "text" / "train.de").read_text().splitlines()
    ]
    assert found.sentences == found.aligned == len(lines)
    assert found.tokens == pytest.approx(sum(map(len, lines)) / len(lines))
    assert found.ratio == pytest.approx(sum(map(len, lines)) / sum(map(len, sources)))
    assert found.vocabulary == len({word for line in lines for word in line})
    assert found.duplicates == pytest.approx(1 - len({tuple(line) for line in lines}) / len(lines))
    assert found.complexity > 0
