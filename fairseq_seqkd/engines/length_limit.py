"""The length limit of a search, as fairseq defines it. Both engines, evaluation and deployment use it."""

import math
from typing import NamedTuple

from fairseq_seqkd.errors import Refusal


class LengthLimit(NamedTuple):
    """The number of target tokens at which a search ends: min(a * n + b, positions).

    This module needs neither torch nor fairseq, so that a deployed student starts at once.

    Attributes:
        a: fairseq's ``--max-len-a``, target tokens per source token.
        b: fairseq's ``--max-len-b``, target tokens in addition.
        positions: the longest target that the model can write, without its EOS.
    """

    a: float
    b: float
    positions: int

    def of(self, source_tokens: int) -> int:
        """Returns the limit for a source, in target tokens before EOS.

        Args:
            source_tokens: tokens of the source, EOS included. For a batch, fairseq takes the
                width of its padded sources.
        """
        return min(int(self.a * source_tokens + self.b), self.positions)


def check_length_options(max_len_a: float, max_len_b: float, min_len: int = 1) -> None:
    """Checks that a search can end within its length limit.

    Args:
        max_len_a: fairseq's ``--max-len-a``.
        max_len_b: fairseq's ``--max-len-b``.
        min_len: fairseq's ``--min-len``.

    Raises:
        Refusal: an option is negative or not finite, or a source of one token allows no translation.
    """
    shortest = max(min_len, 1)
    is_valid = 0 <= max_len_a < math.inf and 0 <= max_len_b < math.inf
    if not (is_valid and max_len_a + max_len_b >= shortest):
        reason = f" of --min-len {min_len}" if min_len > 1 else ""
        raise Refusal(
            f"--max-len-a {max_len_a} and --max-len-b {max_len_b} leave no room for a translation"
            f"{reason}; neither may be negative, and their sum must be at least {shortest}"
        )
