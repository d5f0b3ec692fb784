"""The n-best list: what a search finds for one sentence, and what selection chooses from."""

from dataclasses import dataclass
from typing import List, Optional

import numpy as np


@dataclass
class Hypothesis:
    """One hypothesis of one sentence."""

    tokens: np.ndarray  # (tokens,) ids of the target dictionary, without the closing EOS
    score: float  # what the search ranks by: log-probability over length^lenpen
    log_prob: float  # in nats, EOS included
    hit_limit: bool  # whether the length limit ended it
    similarity: Optional[float] = None  # to gold; larger is closer
    consensus: Optional[float] = None  # mean similarity to the other hypotheses of the list


NBest = List[Hypothesis]  # the 1-best first
