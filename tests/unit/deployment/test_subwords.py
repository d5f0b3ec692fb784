"""Text to subwords and back: each library, and what is refused without it."""

import sys

import pytest

from fairseq_seqkd.deployment import subwords
from fairseq_seqkd.deployment.config import SUBWORD_FILE, DeployedConfig
from fairseq_seqkd.errors import Refusal


def config(**more):
    return DeployedConfig("de", "en", "float32", 100, 1.2, 10, 99, **more)


def pipeline(folder, kind, **more):
    return subwords.TextPipeline(
        folder, config(subwords=kind, subword_file=SUBWORD_FILE, post_process="@@ ", **more)
    )


def test_text_that_is_segmented_already_is_split_at_spaces(tmp_path):
    text = subwords.TextPipeline(tmp_path, config(post_process="@@ "))
    assert text.segment("  da@@ s  h\t") == ["da@@", "s", "h"]
    assert text.detokenise(["da@@", "s", "h"]) == "das h"


def test_codes_of_subword_nmt(tmp_path):
    pytest.importorskip("subword_nmt")
    (tmp_path / SUBWORD_FILE).write_text("#version: 0.2\nd a\nda s</w>\n")
    text = pipeline(tmp_path, "subword_nmt")
    assert text.segment("das h") == ["das", "h"] and text.segment("dah") == ["da@@", "h"]
    assert text.detokenise(["da@@", "h", "das"]) == "dah das"
    assert text.detokenise(["das", "da@@"]) == "das da"


def test_codes_of_fastbpe(tmp_path):
    pytest.importorskip("fastBPE")
    (tmp_path / SUBWORD_FILE).write_text("d a 5\nda s</w> 4\n")
    assert pipeline(tmp_path, "fastbpe").segment("das dah") == ["das", "da@@", "h"]


def test_a_model_of_sentencepiece(tmp_path):
    import sentencepiece

    (tmp_path / "text").write_text("das haus ist alt\nich sehe das haus\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "spm.model").rename(tmp_path / SUBWORD_FILE)
    text = pipeline(tmp_path, "sentencepiece")
    segmented = text.segment("das haus")
    assert len(segmented) > 1 and subwords.join(segmented, "sentencepiece") == "das haus"
    assert text.detokenise_source(segmented, "sentencepiece") == "das haus"


def test_moses_around_the_subwords(tmp_path):
    pytest.importorskip("sacremoses")
    text = subwords.TextPipeline(tmp_path, config(tokenizer="moses"))
    assert text.segment("Hallo, Welt!") == ["Hallo", ",", "Welt", "!"]
    assert text.detokenise(["It", "&apos;s", "here", "."]) == "It's here."
    assert text.detokenise_source(["Hallo", ",", "Welt", "!"], None) == "Hallo, Welt!"


@pytest.mark.parametrize(
    "post_process, line",
    [
        (None, "da@@ s \u2581h@@"),
        ("@@ ", "das \u2581h"),
        ("subword_nmt", "das \u2581h"),
        ("sentencepiece", "da@@s h@@"),
    ],
)
def test_subwords_are_joined_as_fairseq_names_it(post_process, line):
    assert subwords.join(["da@@", "s", "\u2581h@@"], post_process) == line


@pytest.mark.parametrize(
    "first_line, kind",
    [("#version: 0.2", "subword_nmt"), ("e n", "subword_nmt"), ("e n</w> 1234", "fastbpe")],
)
def test_codes_are_told_apart(tmp_path, first_line, kind):
    (tmp_path / "codes").write_text(f"{first_line}\na b\n")
    assert subwords.kind_of_codes(tmp_path / "codes") == kind


def test_a_missing_or_damaged_model_is_refused(tmp_path):
    with pytest.raises(Refusal, match="the subword model, is missing"):
        pipeline(tmp_path, "sentencepiece")
    (tmp_path / SUBWORD_FILE).write_bytes(b"\n\n")
    with pytest.raises(Refusal, match="is not a model of sentencepiece"):
        pipeline(tmp_path, "sentencepiece")


@pytest.mark.parametrize(
    "kind, package", [("sentencepiece", "sentencepiece"), ("subword_nmt", "subword-nmt")]
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, kind, package):
    (tmp_path / SUBWORD_FILE).touch()
    for name in ("sentencepiece", "subword_nmt.apply_bpe"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Refusal, match=f"pip install {package}"):
        pipeline(tmp_path, kind)


def test_a_missing_sacremoses_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(Refusal, match="pip install sacremoses"):
        subwords.TextPipeline(tmp_path, config(tokenizer="moses"))
