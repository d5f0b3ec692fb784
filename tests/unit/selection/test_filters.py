"""Every filter against a loop by hand over random sentences, and its limits by hand."""

import math
from collections import Counter
from dataclasses import fields
from types import SimpleNamespace
from typing import Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection import filters
from fairseq_seqkd.selection.filters import Ragged

IDS = st.lists(st.integers(3, 7), max_size=12)
SAME = np.array(
    [0, 1, 2, -1, 5, 4, 6, -1, 9]
)  # source id -> target id: 3 and 7 have no counterpart, 4 and 5 change places


def by_hand(rule, limit, target, source, log_prob):
    longer, shorter = max(len(target), len(source)), min(len(target), len(source))
    if rule == "length_ratio":
        return longer > 0 and (shorter == 0 or longer / shorter > limit)
    if rule == "copy":
        translated = Counter(int(SAME[i]) for i in source if SAME[i] >= 0)
        return longer > 0 and sum((Counter(target) & translated).values()) / longer >= limit
    if rule == "repeats":
        spans = [(i, n) for n in (1, 2, 3, 4) for i in range(len(target) - n + 1)]
        return any(target[i : i + n] * limit == target[i : i + n * limit] for i, n in spans)
    if rule == "score":
        return log_prob / (len(target) + 1) < limit
    return not target


@given(
    sentences=st.lists(
        st.tuples(st.lists(st.tuples(IDS, st.floats(-40, 0, width=32)), max_size=3), IDS),
        max_size=8,
    ),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_filters_are_loops_by_hand(sentences, data):
    rules = {
        "length_ratio": data.draw(st.sampled_from([1.1, 1.5, 2.0, 3.0])),
        "copy": data.draw(st.sampled_from([0.1, 0.5, 2 / 3, 1.0])),
        "repeats": data.draw(st.integers(2, 4)),
        "score": data.draw(st.floats(-5, -0.5)),
        "empty": True,
    }
    nbests = [
        [Hypothesis(np.array(t, np.uint16), 0.0, p, False) for t, p in hypotheses]
        for hypotheses, _ in sentences
    ]
    block = Block.from_lists(nbests, np.dtype(np.uint16), with_similarity=False)
    chosen = np.array(
        [data.draw(st.integers(-1 if nbest else -1, len(nbest) - 1)) for nbest in nbests], np.int64
    )
    source = Ragged.of([ids for (_, ids), rank in zip(sentences, chosen) if rank >= 0])
    failed = filters.failures(rules, block, chosen, source, SAME)
    assert sorted(failed) == sorted(filters.FILTERS)
    for rule, limit in rules.items():
        expected = [
            rank >= 0 and by_hand(rule, limit, hypotheses[rank][0], ids, hypotheses[rank][1])
            for (hypotheses, ids), rank in zip(sentences, chosen)
        ]
        assert failed[rule].tolist() == expected, rule


@pytest.mark.parametrize(
    "target,times,expected",
    [
        ([5, 5], 2, True),
        ([5, 5], 3, False),
        ([5, 6, 5, 6], 2, True),
        ([5, 6, 5], 2, False),
        ([4, 5, 6, 7, 4, 5, 6, 7], 2, True),
        ([3, 4, 5, 6, 7, 3, 4, 5, 6, 7], 2, False),  # five tokens are no fault
        ([9, 5, 6, 5, 6, 5, 6, 9], 3, True),
        ([5, 6, 5, 6, 5], 3, False),
        ([], 2, False),
    ],
)
def test_repetitions(target, times, expected):
    assert filters.repeats(Ragged.of([target]), times).tolist() == [expected]


def test_a_repetition_does_not_run_over_the_end_of_a_sentence():
    assert filters.repeats(Ragged.of([[5], [5], [], [5, 6], [5, 6], [7, 7]]), 2).tolist() == [
        False
    ] * 5 + [True]


def test_limits_themselves_are_kept_or_dropped_as_said():
    ratio = filters.length_ratio(
        np.array([4, 8, 2, 1, 9, 0, 0, 3]), np.array([4, 4, 4, 3, 4, 0, 3, 0])
    )
    assert (ratio > 2).tolist() == [False, False, False, True, True, False, True, True]
    share = filters.shared(Ragged.of([[4, 4, 6, 6]]), Ragged.of([[5, 5, 5, 7]]), SAME)
    assert share.tolist() == [0.5]  # two of the three; 7 has no counterpart


def test_symbols_are_compared_and_unknown_words_are_never_the_same():
    def dictionary(*symbols):
        return SimpleNamespace(symbols=["<s>", "<pad>", "</s>", "<unk>", *symbols], unk=lambda: 3)

    assert filters.same_symbols(dictionary("a", "b", "c"), dictionary("c", "x", "a")).tolist() == [
        0,
        1,
        2,
        -1,
        6,
        -1,
        4,
    ]


def configuration(**limits):
    """A configuration of the task with these filters on."""
    off = {row.field: False if row.type is bool else None for row in filters.FILTERS.values()}
    return SimpleNamespace(**{**off, **limits})


@pytest.mark.parametrize(
    "name,valid,invalid",
    [
        ("length_ratio", (1.5, 3.0), (1.0, 0.5, -2.0, math.inf, math.nan)),
        ("copy", (0.1, 1.0), (0.0, 1.1, -0.5, math.nan)),
        ("repeats", (2, 5), (1, 0, -3)),
        ("score", (-2.5, -0.1), (0.0, 2.5, -math.inf, math.nan)),
        ("empty", (True,), ()),
    ],
)
def test_limits_that_would_drop_everything_or_nothing_are_refused(name, valid, invalid):
    row = filters.FILTERS[name]
    for limit in valid:
        row.check(limit)
    for limit in invalid:
        with pytest.raises(Refusal, match=f"{row.option()} is {limit}, it must be"):
            row.check(limit)


def test_the_manifest_keeps_the_filters_that_are_on():
    assert filters.limits_of(configuration()) == {}
    assert filters.limits_of(configuration(filter_copy=0.0)) == {"copy": 0.0}  # to be refused
    assert filters.limits_of(configuration(filter_score=-2.5, filter_empty=True)) == {
        "score": -2.5,
        "empty": True,
    }


def test_a_filter_is_written_as_its_option():
    assert filters.FILTERS["length_ratio"].option(2.0) == "--filter-length-ratio 2.0"
    assert filters.FILTERS["empty"].option(True) == "--filter-empty"


def test_the_task_has_an_option_for_each_filter():
    from fairseq_seqkd.decoding.config import OF_SELECTION, TeacherDecodingConfig

    options = {o.name: o for o in fields(TeacherDecodingConfig) if o.name.startswith("filter_")}
    assert sorted(options) == sorted(row.field for row in filters.FILTERS.values())
    assert set(options) < OF_SELECTION
    for row in filters.FILTERS.values():
        option = options[row.field]
        assert option.type == (bool if row.type is bool else Optional[row.type])
        assert option.metadata["help"] == row.help
