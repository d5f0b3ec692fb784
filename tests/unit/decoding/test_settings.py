"""The plan and the settings of a decode, without running one."""

import sys
from types import SimpleNamespace

import pytest

from fairseq_seqkd.decoding.settings import BatchLimits, DecodeInputs, options_of, plan_for


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--beam", "5"], (700, None)),
        (["--max-tokens", "12000"], (12000, None)),
        (["--max-tokens=12000"], (12000, None)),
    ],
)
def test_fairseqs_own_limit_counts_only_if_the_user_gave_it(monkeypatch, words, expected):
    """fairseq-generate fills in the same number if nobody gave one."""
    monkeypatch.setattr(sys, "argv", ["fairseq-generate", *words])
    assert limits_of_plan(12000) == expected


@pytest.mark.parametrize(
    "tokens, sentences, expected",
    [(800, None, (800, None)), (12000, 16, (12000, 16)), (None, 16, (None, 16))],
)
def test_other_limits_are_the_users(monkeypatch, tokens, sentences, expected):
    monkeypatch.setattr(sys, "argv", ["fairseq-generate"])
    assert limits_of_plan(tokens, sentences) == expected


def limits_of_plan(tokens, sentences=None):
    cfg = SimpleNamespace(dataset=SimpleNamespace(batch_size=sentences), part_size=0)
    limits = BatchLimits(tokens, sentences, (1024, 1024))
    plan = plan_for(DecodeInputs(cfg, None, range(10)), limits, default_tokens=700)
    return plan.max_tokens, plan.max_sentences


def test_a_file_of_a_decoder_is_named_by_its_hash(tmp_path):
    (tmp_path / "codes").write_bytes(b"")
    config = {"_name": "subword_nmt", "bpe_codes": str(tmp_path / "codes"), "bpe_separator": "@@"}
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert options_of({**config, "bpe_glossaries": None}) == {
        "bpe_codes": empty,
        "bpe_separator": "@@",
    }
    assert options_of("subword_nmt") == options_of(None) == {}
