"""Similarity of hypotheses to a reference or to each other, by sacrebleu on detokenised text.

Decoding uses it for Seq-Inter (similarity to gold; Kim & Rush 2016, section 3.3) and for the
consensus of an n-best list (minimum Bayes risk; Kumar & Byrne 2004). Decisions that matter:

* Sentence BLEU counts the n-gram orders that exist: a perfect hypothesis of three words has 100.
* BLEU and chrF have no value for an empty reference. An empty hypothesis is then perfect (100),
  any other has 0.
"""

import math
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.selection.fast_bleu import SentenceBLEU

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

METRICS = ("bleu", "chrf", "ter")
DEFAULT_TOKENIZER = "13a"
# Languages written without spaces between words, by their codes of two and three letters, and the
# tokenizer of sacrebleu for each that needs no further software.
TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn", "ko", "kor", "th", "tha", "lo", "lao"), "char"),
    **dict.fromkeys(("km", "khm", "my", "mya"), "char"),
}


def tokenizer_for(language: Optional[str]) -> str:
    """Returns sacrebleu's tokenizer for a language, e.g. "char" for ``ja`` or ``jpn_Jpan``."""
    code = str(language).split("_")[0].split("-")[0].lower()
    return TOKENIZERS.get(code, DEFAULT_TOKENIZER)


class Similarity:
    """A similarity between texts; larger is closer, whatever the metric.

    Args:
        metric: "bleu", "chrf" or "ter". TER counts errors, so its negative is the similarity.
        language: the target language, which selects BLEU's tokenizer.
        tokenizer: a tokenizer of sacrebleu for BLEU, in place of the language's.

    Raises:
        Refusal: the tokenizer needs software that is not installed, or a download failed.
    """

    def __init__(
        self, metric: str = "bleu", language: Optional[str] = "en", tokenizer: Optional[str] = None
    ) -> None:
        from sacrebleu.metrics import CHRF, TER

        self.metric = metric
        self.scorer: Any
        if metric == "bleu":
            self.scorer = sentence_bleu(tokenizer or tokenizer_for(language))
            self.bleu = SentenceBLEU(self.scorer)
        else:
            self.scorer = {"chrf": CHRF, "ter": TER}[metric]()

    def describe(self) -> Dict[str, str]:
        """Returns the metric, and sacrebleu's version and signature, for a manifest."""
        import sacrebleu

        # sacrebleu has no signature until it has seen the number of references.
        self.scorer.sentence_score("a", ["a"])
        return {
            "metric": self.metric,
            "sacrebleu": sacrebleu.__version__,
            "settings": str(self.scorer.get_signature()),
        }

    def __call__(self, hypotheses: Sequence[str], reference: str) -> np.ndarray:
        """Scores hypotheses against one reference; equal hypotheses are scored once.

        Returns:
            (hypotheses,) float32.
        """
        texts, indices = distinct(hypotheses)
        return np.array(self._scores(texts, reference), np.float32)[indices]

    def consensus(self, hypotheses: Sequence[str]) -> np.ndarray:
        """Computes the mean similarity of each hypothesis to the others of its list.

        A text that occurs several times counts each time, for the others and for itself. Each
        ordered pair of distinct texts is scored once: n * (n - 1) scores for n distinct texts.

        Returns:
            (hypotheses,) float32; 0 for a list of one.
        """
        texts, indices = distinct(hypotheses)
        if len(hypotheses) < 2:
            return np.zeros(len(hypotheses), np.float32)
        counts = np.bincount(indices, minlength=len(texts)).tolist()
        scores = self._pairs(texts, counts)
        means = []
        for i, row in enumerate(scores):
            others = [(n - (i == j)) * score for j, (n, score) in enumerate(zip(counts, row))]
            # fsum does not round in between, so the order of the list cannot break a tie.
            means.append(math.fsum(others) / (len(hypotheses) - 1))
        return np.array(means, np.float32)[indices]

    def _pairs(self, texts: List[str], counts: List[int]) -> List[List[float]]:
        """Scores distinct texts against each other: [i][j] is text i against reference j.

        A text that occurs once is not compared with itself; its score there is not used.
        """
        if self.metric == "bleu" and all(text.strip() for text in texts):
            return self.bleu.among(texts)
        scores = [[0.0] * len(texts) for _ in texts]
        for j, reference in enumerate(texts):
            rows = [i for i in range(len(texts)) if i != j or counts[j] > 1]
            for i, score in zip(rows, self._scores([texts[i] for i in rows], reference)):
                scores[i][j] = score
        return scores

    def _scores(self, texts: Sequence[str], reference: str) -> List[float]:
        """Scores texts against one reference. TER has a value for an empty reference."""
        if self.metric != "ter" and not reference.strip():
            return [0.0 if text.strip() else 100.0 for text in texts]
        if self.metric == "bleu":
            return self.bleu.against(texts, reference)
        # The steps of sacrebleu's sentence_score, with the reference prepared once for all texts.
        scorer = self.scorer
        prepared = scorer._cache_references([[reference]])[0]
        scores = []
        for text in texts:
            segment = scorer._preprocess_segment(text)
            statistics = scorer._compute_segment_statistics(segment, prepared)
            scores.append(scorer._compute_score_from_stats(statistics).score)
        return [-score for score in scores] if self.metric == "ter" else scores


def sentence_bleu(tokenizer: str) -> "BLEU":
    """Returns sacrebleu's BLEU for sentences, or raises Refusal if the tokenizer cannot be used."""
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(effective_order=True, tokenize=tokenizer)
    except (RuntimeError, ImportError, OSError) as error:
        advice = (
            f"pip install 'sacrebleu[{tokenizer[:2]}]'"
            if "mecab" in tokenizer
            else "it is downloaded on first use, which needs the network"
        )
        raise Refusal(
            f"sacrebleu cannot use tokenizer {tokenizer} ({first_line(error)}): {advice}"
        ) from error


def distinct(texts: Sequence[str]) -> Tuple[List[str], np.ndarray]:
    """Finds the distinct texts of a list.

    Returns:
        The distinct texts in the order of their first occurrence, and the (texts,) int64 index
        among them of each text.
    """
    ids: Dict[str, int] = {}
    indices = np.array([ids.setdefault(text, len(ids)) for text in texts], np.int64)
    return list(ids), indices
