"""The results file of `seqkd evaluate` is continued, and holds what may stand in one table."""

import msgspec
import pytest

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import cache, records, results
from fairseq_seqkd.evaluation.records import Comparison, Measurement, MeasurementSettings

SETTINGS = MeasurementSettings(split="test", max_len_a=1.2, max_len_b=10)
FACTS = {
    "checkpoint_sha256": "c",
    "data_sha256": "d",
    "settings": SETTINGS,
    "versions": {"torch": "2"},
    "machine": "m",
}
OTHER = {
    "checkpoint_sha256": "other",
    "data_sha256": "other",
    "settings": msgspec.structs.replace(SETTINGS, max_len_b=11),
    "versions": {"torch": "3"},
    "machine": "other",
}


def measurement(name, seed=None, **changes):
    return Measurement(**{"name": name, "seed": seed, **FACTS, **changes})


def read(path):
    return records.read_evaluation(path).results


def test_results_are_continued_and_nothing_is_lost(tmp_path):
    path = tmp_path / "results.json"
    first = results.Results(path)
    first.add(measurement("A"))
    first.add(measurement("B", 1, checkpoint_sha256="b"))
    second = results.Results(path)
    second.add(measurement("A", checkpoint_sha256="retrained"))
    named = [(result.name, result.checkpoint_sha256) for result in read(path)]
    assert named == [("B", "b"), ("A", "retrained")]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_two_processes_continue_one_file(tmp_path):
    path = tmp_path / "results.json"
    first, second = results.Results(path), results.Results(path)
    sides = {"a": "B", "search_a": "greedy", "b": "A", "search_b": "greedy", "seed": None}
    facts = {"checkpoint_a": "c", "checkpoint_b": "c", "difference": 1.0, "p_value": 0.1}
    first.add(measurement("A"))
    second.add(measurement("B"))
    second.compare([Comparison(**sides, **facts)])
    first.add(measurement("C"))
    assert {result.name for result in read(path)} == {"A", "B", "C"}
    assert read(path) == first.evaluation.results
    assert len(records.read(path).pairs) == 1
    before = path.read_bytes()
    with pytest.raises(Refusal, match="on other data"):
        second.add(measurement("D", data_sha256="e"))
    with pytest.raises(Refusal, match="several of C: one has a seed"):
        second.add(measurement("C", 1))
    assert path.read_bytes() == before


def test_comet_of_the_same_outputs_stays(tmp_path):
    path = tmp_path / "results.json"
    scores = {"comet_greedy": 0.7, "comet_beam5": 0.8, "comet_signature": "comet:2|model:a"}
    results.Results(path).add(measurement("A", **scores))
    results.Results(path).add(measurement("A", bleu_greedy=1.0))
    assert read(path) == [measurement("A", bleu_greedy=1.0, **scores)]
    results.Results(path).add(measurement("A", checkpoint_sha256="another"))
    assert read(path)[0].comet_greedy is None


@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_decides_what_is_the_same_measurement(fact):
    assert tuple(FACTS) == records.FACTS
    facts, others = measurement("A").facts, measurement("B", **{fact: OTHER[fact]}).facts
    assert cache.key(facts) == cache.key(dict(reversed(facts.items()))) != cache.key(others)
    assert cache.key(facts) == cache.key(measurement("B", 1, params=3).facts)


def test_results_of_other_data_are_not_mixed(tmp_path):
    path = tmp_path / "results.json"
    results.Results(path).add(measurement("A"))
    results.Results(path).check(measurement("A", machine="another"))
    with pytest.raises(Refusal, match="on other data"):
        results.Results(path).check(measurement("A", data_sha256="e"))
    with pytest.raises(Refusal, match="with other settings"):
        results.Results(path).check(measurement("A", settings=OTHER["settings"]))
    with pytest.raises(Refusal, match="several of A: one has a seed"):
        results.Results(path).check(measurement("A", 1))


def test_models_of_other_sizes_are_no_seeds_and_do_not_spoil_the_file(tmp_path):
    path = tmp_path / "results.json"
    kept = results.Results(path)
    kept.add(measurement("A", 1, params=10))
    before = path.read_bytes()
    with pytest.raises(Refusal, match="several of A: one has 10 parameters, and one has 20"):
        kept.add(measurement("A", 2, params=20))
    assert path.read_bytes() == before
    results.Results(path).add(measurement("A", 1, params=20))  # in its place
    assert [result.params for result in read(path)] == [20]


def test_systems_of_two_directions_are_refused_before_they_are_measured():
    kept = results.Results()
    german, english = (
        msgspec.structs.replace(SETTINGS, source_lang=language) for language in ("de", "en")
    )
    kept.check(measurement("A", settings=german))
    kept.check(measurement("B", settings=german))
    sentence = "A and C do not translate the same sentences into the same language"
    with pytest.raises(Refusal, match=sentence):
        kept.check(measurement("C", settings=english))


def test_comet_of_another_model_is_refused(tmp_path):
    path = tmp_path / "results.json"
    results.Results(path).add(measurement("A", comet_beam5=0.8, comet_signature="comet:2|model:a"))
    results.Results(path).check_scorer("comet:2|model:a")
    sentence = "holds COMET of A by another model .*a.; name that with --comet, or another file"
    with pytest.raises(Refusal, match=sentence):
        results.Results(path).check_scorer("comet:2|model:b")
    again = results.Results(path)
    again.check(measurement("A"))  # it is replaced, and nothing of the other model stays
    again.check_scorer("comet:2|model:b")
