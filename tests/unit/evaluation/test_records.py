"""Files of measurements are read as records, and written as they were."""

import json
from pathlib import Path

import pytest
from measurements import result

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records

DATA = Path(__file__).resolve().parents[2] / "data"
SPEEDS = json.loads((DATA / "speeds.json").read_text())
SETTINGS = {
    **{"split": "test", "beam": 5, "lenpen": 1.0, "max_len_a": 1.2, "max_len_b": 10},
    **{"post_process": None, "bleu_tokenizer": "13a"},
}


def measurement(**changes):
    return {**result("A"), "settings": SETTINGS, **changes}


@pytest.mark.parametrize("name", ["results.json", "speeds.json"])
def test_a_file_is_written_as_it_was_read(name):
    assert records.to_json(records.read(DATA / name)) == (DATA / name).read_text()


def test_absent_keys_stay_absent_and_unknown_ones_stay():
    entry = {
        "name": "A",
        "seed": None,
        "distillation_signature": None,
        "note": "by hand",
    }
    settings = {**SETTINGS, "alphabet": "Latin"}
    evaluation = records.decode({"results": [entry, {**entry, "settings": settings}]})
    assert evaluation.results[0].ppl is None
    written = json.loads(records.to_json(evaluation))
    assert written == {"results": [entry, {**entry, "settings": settings}], "pairs": []}


@pytest.mark.parametrize(
    "content, place",
    [
        ([1], "Expected `object`, got `array`"),
        ({}, "missing required field `results`"),
        ({"results": [1]}, r"\$.results\[0\]"),
        ({"results": [{"seed": 1}]}, r"missing required field `name` - at `\$.results\[0\]`"),
        (
            {"results": [measurement(params=-1)]},
            r"`int` >= 0 - at `\$.results\[0\].params`",
        ),
        ({"results": [measurement(params=1 << 48)]}, r"\$.results\[0\].params"),
        ({"results": [measurement(checkpoint=5)]}, r"got `int` - at `\$.results\[0\].checkpoint`"),
        ({"results": [measurement(ppl=float("nan"))]}, r"\$.results\[0\].ppl"),
        ({"results": [measurement(settings=5)]}, r"\$.results\[0\].settings"),
        ({"results": [], "pairs": {}}, r"\$.pairs"),
        ({"results": [], "pairs": [{"a": "x"}]}, r"field `search_a` - at `\$.pairs\[0\]`"),
        ({**SPEEDS, "speeds": []}, r"\$.speeds"),
        ({**SPEEDS, "settings": {**SETTINGS, "split": 5}}, r"\$.settings.split"),
        ({**SPEEDS, "speeds": [{"name": "x"}]}, r"\$.speeds\[0\]"),
        ({"speeds": SPEEDS["speeds"]}, "missing required field"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path, content, place):
    (tmp_path / "file").write_text(json.dumps(content))
    with pytest.raises(Refusal, match=place):
        records.read(tmp_path / "file")


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(Refusal, match="there is no"):
        records.read(tmp_path / "absent")
    (tmp_path / "file").write_text("{")
    with pytest.raises(Refusal, match="is not JSON"):
        records.read(tmp_path / "file")
    with pytest.raises(Refusal, match="is a file of `seqkd bench`"):
        records.read_evaluation(DATA / "speeds.json")


def test_the_first_difference_of_settings_leaves_out_the_tokens_per_batch():
    settings = records.decode({"results": [measurement()]}).results[0].settings
    (one, other) = (
        records.decode({"results": [measurement(settings={**SETTINGS, **change})]})
        .results[0]
        .settings
        for change in ({"max_tokens": 5}, {"undone": "--bpe x", "max_len_b": 9})
    )
    assert settings.first_difference(one) is None
    assert settings.first_difference(other) == other.first_difference(settings) == "max_len_b"
