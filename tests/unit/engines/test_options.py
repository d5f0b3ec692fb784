"""The search options of fairseq-generate: each is supported by CTranslate2, or refused by name."""

from dataclasses import fields

import pytest
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf

from fairseq_seqkd.engines import options
from fairseq_seqkd.errors import Refusal


def search(**values):
    """fairseq's "generation" group with these values, and its defaults."""
    defaults = {field.name: field.default for field in fields(GenerationConfig)}
    return OmegaConf.create({**defaults, **values})


def test_no_option_is_ignored():
    """A value that is not the default, for each option of the group."""
    names = {field.name for field in fields(GenerationConfig)}
    refused = names - options.SUPPORTED - options.WITHOUT_EFFECT
    for name in refused:
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(Refusal, match=f"not support {option}; use --engine fairseq"):
            options.check_for_ctranslate2(search(**{name: "something else"}))
    assert {"no_repeat_ngram_size", "prefix_size", "match_source_len", "lm_path"} <= refused
    assert "retain_dropout" in refused


@pytest.mark.parametrize(
    "values,sentence",
    [
        ({"unkpen": 1.5}, "--unkpen 1.5 "),
        ({"temperature": 2.0}, "--temperature without --sampling; "),
        ({"prefix_size": 1, "diverse_beam_groups": 2}, "--prefix-size, --diverse-beam-groups; "),
    ],
)
def test_what_ctranslate2_lacks_is_refused(values, sentence):
    with pytest.raises(Refusal, match=f"does not support {sentence}"):
        options.check_for_ctranslate2(search(**values))


def test_what_ctranslate2_has_is_accepted():
    options.check_for_ctranslate2(search(sampling=True, temperature=0.7, unkpen=float("inf")))
