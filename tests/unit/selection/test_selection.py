"""Similarity and choice: each failure of another system (a perfect short match, ties, empty lists)
is a case here.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.selection import choose
from fairseq_seqkd.selection.similarity import METRICS as NAMES
from fairseq_seqkd.selection.similarity import Similarity, tokenizer_for

WORDS = st.lists(
    st.sampled_from(["the", "a", "cat", "dog", "sat", "ran", "on", "mat", ".", ","]), max_size=9
).map(" ".join)


# What tokenizers treat specially, where it matters: at the edges of words and lines, doubled, and
# beside other scripts.
HARD = st.text(
    alphabet=list("ab15.,-&;<>'\"()%$ \t\n\u3000\u4e2d\u6587\u3002\u00e9\ue000"), max_size=24
)
PIECES = st.sampled_from(
    [
        "&quot;",
        "&amp;",
        "<skipped>",
        "3.5",
        ".5",
        "5-",
        "-5",
        "a.",
        "the",
        "the",
        " ",
        " ",
        "\u4e2d",
        ".",
    ]
)
TEXTS = st.one_of(WORDS, HARD, st.lists(PIECES, max_size=14).map("".join))
METRICS = [
    ("bleu", "13a"),
    ("bleu", "zh"),
    ("bleu", "char"),
    ("bleu", "intl"),
    ("chrf", None),
    ("ter", None),
]


def by_sentence_score(metric, hypotheses, reference):
    """sacrebleu's own public function, hypothesis by hypothesis."""
    scores = [
        metric.scorer.sentence_score(hypothesis, [reference]).score for hypothesis in hypotheses
    ]
    return np.float32([-score for score in scores] if metric.metric == "ter" else scores)


@pytest.fixture(scope="module", params=METRICS, ids=lambda found: "-".join(filter(None, found)))
def metric(request):
    return Similarity(request.param[0], tokenizer=request.param[1])


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_scores_are_sacrebleus_own_to_the_last_bit(metric, data):
    hypotheses, reference = (
        data.draw(st.lists(TEXTS, min_size=1, max_size=6)),
        data.draw(TEXTS.filter(str.strip)),
    )
    found = metric(hypotheses, reference)
    assert (
        found.dtype == np.float32
        and found.tobytes() == by_sentence_score(metric, hypotheses, reference).tobytes()
    )


@given(
    texts=st.lists(st.one_of(WORDS, WORDS, TEXTS), min_size=2, max_size=6),
    copies=st.lists(st.integers(0, 5), max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_the_consensus_is_the_mean_over_the_others(metric, texts, copies):
    """A loop over all pairs of the list, repeated texts and all, with sacrebleu's own function."""
    texts = texts + [texts[i % len(texts)] for i in copies]
    found = metric.consensus(texts)
    for i, text in enumerate(texts):
        expected = [one_score(metric, text, other) for j, other in enumerate(texts) if j != i]
        assert found[i] == pytest.approx(np.mean(expected), abs=1e-4)
        assert found[i] == found[texts.index(text)]


def one_score(metric, hypothesis, reference):
    if metric.metric != "ter" and not reference.strip():
        return 0.0 if hypothesis.strip() else 100.0
    return by_sentence_score(metric, [hypothesis], reference)[0]


def test_scores_of_real_text_are_sacrebleus_own(metric):
    """Neighbouring lines of a corpus and lines with words taken out, against each other."""
    folder = os.environ.get("SEQKD_CORPORA")
    if not folder or not (Path(folder) / "multi30k").is_dir():
        pytest.skip("SEQKD_CORPORA names no folder with multi30k")
    for lang in ("en", "de"):
        with gzip.open(
            Path(folder) / "multi30k" / f"test_2016_flickr.{lang}.gz", "rt", encoding="utf-8"
        ) as file:
            lines = [line.strip() for line in file][:120]
        for i in range(0, len(lines) - 8, 8):
            words = lines[i].split()
            hypotheses = lines[i : i + 4] + [
                " ".join(words[:j] + words[j + 1 :]) for j in range(0, len(words), 3)
            ]
            expected = by_sentence_score(metric, hypotheses, lines[i])
            assert metric(hypotheses, lines[i]).tobytes() == expected.tobytes()


@pytest.mark.trap(12)
@pytest.mark.parametrize("name", NAMES)
def test_equal_texts_are_scored_once(name, monkeypatch):
    metric, asked = Similarity(name), []
    kind = type(metric.scorer)
    real = kind._compute_score_from_stats
    monkeypatch.setattr(
        kind,
        "_compute_score_from_stats",
        lambda self, stats: asked.append(stats) or real(self, stats),
    )
    if name == "bleu":
        against = metric.bleu.against
        metric.bleu.against = lambda texts, reference: (
            asked.extend(texts) or against(texts, reference)
        )
    scores = metric(["a b", "a c", "a b", "a b"], "a b c")
    assert len(asked) == 2 and scores[0] == scores[2] == scores[3]


def test_the_consensus_of_a_list_is_its_centre_and_a_repeated_text_weighs_more():
    metric = Similarity("bleu")
    texts = [
        "dogs run",
        "the cat sat on the mat",
        "the cat sat on a mat",
        "the cat sits on the mat",
    ]
    assert choose.closest(metric.consensus(texts)) == 1
    assert choose.closest(metric.consensus(texts + ["dogs run"] * 5)) == 0
    assert metric.consensus(["a b c", "a b c"]).tolist() == pytest.approx([100.0, 100.0])
    assert metric.consensus(["alone"]).tolist() == [0.0] and metric.consensus([]).tolist() == []
    assert metric.consensus(["", "", "a"]).tolist() == [50.0, 50.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_equals_in_consensus_go_to_the_hypothesis_that_the_teacher_ranks_first(name):
    """Texts with nothing in common, in every order: all are equal, so the first is taken."""
    texts = [
        "one two three",
        "vier funf sechs",
        "sept huit neuf",
        "dieci undici dodici",
        "trece catorce quince",
    ]
    for i in range(5):
        scores = Similarity(name).consensus(texts[i:] + texts[:i])
        if name == "bleu":
            assert len(set(scores.tolist())) == 1 and choose.closest(scores) == 0


@pytest.mark.parametrize("text", ["Guten Morgen .", "Ja", "a b c", "one two"])
def test_a_perfect_short_hypothesis_scores_100(text):
    assert Similarity("bleu")([text], text)[0] == pytest.approx(100.0)


def test_a_hypothesis_with_nothing_right_is_below_one_with_something_right():
    scores = Similarity("bleu")(["x y z", "the dog"], "the cat sat down")
    assert scores[0] == 0.0 < scores[1]


@pytest.mark.parametrize("metric", NAMES)
def test_larger_is_closer_whatever_the_metric(metric):
    far, near, equal = Similarity(metric)(
        ["no word", "the cat sat there", "the cat sat here"], "the cat sat here"
    )
    assert far < near < equal


def test_ties_go_to_the_hypothesis_that_the_teacher_ranks_first():
    assert choose.closest(np.array([1.0, 7.0, 7.0, 7.0], np.float32)) == 1
    assert choose.closest(np.array([0.0, 0.0], np.float32)) == 0


def test_an_empty_list_has_no_choice():
    assert choose.closest(np.array([], np.float32)) == -1


def test_an_empty_gold_line_leaves_the_mode():
    scores = Similarity("bleu")(["some words", "other words"], " ")
    assert choose.closest(scores) == 0
    scores = Similarity("bleu")(["some words", ""], "")
    assert choose.closest(scores) == 1


def test_an_empty_hypothesis_is_worth_nothing():
    assert Similarity("bleu")(["", "the"], "the cat").tolist()[0] == 0.0


@pytest.mark.parametrize(
    "language,expected",
    [
        ("zh", "zh"),
        ("zh_CN", "zh"),
        ("zho_Hans", "zh"),
        ("ja", "char"),
        ("th", "char"),
        ("de", "13a"),
        ("eng_Latn", "13a"),
    ],
)
def test_the_tokenizer_follows_the_language(language, expected):
    assert tokenizer_for(language) == expected
    assert f"tok:{expected}" in Similarity("bleu", language).describe()["settings"]


def test_languages_without_spaces_are_told_apart():
    scores = Similarity("bleu", "ja")(["猫が座った", "犬が走った"], "猫が座った")
    assert scores[0] == pytest.approx(100.0) and 0 < scores[1] < 100


def test_blocks_are_chosen_from_row_by_row():
    def hypothesis(similarity):
        return Hypothesis(np.array([5]), 0.0, 0.0, False, similarity, -similarity)

    block = Block.from_lists(
        [[hypothesis(1), hypothesis(3)], [], [hypothesis(2), hypothesis(2)]], np.uint16, True, True
    )
    assert choose.mode(block).tolist() == [0, -1, 0]
    assert choose.nearest_to_gold(block).tolist() == [1, -1, 0]
    assert choose.consensus(block).tolist() == [0, -1, 0]
