"""Whether one system is better than another, or was lucky with its sentences: sacrebleu's paired bootstrap test of BLEU.

Systems are compared seed by seed, a system without a seed (a teacher) with every seed of the others; with the same search,
and greedy search against the other's beam, which is what the paper's claim is about.
"""

import os
from itertools import combinations

SEARCHES = ("greedy", "beam5")


def pairs(systems):
    """[(a, search of a, b, search of b)] of all comparisons, indices into `systems`, whose items are (name, seed, ...)."""
    found = []
    for a, b in combinations(range(len(systems)), 2):
        (name_a, seed_a), (name_b, seed_b) = systems[a][:2], systems[b][:2]
        if name_a != name_b and (seed_a == seed_b or None in (seed_a, seed_b)):
            found += [(b, search, a, search) for search in SEARCHES]
            found += [(b, "greedy", a, "beam5"), (a, "greedy", b, "beam5")]
    return found


def compare(systems, references, tokenizer, progress=lambda tests: tests):
    """The comparisons of `pairs`, a dictionary each for JSON.

    Args: systems: [(name, seed or None, {search: [text of every sentence]}, hash of the checkpoint)]; references: [text];
    tokenizer: sacrebleu's; progress: a list -> the same, to show how far it is.

    difference is BLEU of a minus BLEU of b; p_value the probability of at least such a difference by chance, were they equal
    (Koehn 2004), 1,000 resamples, seed 12345 or SACREBLEU_SEED. No difference has p = 1, where sacrebleu counts what is larger
    than it; of a single sentence there are no resamples, and no comparisons.
    """
    if len(references) < 2:
        return []
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    wanted, found = {}, []
    for a, search_a, b, search_b in pairs(systems):
        wanted.setdefault((b, search_b), []).append((a, search_a))
    metric = BLEU(tokenize=tokenizer, force=True, references=[references])
    for (b, search_b), others in progress([*wanted.items()]):
        texts = [systems[b][2][search_b], *(systems[a][2][search_a] for a, search_a in others)]
        named = [(str(number), text) for number, text in enumerate(texts)]
        signatures, scores = PairedTest(named, {"BLEU": metric}, None, test_type="bs")()
        base, *scores = scores["BLEU"]
        for (a, search_a), score in zip(others, scores):
            found.append(
                {
                    "a": systems[a][0], "search_a": search_a, "b": systems[b][0], "search_b": search_b,
                    "seed": systems[b][1] if systems[a][1] is None else systems[a][1],
                    "checkpoint_a": systems[a][3], "checkpoint_b": systems[b][3],
                    "difference": score.score - base.score, "p_value": score.p_value if score.score != base.score else 1.0,
                    "signature": str(signatures["BLEU"]),
                }
            )  # fmt: skip
    return found


def seed_of_the_test():
    """What decides the resamples, besides the texts."""
    return os.environ.get("SACREBLEU_SEED", "12345")


def between(found, a, search_a, b, search_b):
    """{seed: (BLEU of a minus BLEU of b, p)} of the comparisons of two systems, whichever of the two was named first."""
    mine, theirs = (a, search_a), (b, search_b)
    tests = {}
    for pair in found:
        sides = (pair["a"], pair["search_a"]), (pair["b"], pair["search_b"])
        if sides in ((mine, theirs), (theirs, mine)):
            sign = 1 if sides[0] == mine else -1
            tests[pair["seed"]] = sign * pair["difference"], pair["p_value"]
    return tests
