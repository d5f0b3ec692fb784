"""Sentence BLEU of many texts, with sacrebleu's tokenizers and formula, and the counting done here: `selection` uses it.

sacrebleu counts the n-grams of both sides again for every pair. Here a text is tokenised and cut once, n-grams are only
looked up, and equal counts are scored once. The numbers are sacrebleu's to the last bit, since its own `compute_bleu`
makes them out of the same integers.
"""

from collections import Counter
from functools import lru_cache
from itertools import chain

import numpy as np

ORDERS = 4
REMEMBERED = 1 << 16  # words, and scores of counts; some 20 MB each when full

# Words that a tokenizer would treat otherwise at an edge of the line, if it looked across spaces.
EDGES = (
    "a. , .5 5. -5 5- 1-2 1.2 1,2 1.a a.1 .,. ,., 5., ,5 .- -. &amp; &quot;.&lt;5 <skipped> a<skipped>. '' ' 's \"x\" (a) [1] "
    "\u00e9. \u4e00. .\u4e00 \u3002 \u0665. x/y a+b= 5% $5 @- -@ ... 3-.-3 .5.5. ~ {} `` _ ^ | \\ : ; ? ! # *"
)


class SentenceBLEU:
    """BLEU of texts against a reference, or against each other. Args: scorer: sacrebleu's BLEU, its order four."""

    def __init__(self, scorer):
        self.scorer = scorer
        self.score = lru_cache(REMEMBERED)(self._score)
        self.word = lru_cache(REMEMBERED)(self._tokenised)
        self.word_by_word = tokenises_word_by_word(scorer.tokenizer)

    def _score(self, length, reference_length, *correct):
        total = [max(length - n, 0) for n in range(ORDERS)]
        return self.scorer.compute_bleu(
            list(correct), total, length, reference_length, self.scorer.smooth_method, self.scorer.smooth_value,
            self.scorer.effective_order, ORDERS,
        ).score  # fmt: skip

    def _tokenised(self, text):
        return tuple(self.scorer._preprocess_segment(text).split())

    def tokens(self, text):
        """A text's tokens, as a tuple."""
        if not self.word_by_word or "\n" in text:
            return self._tokenised(text)
        return tuple(chain.from_iterable(map(self.word, text.split())))

    def against(self, texts, reference):
        """Scores of texts against one reference, as a list."""
        reference = self.tokens(reference)
        known = [known_ngrams(grams) for grams in ngrams(reference)]
        found = []
        for text in texts:
            tokens = self.tokens(text)
            found.append(self.score(len(tokens), len(reference), *matches(ngrams(tokens), known)))
        return found

    def among(self, texts):
        """Scores of texts against each other, as a list of lists: [i][j] is text i against reference j."""
        texts = [self.tokens(text) for text in texts]
        lengths = [len(tokens) for tokens in texts]
        counts = np.stack([common(grams) for grams in zip(*map(ngrams, texts))], axis=-1).tolist()
        score = self.score
        return [
            [score(mine, other, *n) for other, n in zip(lengths, row)]
            for mine, row in zip(lengths, counts)
        ]


def ngrams(tokens):
    """The n-grams of a tuple of tokens: an iterator for each order."""
    later = [tokens[start:] for start in range(ORDERS)]
    return [zip(*later[:order]) for order in range(1, ORDERS + 1)]


def known_ngrams(grams):
    """(set of a reference's n-grams, {n-gram: times} of those that it has more than once: few, and often none)."""
    counts = Counter(grams)
    return set(counts), {gram: times for gram, times in counts.items() if times > 1}


def matches(grams, known):
    """How many n-grams of each order are also in the reference, each at most as often as there (clipped counts).

    Args: grams: each order's n-grams; known: each order's known_ngrams of the reference.
    """
    found = [0] * ORDERS
    for order, (mine, (once, repeated)) in enumerate(zip(grams, known)):
        if repeated:
            mine = list(mine)
        hits = len(once.intersection(mine))
        if not hits:
            break  # an n-gram that is there has its parts there
        for gram, times in repeated.items():
            hits += max(min(mine.count(gram), times) - 1, 0)
        found[order] = hits
    return found


def common(texts):
    """(n, n) integers: how many n-grams two texts have in common, clipped. Args: texts: each text's n-grams of one order."""
    ids = {}
    flat = [[ids.setdefault(gram, len(ids)) for gram in grams] for grams in texts]
    lengths = [len(grams) for grams in flat]
    cells = np.repeat(np.arange(len(flat)) * len(ids), lengths) + np.fromiter(
        (i for grams in flat for i in grams), np.int64
    )
    counts = np.bincount(cells, minlength=len(flat) * len(ids)).reshape(len(flat), len(ids))
    found = np.zeros(
        (len(flat), len(flat)), np.float32
    )  # exact below 2^24, and there is a fast product for it
    for level in range(
        1, int(counts.max(initial=0)) + 1
    ):  # min(a, b) is the number of levels that both reach
        reached = (counts >= level).astype(np.float32)
        found += reached @ reached.T
    return found.astype(np.int64)


def tokenises_word_by_word(tokenizer):
    """Whether a line's tokens are those of its words, so that words can be tokenised once and remembered.

    True of sacrebleu's "13a" for lines without newline: each of its patterns looks at one character beside a
    punctuation mark, and at an edge of the line it puts a space there. Not true of "zh", which does not. Looked at
    here again, so that another version of sacrebleu is only slower.
    """
    if tokenizer.signature() != "13a":
        return False
    words = EDGES.split()
    lines = [first + " " + second for first in words for second in words] + [EDGES]
    return all(
        tokenizer(line).split() == [t for word in line.split() for t in tokenizer(word).split()]
        for line in lines
    )
