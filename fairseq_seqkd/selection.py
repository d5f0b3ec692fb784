"""Similarity to gold, and the choice from an n-best list (Kim & Rush 2016, section 3.3).

Similarity is sacrebleu's, on detokenised text. Decisions that other systems get wrong, and their outcomes here:
  * a perfect hypothesis of three words scores 100: sentence BLEU counts the n-gram orders that exist;
  * equal scores go to the hypothesis that the teacher scores higher, never to a worse one;
  * an empty list has no choice, and an empty gold line makes all hypotheses equal, so the teacher's favourite is taken
    (an empty hypothesis excepted, which then is perfect).
"""

import numpy as np

METRICS = ("bleu", "chrf", "ter")
# Languages written without spaces between words; sacrebleu's own tokenizer where one comes without more software.
# Multilingual teachers name them by three letters.
TOKENIZERS = {
    **{"zh": "zh", "ja": "char", "ko": "char", "th": "char", "lo": "char", "km": "char", "my": "char"},
    **{"zho": "zh", "yue": "zh", "jpn": "char", "kor": "char", "tha": "char", "lao": "char", "khm": "char", "mya": "char"},
}


def tokenizer_for(language):
    """sacrebleu's tokenizer for a target language: "13a", its default, but for languages without spaces."""
    return TOKENIZERS.get(str(language).split("_")[0].split("-")[0].lower(), "13a")


class Similarity:
    """How close hypotheses are to a reference; larger is closer, whatever the metric.

    Args: metric: "bleu", "chrf" or "ter" (its negative is returned, since TER counts errors); language: of the target,
    for BLEU's tokenizer; tokenizer: one of sacrebleu's, instead of the language's.
    """

    def __init__(self, metric="bleu", language="en", tokenizer=None):
        from sacrebleu.metrics import BLEU, CHRF, TER

        self.metric = metric
        if metric == "bleu":
            self.scorer = BLEU(effective_order=True, tokenize=tokenizer or tokenizer_for(language))
        elif metric == "chrf":
            self.scorer = CHRF()
        elif metric == "ter":
            self.scorer = TER()
        else:
            raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")

    def describe(self):
        """For manifests: the metric and what sacrebleu says of its settings."""
        import sacrebleu

        self.scorer.sentence_score("a", ["a"])  # sacrebleu gives no signature before it has seen how many references
        return {"metric": self.metric, "sacrebleu": sacrebleu.__version__, "settings": str(self.scorer.get_signature())}

    def __call__(self, hypotheses, reference):
        """Scores of a list of texts against one reference text, as a float32 array."""
        if not reference.strip():
            return np.array([0.0 if hypothesis.strip() else 100.0 for hypothesis in hypotheses], np.float32)
        known = {}  # hypotheses that differ in their subwords alone are scored once
        for hypothesis in hypotheses:
            if hypothesis not in known:
                score = self.scorer.sentence_score(hypothesis, [reference]).score
                known[hypothesis] = -score if self.metric == "ter" else score
        return np.array([known[hypothesis] for hypothesis in hypotheses], np.float32)


def closest(similarity):
    """The index of the largest value, the first of equals (the teacher ranks best first); -1 for an empty list."""
    return int(np.argmax(similarity)) if len(similarity) else -1


def mode(block):
    """For each sentence of a block the rank of the teacher's favourite: 0, or -1 for an empty list."""
    return np.where(block.counts > 0, 0, -1)


def nearest_to_gold(block):
    """For each sentence of a block the rank of the hypothesis closest to gold, -1 for an empty list."""
    first = np.concatenate([[0], np.cumsum(block.counts, dtype=np.int64)])
    similarity = block.arrays["similarity"]
    return np.array([closest(similarity[first[i] : first[i + 1]]) for i in range(len(block))], np.int64)
