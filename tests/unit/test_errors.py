"""Refusals: one sentence, or all that is wrong at once."""

import pytest

from fairseq_seqkd.errors import Problems, Refusal, first_line


def test_a_refusal_ends_the_program_with_its_sentence():
    refusal = Refusal("the file is missing; check the path")
    assert refusal.sentence == "the file is missing; check the path"
    assert refusal.code == "fairseq_seqkd: the file is missing; check the path"


def test_problems_are_reported_together():
    problems = Problems()
    problems.refuse()
    for sentence in ("--alpha is 2", "--temperature is 0", "--alpha is 2"):
        with problems.collect():
            raise Refusal(sentence)
    with pytest.raises(Refusal) as refused:
        problems.refuse()
    assert refused.value.sentence == "2 problems:\n  --alpha is 2\n  --temperature is 0"


def test_problems_within_problems_are_one_list():
    inner, outer = Problems(), Problems()
    for sentence in ("--alpha is 2", "--temperature is 0"):
        inner.add(sentence)
    outer.add("--beam is 0")
    with outer.collect():
        inner.refuse()
    assert outer.sentences == ["--beam is 0", "--alpha is 2", "--temperature is 0"]


def test_a_single_problem_is_a_plain_sentence():
    problems = Problems()
    problems.add("--alpha is 2")
    with pytest.raises(Refusal) as refused:
        problems.refuse()
    assert refused.value.sentence == "--alpha is 2"


def test_other_errors_are_not_collected():
    problems = Problems()
    with pytest.raises(ZeroDivisionError), problems.collect():
        1 / 0  # noqa: B018


def test_the_first_line_of_an_error():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
