"""Joins the subwords of Figure 2's texts as the decode did."""

import pytest
from fairseq.data import Dictionary

from fairseq_seqkd.corpus.settings import SimilaritySettings
from fairseq_seqkd.report.figure2 import post_processes

SYMBOLS = {"sentencepiece": ["▁Haus", "boot"], "@@ ": ["Haus@@", "boot"], None: ["Haus", "boot"]}


def dictionary(post_process):
    """Returns a dictionary whose symbols suggest a post-processing."""
    made = Dictionary()
    for symbol in SYMBOLS[post_process]:
        made.add_symbol(symbol)
    return made


@pytest.mark.parametrize(
    "setting, bpe, suggested, expected",
    [
        # The decode took what the target's dictionary suggests: each side by its own.
        ("sentencepiece", None, ("@@ ", "sentencepiece"), ("@@ ", "sentencepiece")),
        (None, None, ("@@ ", None), ("@@ ", None)),
        # The user gave --post-process, for both sides; 'none' is None in the manifest.
        ("subword_nmt", None, ("@@ ", "@@ "), ("subword_nmt", "subword_nmt")),
        (None, None, ("@@ ", "sentencepiece"), (None, None)),
        # --bpe joins subwords, and its files are not at hand.
        (None, "subword_nmt", ("@@ ", "@@ "), ("@@ ", "@@ ")),
    ],
)
def test_subwords_are_joined_as_in_the_decode(setting, bpe, suggested, expected):
    similarity = SimilaritySettings(
        metric="bleu", sacrebleu="2", settings="s", post_process=setting, bpe=bpe,
        tokenizer_undone=None,
    )  # fmt: skip
    assert post_processes(similarity, [dictionary(side) for side in suggested]) == expected
