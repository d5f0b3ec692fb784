"""manifest.json: one fixed form, every key is kept, and damage is named with its place."""

import copy
import json
import shutil

import manifests
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.corpus import json_text, manifest
from fairseq_seqkd.corpus.manifest import DecodeManifest, DistributionsManifest, ViewManifest
from fairseq_seqkd.corpus.settings import SearchSettings, differences, signature
from fairseq_seqkd.errors import Refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


# json_text.py


@given(content=st.dictionaries(st.text(), JSON, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_manifest_is_json_in_one_fixed_form(content):
    written = json_text.dump(content)
    assert json.loads(written) == content
    assert written == json_text.dump(dict(reversed(list(content.items()))))


def test_lists_stay_on_one_line():
    assert json_text.dump({"a": {"ids": list(range(100))}}).count("\n") == 4


@pytest.mark.parametrize("length", [0, 1, json_text.AT_A_TIME, 2 * json_text.AT_A_TIME + 1])
def test_arrays_are_written_as_lists(length):
    ids = np.arange(length, dtype=np.uint32)
    assert json_text.dump({"ids": ids}) == json_text.dump({"ids": ids.tolist()})


# manifest.py


@pytest.mark.parametrize(
    "kind,name",
    [
        (DecodeManifest, "distilled"),
        (ViewManifest, "distilled/seq_kd"),
        (ViewManifest, "distilled/seq_inter"),
        (DistributionsManifest, "whole"),
    ],
)
def test_a_manifest_that_is_read_and_written_has_the_same_bytes(
    distilled, whole, tmp_path, kind, name
):
    folder = {"distilled": distilled, "whole": whole}[name.split("/")[0]] / name.partition("/")[2]
    content = manifest.read(folder)
    assert isinstance(content, kind)
    manifest.write(tmp_path, content)
    assert (tmp_path / manifest.NAME).read_bytes() == (folder / manifest.NAME).read_bytes()


def test_a_manifest_without_results_has_their_keys_neither(tmp_path):
    content = manifests.content()
    content["settings"]["filters"] = {}
    manifests.write(tmp_path, content)
    manifest.write(tmp_path, manifest.read(tmp_path))
    assert manifests.read(tmp_path) == {"format": manifest.FORMAT, **content}


def test_options_of_another_fairseq_are_kept(tmp_path):
    """Its versions differ in their options, and JSON of Python knows infinity."""
    content = manifests.content()
    content["settings"]["search"].update(unkpen=float("inf"), invented=[{"a": 1}], others=None)
    content["settings"]["filters"] = {}
    manifests.write(tmp_path, content)
    work = manifest.read(tmp_path)
    assert (work.settings.search.beam, work.settings.search.others["unkpen"]) == (5, float("inf"))
    manifest.write(tmp_path, work)
    assert manifests.read(tmp_path)["settings"] == content["settings"]


def test_lists_are_read_as_arrays(tmp_path):
    manifests.write(tmp_path, manifests.content(listed={"empty": [3, 1 << 40]}))
    ids = manifest.read(tmp_path).listed["empty"]
    assert isinstance(ids, np.ndarray) and ids.tolist() == [3, 1 << 40]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": "other/9"}', "[" * 100_000, "\x00"]
)
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / manifest.NAME).write_text(content)
    with pytest.raises(Refusal, match="manifest.json"):
        manifest.read(tmp_path)


def test_lists_deeper_than_the_stack_are_damage(tmp_path):
    depth = 100_000
    text = json.dumps({"format": manifest.FORMAT, **manifests.content(listed="deep")})
    (tmp_path / manifest.NAME).write_text(text.replace('"deep"', "[" * depth + "]" * depth))
    with pytest.raises(Refusal, match="is damaged"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "place,value,sentence",
    [
        ("settings.data.sentences", -1, "Expected `int` >= 0 - at `$.settings.data.sentences`"),
        ("settings.plan.part_size", 0, "Expected `int` >= 1 - at `$.settings.plan.part_size`"),
        ("settings.search.beam", True, "Expected `int`, got `bool` - at `$.settings.search.beam`"),
        ("settings.search", [], "Expected `object`, got `array` - at `$.settings.search`"),
        ("settings.engine", None, "Expected `object`, got `null` - at `$.settings.engine`"),
        (
            "settings.select",
            "best",
            "Expected `str` matching regex '^(mode|mbr)$' - at `$.settings.select`",
        ),
        ("sentences", 1 << 63, "Expected `int` <"),
        (
            "views",
            ["../seq_kd"],
            "Expected `str` matching regex '^(seq_kd|seq_inter)$' - at `$.views[0]`",
        ),
        ("listed", {"empty": [0.5]}, "Expected `int`, got `float`"),
        ("listed", {"empty": [-1]}, "Expected `int` >= 0"),
        ("kind", "other", "Invalid value 'other' - at `$.kind`"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, place, value, sentence):
    content = copy.deepcopy(manifests.content())
    *keys, last = place.split(".")
    entries = content
    for key in keys:
        entries = entries[key]
    entries[last] = value
    manifests.write(tmp_path, content)
    with pytest.raises(Refusal) as refused:
        manifest.read(tmp_path)
    assert f"manifest.json is damaged ({sentence}" in refused.value.sentence
    assert refused.value.sentence.endswith("; restore it or decode again")


def test_a_signature_that_is_not_the_settings_is_refused(distilled, tmp_path):
    shutil.copy(distilled / manifest.NAME, tmp_path)
    content = manifest.read(tmp_path)
    manifest.check_signature(tmp_path, content)
    content.settings.search.beam += 1
    with pytest.raises(Refusal, match="its signature is not its settings'"):
        manifest.check_signature(tmp_path, content)


# settings.py


def test_differences_are_named():
    before = {"search": {"beam": 5, "lenpen": 1.0}, "teacher": "a"}
    now = {"search": {"beam": 10, "lenpen": 1.0}, "teacher": "a", "new": 1}
    assert differences(before, now) == ["new was null, now 1", "search.beam was 5, now 10"]
    assert differences(now, now) == []


def test_differences_of_options_that_only_one_fairseq_has_are_named():
    options = {"beam": 5, "nbest": 1, "lenpen": 1.0, "sampling": False, "seed": None}
    before = SearchSettings.of({**options, "longest_source": 9, "old": 1})
    now = SearchSettings.of({**options, "longest_source": 8})
    assert differences(before, now) == ["longest_source was 9, now 8", "old was 1, now null"]


def test_a_signature_is_one_line(distilled):
    work = manifest.read(distilled)
    assert work.signature == signature(work.settings, work.version)
    fields = dict(field.split(":", 1) for field in work.signature.split("|"))
    assert fields["beam"] == str(work.settings.search.beam)
    assert fields["teacher"] == work.settings.teacher.sha256[0][:12]
    assert fields["data"] == work.settings.data.source_sha256[:12]
