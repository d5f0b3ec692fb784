"""Similarity to gold, and the choice from an n-best list (Kim & Rush 2016, section 3.3).

Similarity is sacrebleu's, on detokenised text. Between the hypotheses themselves it gives the consensus choice (minimum
Bayes risk; Kumar & Byrne 2004). Decisions that other systems get wrong, and their outcomes here:
  * a perfect hypothesis of three words scores 100: sentence BLEU counts the n-gram orders that exist;
  * equal scores go to the hypothesis that the teacher scores higher, never to a worse one;
  * an empty list has no choice, and an empty gold line makes all hypotheses equal, so the teacher's favourite is taken
    (an empty hypothesis excepted, which then is perfect).
"""

import math

import numpy as np

from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.selection.fast_bleu import SentenceBLEU

SELECTIONS = ("mode", "mbr")  # the teacher's favourite, or the consensus of its list
METRICS = ("bleu", "chrf", "ter")
# Languages written without spaces between words; sacrebleu's own tokenizer where one comes without more software.
# Multilingual teachers name them by three letters.
TOKENIZERS = {
    **{
        "zh": "zh",
        "ja": "char",
        "ko": "char",
        "th": "char",
        "lo": "char",
        "km": "char",
        "my": "char",
    },
    **{
        "zho": "zh",
        "yue": "zh",
        "jpn": "char",
        "kor": "char",
        "tha": "char",
        "lao": "char",
        "khm": "char",
        "mya": "char",
    },
}


def tokenizer_for(language):
    """sacrebleu's tokenizer for a target language: "13a", its default, but for languages without spaces."""
    return TOKENIZERS.get(str(language).split("_")[0].split("-")[0].lower(), "13a")


class Similarity:
    """How close hypotheses are to a reference; larger is closer, whatever the metric.

    Args: metric: "bleu", "chrf" or "ter" (its negative is returned, since TER counts errors); language: of the target,
    for BLEU's tokenizer; tokenizer: one of sacrebleu's, instead of the language's.

    Raises Refusal for a tokenizer that needs what is not installed, or a download that fails.
    """

    def __init__(self, metric="bleu", language="en", tokenizer=None):
        from sacrebleu.metrics import BLEU, CHRF, TER

        self.metric = metric
        if metric == "bleu":
            tokenizer = tokenizer or tokenizer_for(language)
            try:
                self.scorer = BLEU(effective_order=True, tokenize=tokenizer)
            except (RuntimeError, ImportError, OSError) as error:
                mend = (
                    f"pip install 'sacrebleu[{tokenizer[:2]}]'"
                    if "mecab" in tokenizer
                    else "it is fetched at its first use"
                )
                raise Refusal(
                    f"sacrebleu has no tokenizer {tokenizer} here ({first_line(error)}): {mend}"
                ) from error
            self.bleu = SentenceBLEU(self.scorer)
        elif metric == "chrf":
            self.scorer = CHRF()
        elif metric == "ter":
            self.scorer = TER()
        else:
            raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")

    def describe(self):
        """For manifests: the metric and what sacrebleu says of its settings."""
        import sacrebleu

        self.scorer.sentence_score(
            "a", ["a"]
        )  # sacrebleu gives no signature before it has seen how many references
        return {
            "metric": self.metric,
            "sacrebleu": sacrebleu.__version__,
            "settings": str(self.scorer.get_signature()),
        }

    def __call__(self, hypotheses, reference):
        """Scores of a list of texts against one reference text, as a float32 array; the same texts are scored once."""
        texts, which = distinct(hypotheses)
        return np.array(self._scores(texts, reference), np.float32)[which]

    def consensus(self, hypotheses):
        """The mean similarity of each text to the others of its list, as a float32 array; 0 in a list of one.

        A text that is there several times counts as often, for the others and for itself. Each ordered pair of distinct
        texts is scored once: n * (n - 1) scores where none is repeated.
        """
        texts, which = distinct(hypotheses)
        if len(hypotheses) < 2:
            return np.zeros(len(hypotheses), np.float32)
        times = np.bincount(which, minlength=len(texts)).tolist()
        scores = self._pairs(texts, times)
        means = []
        for i in range(len(texts)):
            # Summed without rounding, so that the order of the list makes no winner of equals.
            others = (
                n * scores[i][j] if j != i else (n - 1) * scores[i][i] for j, n in enumerate(times)
            )
            means.append(math.fsum(others) / (len(hypotheses) - 1))
        return np.array(means, np.float32)[which]

    def _pairs(self, texts, times):
        """[i][j]: text i against reference j; a text that is there once needs no score against itself, and has 0."""
        if self.metric == "bleu" and all(text.strip() for text in texts):
            return self.bleu.among(texts)
        scores = [[0.0] * len(texts) for _ in texts]
        for j, reference in enumerate(texts):
            rows = [i for i in range(len(texts)) if i != j or times[j] > 1]
            for i, score in zip(rows, self._scores([texts[i] for i in rows], reference)):
                scores[i][j] = score
        return scores

    def _scores(self, texts, reference):
        """A list of floats. TER counts the errors against an empty reference itself; BLEU and chrF have no value there."""
        if self.metric != "ter" and not reference.strip():
            return [0.0 if text.strip() else 100.0 for text in texts]
        if self.metric == "bleu":
            return self.bleu.against(texts, reference)
        # What sentence_score does, but for the reference, which it prepares anew for every hypothesis.
        scorer, known = self.scorer, self.scorer._cache_references([[reference]])[0]
        statistics = (
            scorer._compute_segment_statistics(scorer._preprocess_segment(text), known)
            for text in texts
        )
        scores = [scorer._compute_score_from_stats(found).score for found in statistics]
        return [-score for score in scores] if self.metric == "ter" else scores


def distinct(texts):
    """(distinct texts in order of first appearance, (n,) which of them each text is)."""
    ids = {}
    which = np.array([ids.setdefault(text, len(ids)) for text in texts], np.int64)
    return list(ids), which


def closest(similarity):
    """The index of the largest value, the first of equals (the teacher ranks best first); -1 for an empty list."""
    return int(np.argmax(similarity)) if len(similarity) else -1


def mode(block):
    """For each sentence of a block the rank of the teacher's favourite: 0, or -1 for an empty list."""
    return np.where(block.counts > 0, 0, -1)


def nearest_to_gold(block):
    """For each sentence of a block the rank of the hypothesis closest to gold, -1 for an empty list."""
    return _largest(block.similarity, block)


def consensus(block):
    """For each sentence of a block the rank of the hypothesis most similar to the others, -1 for an empty list."""
    return _largest(block.consensus, block)


def _largest(values, block):
    first = block.first
    return np.array([closest(values[first[i] : first[i + 1]]) for i in range(len(block))], np.int64)
