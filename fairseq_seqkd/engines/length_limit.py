"""The length limit of a search, as fairseq defines it, for engines and deployed students."""

import math
from typing import NamedTuple

from fairseq_seqkd.errors import Refusal


class LengthLimit(NamedTuple):
    """The number of target tokens at which a search ends: min(a * n + b, positions)."""

    a: float  # --max-len-a: target tokens per source token
    b: float  # --max-len-b: target tokens in addition
    positions: int  # of the longest target that the model can write, without its EOS

    def of(self, source_tokens: int) -> int:
        """Returns the target tokens before EOS, for a source of n tokens with its EOS.

        fairseq has one limit for a batch: n is the width of its padded sources.
        """
        return min(int(self.a * source_tokens + self.b), self.positions)


def check_length_options(max_len_a: float, max_len_b: float, min_len: int = 1) -> None:
    """Raises Refusal for options of fairseq under which a source of one token has no translation.

    Neither may be negative, infinite or NaN.
    """
    shortest = max(min_len, 1)
    is_valid = 0 <= max_len_a < math.inf and 0 <= max_len_b < math.inf
    if not (is_valid and max_len_a + max_len_b >= shortest):
        reason = f" of --min-len {min_len}" if min_len > 1 else ""
        raise Refusal(
            f"--max-len-a {max_len_a} and --max-len-b {max_len_b} leave no room for a translation"
            f"{reason}; neither may be negative, and their sum must be at least {shortest}"
        )
