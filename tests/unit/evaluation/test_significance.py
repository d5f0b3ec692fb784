"""Which differences are chance: the bootstrap test against sacrebleu's own command, COMET's columns, and stars in Table 1."""

import hashlib
import json
import random
import re
import subprocess
import sys
import types

import helpers
import pytest

from fairseq_seqkd import cli
from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.commands.evaluate import compare
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import comet, results, significance, systems
from fairseq_seqkd.evaluation.cache import Cache, key
from fairseq_seqkd.report import table1 as table

WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(scope="module")
def texts():
    """{name: text of 60 sentences}: gold, one that is nearly right, two that are less so and alike."""
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


def test_p_values_are_those_of_sacrebleus_command(texts, tmp_path):
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    order = ["bad", "good", "worse"]
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "gold",
        "-i",
        *order,
        "-m",
        "bleu",
        "--paired-bs",
        "-f",
        "json",
        "--force",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs = {
        row["system"].split()[-1].removeprefix("Baseline: "): row["BLEU"]
        for row in json.loads(done.stdout)
    }
    found = significance.compare(
        systems_of(
            texts,
            ("bad", None, "bad", "bad"),
            ("good", None, "good", "good"),
            ("worse", None, "worse", "worse"),
        ),
        texts["gold"],
        "13a",
    )
    mine = {
        p["a"]: p for p in found if p["b"] == "bad" and p["search_a"] == p["search_b"] == "greedy"
    }
    assert mine.keys() == {"good", "worse"}
    for name, pair in mine.items():
        assert pair["p_value"] == pytest.approx(theirs[name]["p_value"], abs=1e-4)
        assert pair["difference"] == pytest.approx(
            theirs[name]["score"] - theirs["bad"]["score"], abs=0.06
        )
    assert mine["good"]["p_value"] < 0.01 < 0.05 < mine["worse"]["p_value"]
    assert re.fullmatch(r"nrefs:1\|bs:1000\|seed:12345\|.*tok:13a.*", mine["good"]["signature"])


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
    report = table.make_report(
        [{"name": name, "seed": seed, **facts} for name, seed, *_ in named], pairs=found
    )
    row = report["rows"][1]
    by_seed = {p["seed"]: p["p_value"] for p in found if p["search_a"] == p["search_b"] == "beam5"}
    assert (
        max(row["p_greedy"].values()) < 0.01
        and row["p_beam5"] == by_seed
        and by_seed[1] < 0.05 < by_seed[2]
    )
    assert "p_greedy" not in report["rows"][0]
    line = table.markdown_table(report["rows"]).splitlines()[-1]
    assert "+0.00* |" in line and "+0.00 |" in line
    assert "p < 0.05 for every seed" in table.to_markdown(
        report
    ) and "bs:1000" in table.to_markdown(report)
    assert "*****" not in table.to_markdown(
        table.make_report([{"name": "Student", "seed": 1, **facts}])
    )


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
    report = table.make_report(
        [{"name": name, "seed": seed, **facts} for name, seed, *_ in named], pairs=found
    )
    row = report["rows"][1]
    assert (
        max(row["p_greedy"].values()) < 0.05
        and row["difference_greedy"][1] > 0 > row["difference_greedy"][2]
    )
    assert row["difference_greedy"][1] == pytest.approx(-row["difference_greedy"][2])
    assert "*" not in table.markdown_table(report["rows"])
    both = row["difference_greedy_against_beam5"]
    assert f"seeds: {both[1]:+.2f} with p = 0.0" in report["claims"][0]["seen"]
    assert f"{both[2]:+.2f} with p = 0.0" in report["claims"][0]["seen"]


@pytest.fixture(scope="module")
def evaluated(tiny, teacher, tmp_path_factory):
    """(folder, arguments of the command that was run there): the teacher and a weaker student under two names."""
    home = tmp_path_factory.mktemp("evaluated")
    options = {"criterion": "cross_entropy", "max_epoch": 2, "disable_validation": True}
    helpers.train(tiny, home / "weak", **options)
    arguments = [
        f"Student={home}/weak/checkpoint_last.pt",
        f"Seq-KD={teacher}",
        "--data",
        tiny,
        "-o",
        home / "results.json",
    ]
    done = helpers.command("seqkd", "evaluate", *arguments, "--cache", home / "cache")
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
    assert (
        helpers.command("seqkd", "evaluate", *arguments, "--cache", home / "cache").stdout
        == printed
    )
    assert {path: path.stat().st_mtime_ns for path in (home / "cache").iterdir()} == before
    # A third system is compared with those of the file, which are not named again.
    third = [f"Third={home}/weak/checkpoint_last.pt", *arguments[2:]]
    helpers.command("seqkd", "evaluate", *third, "--cache", home / "cache")
    found = json.loads((home / "results.json").read_text())["pairs"]
    assert {(p["a"], p["b"]) for p in found} >= {
        ("Third", "Student"),
        ("Third", "Seq-KD"),
        ("Seq-KD", "Student"),
    }


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
def scorer(monkeypatch):
    """A module in place of unbabel-comet, which is called as its own documentation calls it. What was `asked` and `loaded`."""
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
    (found,) = results.read(tmp_path / "r.json")
    assert found["comet_signature"] == "comet:2.2.6|model:Unbabel/x" and len(scorer.asked) == 2
    for search, samples in zip(("greedy", "beam5"), scorer.asked):
        assert (
            found[f"comet_{search}"] == sum(s["mt"] == s["ref"] for s in samples) / len(samples) > 0
        )
    assert found["settings"]["post_process"] is None and any(
        "@@" in sample["ref"] for sample in scorer.asked[0]
    )


def test_comet_is_asked_with_sources_outputs_and_references(tiny, teacher, scorer, tmp_path):
    import torch

    import fairseq_seqkd
    from fairseq_seqkd.evaluation import measure

    fairseq_seqkd.register()
    system, device, asked = (
        systems.prepare(Checkpoint(teacher), str(tiny)),
        torch.device("cpu"),
        scorer.asked,
    )
    outputs = measure.measure(system, device)["outputs"]
    cache, name = Cache(tmp_path), "Unbabel/wmt22-comet-da"
    found = [comet.Scorer(name, device, cache, [system]).scores(system, outputs) for _ in range(2)]
    assert scorer.loaded == [
        f"/models/{name}"
    ]  # before anything is scored, and not where everything is known
    sources, references = systems.texts(system)
    assert found[0] == found[1] and len(asked) == 2  # once a search, and nothing the second time
    assert asked[0] == [
        {"src": s, "mt": m, "ref": r} for s, m, r in zip(sources, outputs["greedy"], references)
    ]
    assert (
        found[0]["comet_greedy"]
        == sum(a == b for a, b in zip(outputs["greedy"], references)) / len(references)
        > 0
    )
    assert found[0]["comet_signature"] == "comet:2.2.6|model:Unbabel/wmt22-comet-da"
    again = comet.Scorer(name, device, cache, [system], again=True).scores(system, outputs)
    assert again == found[0] and len(asked) == 4  # whatever the cache holds
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    signature = comet.Scorer(str(tmp_path / "model.ckpt"), device, cache, [system]).signature
    assert signature == f"comet:2.2.6|model:model.ckpt:{hashlib.sha256(b'weights').hexdigest()[:8]}"
    row = {
        "name": "A",
        "seed": None,
        "ppl": 2.0,
        "mode_probability": 0.1,
        "bleu_greedy": 20.0,
        "bleu_beam5": 21.0,
        **found[0],
    }
    assert "| COMET K=1 " in table.markdown_table(
        table.make_rows([row])
    ) and "wmt22" in table.to_markdown(table.make_report([row]))


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
    assert "+0.00*" in table.markdown_table(table.make_report(rows, pairs=found)["rows"])
    some = [pair for pair in found if pair["seed"] != 3]
    report = table.make_report([*rows, {**rows[0], "name": "Other", "seed": 9}], pairs=some)
    assert "*" not in table.markdown_table(report["rows"]) and table.explain_stars(report) == []
    first = [row for row in rows if (row["name"], row["seed"]) != ("Student", 3)]
    assert "*" not in table.markdown_table(table.make_report(first, pairs=some)["rows"])
    report = table.make_report([*rows, {**rows[0], "name": "Other", "seed": 9}], pairs=found)
    assert (
        "Not tested, for lack of outputs or of equal seeds: Other" in table.explain_stars(report)[0]
    )


def test_the_claim_names_the_p_of_every_seed(three):
    found, rows = three
    seen = table.make_report(rows, pairs=found)["claims"][0]["seen"]
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
    """The same outputs may be judged by corrected references, or be those of a checkpoint whose file was written anew."""
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
        for result in found:
            facts = {fact: result.get(fact) for fact in systems.FACTS}
            cache.put(
                key(facts), {"outputs": dict.fromkeys(("greedy", "beam5"), texts[result["name"]])}
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
    done = helpers.command("seqkd", "evaluate", *arguments, check=False)
    assert "--cache" in helpers.refusal(done) and "BLEU" not in done.stdout


def test_without_comet_the_option_is_refused(tiny, teacher, monkeypatch):
    monkeypatch.setattr(comet, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match="pip install unbabel-comet"):
        cli.main(["evaluate", str(teacher), "--data", str(tiny), "--comet", "Unbabel/x"])
