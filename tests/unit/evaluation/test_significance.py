"""Which differences are chance: the bootstrap test against sacrebleu's own command, COMET's
columns, and stars in Table 1.
"""

import random
import types

import msgspec
import pytest
from measurements import result

from fairseq_seqkd.commands.evaluate import compare
from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.evaluation import records, results, significance
from fairseq_seqkd.evaluation.cache import Cache, key
from fairseq_seqkd.evaluation.records import Identity, Measurement, MeasurementSettings
from fairseq_seqkd.report import table1 as table

FACTS = {"ppl": 3.0, "mode_probability": 0.1, "bleu_greedy": 20.0, "bleu_beam5": 21.0}
WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(scope="module")
def texts():
    """Texts of 60 sentences by name: gold, a nearly right one, two less so and alike."""
    random.seed(1)
    gold = [" ".join(random.choices(WORDS, k=random.randint(4, 12))) for _ in range(60)]

    def spoilt(share):
        return [
            " ".join(w if random.random() > share else random.choice(WORDS) for w in line.split())
            for line in gold
        ]

    bad = spoilt(0.45)
    return {"gold": gold, "good": spoilt(0.1), "bad": bad, "worse": [gold[0], "x x x", *bad[2:]]}


def systems_of(texts, *named):
    return [
        significance.Outputs(
            Identity(name, seed), f"{name}{seed}", {"greedy": texts[greedy], "beam5": texts[beam]}
        )
        for name, seed, greedy, beam in named
    ]


def report_of(rows, pairs=()):
    """Returns Table 1 of rows, which lack what a test does not need, and of their comparisons."""
    measurements = [result(**{**FACTS, **row}) for row in rows]
    content = records.decode({"results": measurements, "pairs": tree(list(pairs))})
    return table.make_report(content.results, pairs=content.pairs)


def compared(texts, *named):
    """The comparisons, as they are in a file."""
    return tree(significance.compare(systems_of(texts, *named), texts["gold"], "13a"))


def test_seeds_are_compared_with_their_like(texts):
    named = [("Teacher", None), ("Student", 1), ("Student", 2), ("Seq-KD", 1), ("Seq-KD", 2)]
    found = significance.pairs([Identity(*system) for system in named])
    seen = {(named[a], s, named[b], t) for (a, s), (b, t) in found}
    assert (
        len(seen) == len(found) == 6 * 4
    )  # the teacher with four students, and the two pairs of one seed
    assert (("Seq-KD", 1), "greedy", ("Student", 1), "beam5") in seen
    assert all(a[1] == b[1] or None in (a[1], b[1]) for a, _, b, _ in seen) and all(
        a[0] != b[0] for a, _, b, _ in seen
    )


def test_the_worst_seed_decides_about_the_star(texts):
    named = [
        ("Student", 1, "bad", "bad"),
        ("Student", 2, "bad", "bad"),
        ("Seq-KD", 1, "good", "good"),
        ("Seq-KD", 2, "good", "worse"),
    ]
    found = compared(texts, *named)
    facts = {"ppl": 3.0, "mode_probability": 0.1, "bleu_greedy": 20.0, "bleu_beam5": 21.0}
    report = report_of(
        [{"name": name, "seed": seed, **facts} for name, seed, *_ in named], pairs=found
    )
    row = report.rows[1]
    by_seed = {p["seed"]: p["p_value"] for p in found if p["search_a"] == p["search_b"] == "beam5"}
    assert (
        max(test.p for test in row.tests["greedy"].values()) < 0.01
        and {seed: test.p for seed, test in row.tests["beam5"].items()} == by_seed
        and by_seed[1] < 0.05 < by_seed[2]
    )
    assert not report.rows[0].tests
    line = table.markdown_table(report.rows).splitlines()[-1]
    assert "+0.00* |" in line and "+0.00 |" in line
    assert "p < 0.05 for every seed" in table.to_markdown(
        report
    ) and "bs:1000" in table.to_markdown(report)
    assert "**\\***" not in table.to_markdown(report_of([{"name": "Student", "seed": 1, **facts}]))


def test_seeds_that_contradict_each_other_earn_no_star(texts):
    """Every seed differs from its baseline, one upwards and one downwards."""
    better, worse = ("good", "good"), ("bad", "bad")
    named = [
        ("Student", 1, *worse),
        ("Student", 2, *better),
        ("Seq-KD", 1, *better),
        ("Seq-KD", 2, *worse),
    ]
    found = compared(texts, *named)
    facts = {"ppl": 3.0, "mode_probability": 0.1, "bleu_greedy": 20.0, "bleu_beam5": 21.0}
    report = report_of(
        [{"name": name, "seed": seed, **facts} for name, seed, *_ in named], pairs=found
    )
    row = report.rows[1]
    assert (
        max(test.p for test in row.tests["greedy"].values()) < 0.05
        and row.tests["greedy"][1].bleu > 0 > row.tests["greedy"][2].bleu
    )
    assert row.tests["greedy"][1].bleu == pytest.approx(-row.tests["greedy"][2].bleu)
    assert "*" not in table.markdown_table(report.rows)
    both = row.tests["greedy_against_beam5"]
    assert f"seeds: {both[1].bleu:+.2f} with p = 0.0" in report.claims[0].seen
    assert f"{both[2].bleu:+.2f} with p = 0.0" in report.claims[0].seen


@pytest.fixture
def three(texts):
    """Comparisons of Student with Seq-KD over three seeds, and rows of both."""
    named = [
        (name, seed, how, how)
        for name, how in (("Student", "bad"), ("Seq-KD", "good"))
        for seed in (1, 2, 3)
    ]
    facts = {"ppl": 3.0, "mode_probability": 0.1, "bleu_greedy": 20.0, "bleu_beam5": 21.0}
    found = compared(texts, *named)
    return found, [
        {"name": name, "seed": seed, "checkpoint_sha256": f"{name}{seed}", **facts}
        for name, seed, *_ in named
    ]


def test_no_star_where_a_seed_was_not_compared(three):
    found, rows = three
    assert "+0.00*" in table.markdown_table(report_of(rows, pairs=found).rows)
    some = [pair for pair in found if pair["seed"] != 3]
    report = report_of([*rows, {**rows[0], "name": "Other", "seed": 9}], pairs=some)
    assert "*" not in table.markdown_table(report.rows) and table.explain_stars(report) == []
    first = [row for row in rows if (row["name"], row["seed"]) != ("Student", 3)]
    assert "*" not in table.markdown_table(report_of(first, pairs=some).rows)
    report = report_of([*rows, {**rows[0], "name": "Other", "seed": 9}], pairs=found)
    assert table.explain_stars(report)[1].markdown().startswith("- **Not tested**: Other (")


def test_the_claim_names_the_p_of_every_seed(three):
    found, rows = three
    seen = report_of(rows, pairs=found).claims[0].seen
    pairs = records.decode({"results": [], "pairs": found}).pairs
    sides = ("Seq-KD", "greedy", "Student", "beam5")
    p = {seed: test.p for seed, test in records.differences(pairs, *sides).items()}
    assert f"p of the seeds {p[1]:.3f}, {p[2]:.3f}, {p[3]:.3f})" in seen


def test_comparisons_stay_with_their_checkpoints(three, tmp_path):
    """Continuing a file keeps what is still true of it, with an empty cache too."""
    path = tmp_path / "r.json"
    evaluation = records.decode({"results": three[1], "pairs": three[0]})
    first = results.Results(path)
    for measurement in evaluation.results:
        first.add(measurement)
    first.compare(evaluation.pairs)
    second = results.Results(path)
    second.add(msgspec.structs.replace(evaluation.results[0], checkpoint_sha256="trained further"))
    assert {pair.seed for pair in records.read(path).pairs} == {2, 3}
    second.compare([])
    assert len(records.read(path).pairs) == len(evaluation.pairs) * 2 / 3
    twice = [*evaluation.pairs, *evaluation.pairs]
    assert records.still_valid(twice, evaluation.results) == evaluation.pairs


@pytest.fixture
def judge(texts, tmp_path):
    """Compares measurements of A and B whose outputs are put in the cache."""
    cache = Cache(tmp_path)

    def judge(outputs, checkpoints=("A", "B"), references="gold", data="gold"):
        settings = MeasurementSettings(split="test", max_len_a=1.2, max_len_b=10)
        system = types.SimpleNamespace(settings=settings, data_sha256=data)
        system.texts = lambda: (None, texts[references])
        measurements = [
            Measurement(name=name, checkpoint_sha256=checkpoint)
            for name, checkpoint in zip("AB", checkpoints)
        ]
        for measurement, text in zip(measurements, outputs):
            content = {"outputs": dict.fromkeys(("greedy", "beam5"), texts[text])}
            cache.put(key(measurement.facts), content)
        return measurements, compare(measurements, system, cache)

    return judge


def test_outputs_that_were_made_again_are_compared_again(judge, monkeypatch):
    """--again may find others under the same facts, such as with another version of this code."""
    seen = [{p.difference for p in judge(("good", text))[1]} for text in ("bad", "good")]
    assert seen[1] == {0.0} and 0.0 not in seen[0]
    known = judge(("good", "good"))[1]
    monkeypatch.setattr(significance, "compare", None)  # and what is known is not asked for
    assert judge(("good", "good"))[1] == known and {p.difference for p in known} == {0.0}


def test_comparisons_are_of_their_references_and_checkpoints(judge):
    """The same outputs may be judged by corrected references, or be those of a checkpoint whose
    file was written anew.
    """
    outputs = ("good", "bad")
    _, before = judge(outputs)
    measurements, anew = judge(outputs, ("A", "restored"))
    assert records.still_valid(anew, measurements) == anew != []
    assert [p.p_value for p in anew] == [p.p_value for p in before]
    _, corrected = judge(outputs, references="bad", data="corrected")
    better = [pair.difference > 0 for pair in corrected]
    assert [pair.difference < 0 for pair in before] == better != []


def test_no_difference_and_a_single_sentence_are_no_sign_of_anything(texts):
    named = [("Student", None, "good", "bad"), ("Seq-KD", None, "good", "bad")]
    found = compared(texts, *named)
    assert [p["p_value"] for p in found if p["difference"] == 0] == [1.0, 1.0]
    assert max(p["p_value"] for p in found if p["difference"]) < 0.05
    one = {name: lines[:1] for name, lines in texts.items()}
    assert (
        significance.compare(
            systems_of(one, ("A", None, "good", "bad"), ("B", None, "bad", "good")),
            one["gold"],
            "13a",
        )
        == []
    )
