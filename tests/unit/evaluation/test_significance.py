"""Which differences are chance: the bootstrap test against sacrebleu's own command, COMET's
columns, and stars in Table 1.
"""

import json
import random
import types

import pytest
from measurements import result

from fairseq_seqkd.commands.evaluate import compare
from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records, results, significance, systems
from fairseq_seqkd.evaluation.cache import Cache, key
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
        (name, seed, {"greedy": texts[greedy], "beam5": texts[beam]}, f"{name}{seed}")
        for name, seed, greedy, beam in named
    ]


def report_of(rows, pairs=()):
    """Returns Table 1 of rows, which lack what a test does not need, and of their comparisons."""
    measurements = [result(**{**FACTS, **row}) for row in rows]
    content = records.decode({"results": measurements, "pairs": tree(list(pairs))})
    return table.make_report(content.results, pairs=content.pairs)


def test_seeds_are_compared_with_their_like(texts):
    named = [("Teacher", None), ("Student", 1), ("Student", 2), ("Seq-KD", 1), ("Seq-KD", 2)]
    found = significance.pairs(named)
    seen = {(named[a], s, named[b], t) for a, s, b, t in found}
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
    found = significance.compare(systems_of(texts, *named), texts["gold"], "13a")
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
    found = significance.compare(systems_of(texts, *named), texts["gold"], "13a")
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


def test_damaged_comparisons_are_refused(tmp_path):
    for pairs in (
        {},
        [1],
        [{"a": "x"}],
        [{"a": "x", "b": "y", "search_a": "greedy", "search_b": "greedy", "p_value": 1}],
    ):
        with pytest.raises(Refusal, match="damaged comparisons"):
            results.pairs_of({"results": [], "pairs": pairs}, "results.json")
    assert results.pairs_of({"results": []}, "results.json") == []


@pytest.fixture
def three(texts):
    """Comparisons of Student with Seq-KD over three seeds, and rows of both."""
    named = [
        (name, seed, how, how)
        for name, how in (("Student", "bad"), ("Seq-KD", "good"))
        for seed in (1, 2, 3)
    ]
    facts = {"ppl": 3.0, "mode_probability": 0.1, "bleu_greedy": 20.0, "bleu_beam5": 21.0}
    found = significance.compare(systems_of(texts, *named), texts["gold"], "13a")
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
    p = {
        seed: p
        for seed, (_, p) in significance.between(
            found, "Seq-KD", "greedy", "Student", "beam5"
        ).items()
    }
    assert f"p of the seeds {p[1]:.3f}, {p[2]:.3f}, {p[3]:.3f})" in seen


def test_comparisons_stay_with_their_checkpoints(three, tmp_path):
    """Continuing a file keeps what is still true of it, with an empty cache too."""
    found, rows = three
    first = results.Results(tmp_path / "r.json")
    for row in rows:
        first.add(row)
    first.compare(found)
    second = results.Results(tmp_path / "r.json")
    second.add({**rows[0], "checkpoint_sha256": "trained further"})
    assert {p["seed"] for p in json.loads((tmp_path / "r.json").read_text())["pairs"]} == {2, 3}
    second.compare([])
    assert len(json.loads((tmp_path / "r.json").read_text())["pairs"]) == len(found) * 2 / 3
    assert results.pairs_among(found * 2, rows) == found


def test_outputs_that_were_made_again_are_compared_again(texts, tmp_path, monkeypatch):
    """--again may find others under the same facts, such as with another version of this code."""
    monkeypatch.setattr(systems, "texts", lambda system: (None, texts["gold"]))
    found = [{"name": name, "checkpoint_sha256": name} for name in "AB"]
    names = [key({fact: result.get(fact) for fact in systems.FACTS}) for result in found]
    cache, system = (
        Cache(tmp_path),
        types.SimpleNamespace(settings={"bleu_tokenizer": "13a"}, data_sha256="gold"),
    )
    cache.put(names[0], {"outputs": dict.fromkeys(("greedy", "beam5"), texts["good"])})
    seen = []
    for outputs in ("bad", "good"):
        cache.put(names[1], {"outputs": dict.fromkeys(("greedy", "beam5"), texts[outputs])})
        seen.append({pair["difference"] for pair in compare(found, system, cache)})
    assert seen[1] == {0.0} and 0.0 not in seen[0]
    known = compare(found, system, cache)
    monkeypatch.setattr(significance, "compare", None)  # and what is known is not asked for
    assert compare(found, system, cache) == known and {pair["difference"] for pair in known} == {
        0.0
    }


def test_comparisons_are_of_their_references_and_checkpoints(texts, tmp_path, monkeypatch):
    """The same outputs may be judged by corrected references, or be those of a checkpoint whose
    file was written anew.
    """
    cache, system = (
        Cache(tmp_path),
        types.SimpleNamespace(settings={"bleu_tokenizer": "13a"}, data_sha256="gold"),
    )

    def compared(references, *checkpoints):
        monkeypatch.setattr(systems, "texts", lambda system: (None, references))
        found = [
            {"name": name, "checkpoint_sha256": checkpoint}
            for name, checkpoint in zip(("good", "bad"), checkpoints)
        ]
        for entry in found:
            facts = {fact: entry.get(fact) for fact in systems.FACTS}
            cache.put(
                key(facts), {"outputs": dict.fromkeys(("greedy", "beam5"), texts[entry["name"]])}
            )
        return found, compare(found, system, cache)

    _, before = compared(texts["gold"], "one", "two")
    found, anew = compared(texts["gold"], "one", "restored")
    assert results.pairs_among(anew, found) == anew != [] and [p["p_value"] for p in anew] == [
        p["p_value"] for p in before
    ]
    system.data_sha256 = "corrected"
    _, corrected = compared(texts["bad"], "one", "two")
    assert (
        [pair["difference"] > 0 for pair in before]
        == [pair["difference"] < 0 for pair in corrected]
        != []
    )


def test_no_difference_and_a_single_sentence_are_no_sign_of_anything(texts):
    named = [("Student", None, "good", "bad"), ("Seq-KD", None, "good", "bad")]
    found = significance.compare(systems_of(texts, *named), texts["gold"], "13a")
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
