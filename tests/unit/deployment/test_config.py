"""seqkd.json: its bytes, and what is refused when somebody has edited it."""

import json
import math

import pytest

from fairseq_seqkd.deployment import config
from fairseq_seqkd.errors import Refusal

SETTINGS = config.DeployedConfig(
    source_lang="de",
    target_lang="en",
    quantization="int8",
    max_source_tokens=1024,
    max_len_a=1.2,
    max_len_b=10,
    max_target_tokens=1023,
    post_process="@@ ",
    distillation_signature="teacher:Größe|beam:5",
)
# As the versions before msgspec wrote it: folders of one version are read by the others.
WRITTEN = """{
 "format": 1,
 "source_lang": "de",
 "target_lang": "en",
 "quantization": "int8",
 "max_source_tokens": 1024,
 "max_len_a": 1.2,
 "max_len_b": 10,
 "max_target_tokens": 1023,
 "subwords": null,
 "subword_file": null,
 "tokenizer": null,
 "joined_by": "@@ ",
 "beam": 1,
 "lenpen": 1.0,
 "checkpoint_sha256": null,
 "distillation_signature": "teacher:Größe|beam:5"
}
"""


def test_the_bytes_are_those_of_earlier_versions(tmp_path):
    SETTINGS.write(tmp_path)
    assert (tmp_path / "seqkd.json").read_text(encoding="utf-8") == WRITTEN
    assert config.read(tmp_path) == SETTINGS


def test_keys_with_defaults_may_be_missing_and_others_are_ignored(tmp_path):
    content = json.loads(WRITTEN)
    for key in ("beam", "lenpen", "subwords", "subword_file", "tokenizer", "joined_by"):
        del content[key]
    (tmp_path / "seqkd.json").write_text(json.dumps({**content, "new": 1, "max_len_a": 2}))
    settings = config.read(tmp_path)
    assert (settings.beam, settings.lenpen, settings.post_process) == (1, 1.0, None)
    assert settings.max_len_a == 2


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"format": 99}, "$.format"),
        ({"format": None}, "$.format"),
        ({"source_lang": 5}, "`$.source_lang`"),
        ({"quantization": 5}, "`$.quantization`"),
        ({"beam": "1"}, "Expected `int`, got `str` - at `$.beam`"),
        ({"beam": 0}, "Expected `int` >= 1 - at `$.beam`"),
        ({"beam": True}, "`$.beam`"),
        ({"max_source_tokens": 1}, "`$.max_source_tokens`"),
        ({"max_target_tokens": 0}, "`$.max_target_tokens`"),
        ({"max_len_a": -1}, "`$.max_len_a`"),
        ({"max_len_a": math.nan}, "malformed"),
        ({"max_len_b": -1}, "`$.max_len_b`"),
        ({"max_len_b": 1.5}, "`$.max_len_b`"),
        ({"lenpen": math.inf}, "malformed"),
        ({"tokenizer": "spacy"}, "Invalid enum value 'spacy' - at `$.tokenizer`"),
        ({"joined_by": 1}, "`$.joined_by`"),
        ({"subwords": "wordpiece", "subword_file": "subwords.model"}, "`$.subwords`"),
        ({"subwords": "sentencepiece", "subword_file": "../x.model"}, "`$.subword_file`"),
        ({"subwords": "sentencepiece", "subword_file": 7}, "`$.subword_file`"),
        ({"subwords": "sentencepiece"}, "`subwords` and `subword_file` belong together"),
        ({"subword_file": "subwords.model"}, "`subwords` and `subword_file` belong together"),
    ],
)
def test_damage_is_refused_with_the_place(tmp_path, change, sentence):
    (tmp_path / "seqkd.json").write_text(json.dumps({**json.loads(WRITTEN), **change}))
    with pytest.raises(Refusal) as refused:
        config.read(tmp_path)
    assert sentence in refused.value.sentence
    assert refused.value.sentence.endswith("export the checkpoint again")


@pytest.mark.parametrize("missing", ["source_lang", "max_len_b"])
def test_a_missing_key_is_refused(tmp_path, missing):
    content = json.loads(WRITTEN)
    del content[missing]
    (tmp_path / "seqkd.json").write_text(json.dumps(content))
    with pytest.raises(Refusal, match=f"missing required field `{missing}`"):
        config.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "seqkd.json").write_bytes(content)
    with pytest.raises(Refusal, match="is damaged, or of another version"):
        config.read(tmp_path)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match="was not written by `seqkd export`"):
        config.read(tmp_path)


def test_the_length_limit_is_that_of_the_settings():
    assert SETTINGS.length_limit.of(10) == 22
    assert SETTINGS.length_limit.of(10_000) == 1023
