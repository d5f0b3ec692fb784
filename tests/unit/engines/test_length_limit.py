"""The length limit of a search, and the options that set it."""

import math

import numpy as np
import pytest

from fairseq_seqkd.corpus.plan import too_long
from fairseq_seqkd.engines.length_limit import LengthLimit, check_length_options
from fairseq_seqkd.errors import Refusal


@pytest.mark.parametrize(
    "limit,source_tokens,expected",
    [
        (LengthLimit(0, 200, 1023), 7, 200),
        (LengthLimit(1.2, 10, 1023), 6, 17),  # 17.2 is rounded down
        (LengthLimit(2, 0, 9), 4, 8),
        (LengthLimit(2, 0, 9), 5, 9),  # the model has no more positions
    ],
)
def test_a_limit_grows_with_the_source_up_to_the_positions(limit, source_tokens, expected):
    assert limit.of(source_tokens) == expected
    assert isinstance(limit.of(source_tokens), int)


@pytest.mark.parametrize("max_len_a,max_len_b,min_len", [(0, 1, 1), (0.5, 0.5, 0), (1, 4, 5)])
def test_options_that_leave_room(max_len_a, max_len_b, min_len):
    check_length_options(max_len_a, max_len_b, min_len)


@pytest.mark.parametrize(
    "max_len_a,max_len_b,min_len",
    [(0, 0, 1), (-1, 10, 1), (2, -1, 1), (1, 4, 6), (math.inf, 0, 1), (math.nan, 5, 1)],
)
def test_options_that_leave_no_room_are_refused(max_len_a, max_len_b, min_len):
    with pytest.raises(Refusal, match="leave no room for a translation"):
        check_length_options(max_len_a, max_len_b, min_len)


def test_sentences_that_exceed_the_positions_of_either_side_are_too_long():
    source, target = np.array([4, 5, 6, 5]), np.array([9, 9, 9, 10])
    assert too_long([source, target], [5, 9]).tolist() == [False, False, True, True]
    assert too_long([source, target], [5, None]).tolist() == [False, False, True, False]
    assert too_long([source], [None]).tolist() == [False] * 4
    assert too_long([np.zeros(0, np.int64)], [3]).tolist() == []
