"""Why a teacher's translations are easier to learn than gold: lengths, vocabulary, duplicates, and how free translation is.

The last is the complexity of Zhou, Gu and Neubig (ICLR 2020, "Understanding Knowledge Distillation in Non-autoregressive
Machine Translation", section 3): C = 1/|V_x| * sum over source symbols x of H(y | x), where p(y | x) is counted over
alignments of single symbols. Theirs come from fast_align, ours from IBM Model 1 (Brown et al. 1993), over subwords, in nats.
"""

import zlib

import numpy as np

from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.views import ROWS

ITERATIONS = 5  # of EM
LINKS = 4_000_000  # source-target pairs that are aligned at most, which bounds memory and time
NULL = 0  # the source symbol of what nothing in the source explains


def of_directory(gold, places):
    """{name: statistics} of data-bins that hold the same split, aligned over the same sentences.

    Args: gold: the databin.Split of the first; places: [(name, folder)], gold's own and those of views, which may lack rows.
    """
    splits = [(name, Split(folder, gold.name, gold.languages)) for name, folder in places]
    sides = [gold.read(lang) for lang in gold.languages]  # held, or fairseq unmaps their sizes
    wanted = sample(*(np.asarray(side.sizes, np.int64) for side in sides))
    rows = {
        name: np.load(split.folder / ROWS)
        for name, split in splits
        if (split.folder / ROWS).is_file()
    }
    for kept in rows.values():
        wanted = wanted[np.isin(wanted, kept)]
    return {
        name: of_split(split, np.searchsorted(rows[name], wanted) if name in rows else wanted)
        for name, split in splits
    }


def of_split(split, aligned):
    """The statistics of a databin.Split, a dictionary for JSON; EOS is no token here. Args: aligned: rows that are aligned.

    tokens: target tokens a sentence, the mean; ratio: target tokens for a source token; vocabulary: target symbols that
    occur; duplicates: share of the targets that an earlier sentence has too; complexity: nats, over `aligned` sentences.
    """
    source, target = (split.read(lang) for lang in split.languages)
    sentences = len(target)
    sizes = [np.asarray(side.sizes, np.int64) - 1 for side in (source, target)]
    seen, digests = np.zeros(1, bool), np.zeros(sentences, np.uint64)
    for i in range(sentences):
        row = np.asarray(target[i])[:-1]
        if len(row) and row.max() >= len(seen):
            seen = np.concatenate([seen, np.zeros(int(row.max()) + 1 - len(seen), bool)])
        seen[row] = True
        data = row.tobytes()
        digests[i] = zlib.crc32(data) << 32 | zlib.adler32(data)
    pairs = [(np.asarray(source[i])[:-1], np.asarray(target[i])[:-1]) for i in aligned.tolist()]
    return {
        "sentences": sentences,
        "tokens": float(sizes[1].mean()),
        "ratio": float(sizes[1].sum() / max(sizes[0].sum(), 1)),
        "vocabulary": int(seen.sum()),
        "duplicates": 1 - len(np.unique(digests)) / sentences,
        "complexity": complexity(pairs),
        "aligned": len(pairs),
    }


def sample(source_sizes, target_sizes):
    """Ids of sentences, evenly spread, of about as many links as are aligned. Sizes count EOS, as NULL does."""
    links = float((source_sizes * target_sizes).sum())
    return np.arange(0, len(source_sizes), max(1, int(np.ceil(links / LINKS))))


def complexity(pairs):
    """C of Zhou et al. (2020), nats. Args: pairs: [(source ids, target ids)] of sentences, arrays.

    Every target token is aligned to the source symbol that most probably made it, under Model 1.
    """
    x, y, token = links(pairs)
    if not len(x):
        return 0.0
    width = int(y.max()) + 1
    kinds, kind = np.unique(x.astype(np.int64) * width + y, return_inverse=True)
    probability = expectation_maximisation(kinds // width, kind, token)
    best = best_links(probability[kind], token)
    counts = np.bincount(kind[best], minlength=len(kinds)).astype(float)
    return entropy(kinds // width, counts)


def links(pairs):
    """(source symbol, target symbol, target token) of every possible alignment; source symbols begin at 1, after NULL."""
    xs, ys, tokens, first = [], [], [], 0
    for source, target in pairs:
        m, n = len(source) + 1, len(target)
        xs.append(np.tile(np.concatenate([[NULL], np.asarray(source, np.int64) + 1]), n))
        ys.append(np.repeat(np.asarray(target, np.int64), m))
        tokens.append(np.repeat(np.arange(first, first + n), m))
        first += n
    return tuple(
        np.concatenate(part) if part else np.zeros(0, np.int64) for part in (xs, ys, tokens)
    )


def expectation_maximisation(source_of_kind, kind, token):
    """t(y | x) of Model 1 for every kind of link, a pair (x, y). Starts uniform, so the result is the same every time."""
    tokens = int(token[-1]) + 1
    t = np.ones(len(source_of_kind))
    for _ in range(ITERATIONS):
        weights = t[kind]
        weights /= np.bincount(token, weights, tokens)[token]
        counts = np.bincount(kind, weights, len(t))
        t = counts / np.bincount(source_of_kind, counts)[source_of_kind]
    return t


def best_links(weights, token):
    """The index of the heaviest link of every target token, the first of equals."""
    order = np.lexsort(
        (-weights, token)
    )  # stable: links of a token stay together, the heaviest comes first
    return order[np.flatnonzero(np.diff(token[order], prepend=-1))]


def entropy(source_of_kind, counts):
    """The mean over source symbols, NULL left out, of the entropy of what they are aligned to; symbols without links too."""
    totals = np.bincount(source_of_kind, counts)
    share = counts / np.maximum(totals[source_of_kind], 1)
    terms = np.where(share > 0, -share * np.log(np.where(share > 0, share, 1)), 0)
    per_symbol = np.bincount(source_of_kind, terms)
    present = np.unique(source_of_kind)
    present = present[present != NULL]
    return float(per_symbol[present].mean()) if len(present) else 0.0
