"""Similarity and choice: each failure of another system (a perfect short match, ties, empty lists) is a case here."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd import selection
from fairseq_seqkd.corpus.hypotheses import Block, Hypothesis

WORDS = st.lists(st.sampled_from(["the", "a", "cat", "dog", "sat", "ran", "on", "mat", ".", ","]), max_size=9).map(" ".join)


@given(hypotheses=st.lists(WORDS, min_size=1, max_size=5), reference=WORDS.filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_scores_are_sacrebleus_own(hypotheses, reference):
    found = selection.Similarity("bleu")(hypotheses, reference)
    expected = [sacrebleu.sentence_bleu(h, [reference], use_effective_order=True).score for h in hypotheses]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)
    chrf = [sacrebleu.sentence_chrf(h, [reference]).score for h in hypotheses]
    assert selection.Similarity("chrf")(hypotheses, reference).tolist() == pytest.approx(chrf, abs=1e-3)
    ter = [-sacrebleu.sentence_ter(h, [reference]).score for h in hypotheses]
    assert selection.Similarity("ter")(hypotheses, reference).tolist() == pytest.approx(ter, abs=1e-3)


@pytest.mark.parametrize("text", ["Guten Morgen .", "Ja", "a b c", "one two"])
def test_a_perfect_short_hypothesis_scores_100(text):
    assert selection.Similarity("bleu")([text], text)[0] == pytest.approx(100.0)


def test_a_hypothesis_with_nothing_right_is_below_one_with_something_right():
    scores = selection.Similarity("bleu")(["x y z", "the dog"], "the cat sat down")
    assert scores[0] == 0.0 < scores[1]


@pytest.mark.parametrize("metric", selection.METRICS)
def test_larger_is_closer_whatever_the_metric(metric):
    far, near, equal = selection.Similarity(metric)(["no word", "the cat sat there", "the cat sat here"], "the cat sat here")
    assert far < near < equal


def test_ties_go_to_the_hypothesis_that_the_teacher_ranks_first():
    assert selection.closest(np.array([1.0, 7.0, 7.0, 7.0], np.float32)) == 1
    assert selection.closest(np.array([0.0, 0.0], np.float32)) == 0


def test_an_empty_list_has_no_choice():
    assert selection.closest(np.array([], np.float32)) == -1


def test_an_empty_gold_line_leaves_the_teachers_favourite():
    scores = selection.Similarity("bleu")(["some words", "other words"], " ")
    assert selection.closest(scores) == 0
    scores = selection.Similarity("bleu")(["some words", ""], "")
    assert selection.closest(scores) == 1


def test_an_empty_hypothesis_is_worth_nothing():
    assert selection.Similarity("bleu")(["", "the"], "the cat").tolist()[0] == 0.0


@pytest.mark.parametrize(
    "language,expected",
    [("zh", "zh"), ("zh_CN", "zh"), ("zho_Hans", "zh"), ("ja", "char"), ("th", "char"), ("de", "13a"), ("eng_Latn", "13a")],
)
def test_the_tokenizer_follows_the_language(language, expected):
    assert selection.tokenizer_for(language) == expected
    assert f"tok:{expected}" in selection.Similarity("bleu", language).describe()["settings"]


def test_languages_without_spaces_are_told_apart():
    scores = selection.Similarity("bleu", "ja")(["猫が座った", "犬が走った"], "猫が座った")
    assert scores[0] == pytest.approx(100.0) and 0 < scores[1] < 100


def test_blocks_are_chosen_from_row_by_row():
    def hypothesis(similarity):
        return Hypothesis(np.array([5]), 0.0, 0.0, False, similarity)

    block = Block.from_lists([[hypothesis(1), hypothesis(3)], [], [hypothesis(2), hypothesis(2)]], np.uint16, True)
    assert selection.mode(block).tolist() == [0, -1, 0]
    assert selection.nearest_to_gold(block).tolist() == [1, -1, 0]
