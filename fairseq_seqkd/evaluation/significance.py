"""sacrebleu's paired bootstrap test: whether one system is better than another by chance alone.

Systems are compared seed by seed; a system without a seed (a teacher) is compared with every seed
of the others. Both use the same search, or one uses greedy search and the other its beam: the
paper's claim is about the latter.
"""

import os
from itertools import combinations
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from fairseq_seqkd.evaluation.records import SEARCHES, Comparison, Identity

GREEDY, BEAM = SEARCHES


class Outputs(NamedTuple):
    """The translations of a system."""

    identity: Identity
    checkpoint_sha256: Optional[str]
    texts: Dict[str, List[str]]  # search: the text of every sentence


Side = Tuple[int, str]  # the index of a system, and its search


def pairs(identities: Sequence[Identity]) -> List[Tuple[Side, Side]]:
    """Returns the pairs to compare; the later system is the first of a pair, with one exception.

    Greedy search against the beam is compared both ways.
    """
    compared: List[Tuple[Side, Side]] = []
    for a, b in combinations(range(len(identities)), 2):
        (name_a, seed_a), (name_b, seed_b) = identities[a], identities[b]
        if name_a != name_b and (seed_a == seed_b or None in (seed_a, seed_b)):
            compared += [((b, search), (a, search)) for search in SEARCHES]
            compared += [((b, GREEDY), (a, BEAM)), ((a, GREEDY), (b, BEAM))]
    return compared


def compare(
    systems: Sequence[Outputs],
    references: List[str],
    tokenizer: str,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> List[Comparison]:
    """Tests all `pairs`.

    The p-value is the probability of at least such a difference by chance if the systems were
    equal (Koehn 2004): 1,000 resamples, seed 12345 or SACREBLEU_SEED. Equal scores have p = 1,
    where sacrebleu counts what is larger. A single sentence has no resamples: no comparisons.

    Args:
        systems: the outputs of each system.
        references: the text of every sentence.
        tokenizer: that of BLEU, by sacrebleu's name.
        progress: shows a progress bar over a list.
    """
    if len(references) < 2:
        return []
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    by_baseline: Dict[Side, List[Side]] = {}
    for side, baseline in pairs([system.identity for system in systems]):
        by_baseline.setdefault(baseline, []).append(side)
    metric = BLEU(tokenize=tokenizer, force=True, references=[references])
    comparisons = []
    for baseline, sides in progress([*by_baseline.items()]):
        texts = [systems[i].texts[search] for i, search in (baseline, *sides)]
        named = [(str(number), text) for number, text in enumerate(texts)]
        test: Any = PairedTest(named, {"BLEU": metric}, None, test_type="bs")
        signatures, results = test()
        base, *scores = results["BLEU"]
        b = systems[baseline[0]]
        for (i, search), score in zip(sides, scores):
            a, difference = systems[i], score.score - base.score
            comparison = Comparison(
                a=a.identity.name,
                search_a=search,
                b=b.identity.name,
                search_b=baseline[1],
                seed=b.identity.seed if a.identity.seed is None else a.identity.seed,
                checkpoint_a=a.checkpoint_sha256,
                checkpoint_b=b.checkpoint_sha256,
                difference=difference,
                p_value=score.p_value if difference else 1.0,
                signature=str(signatures["BLEU"]),
            )
            comparisons.append(comparison)
    return comparisons


def bootstrap_seed() -> str:
    """Returns the seed of sacrebleu's resamples."""
    return os.environ.get("SACREBLEU_SEED", "12345")
