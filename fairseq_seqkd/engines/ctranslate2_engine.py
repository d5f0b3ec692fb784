"""CTranslate2's search: one Transformer, on a CPU more than twice as fast as fairseq-generate.

Its results are those of fairseq. These differences between the two are compensated:

* fairseq forbids the empty hypothesis after the softmax, CTranslate2 before it, which shifts every
  score. So nothing is forbidden at first. The few sentences that get an empty hypothesis are
  searched again.
* At the length limit fairseq closes a hypothesis with EOS, and CTranslate2 stops without. So
  CTranslate2 may write one more token. A hypothesis that is not closed by then is cut to the limit,
  flagged, and scored with its EOS.
* For a source that is EOS alone CTranslate2 returns nothing, without using the model. fairseq
  searches these.
* Where an option shifts its scores (min-len, no unknown words, sampling, a prefix), the hypotheses
  are scored again without it, and ranked by these scores.

A log-probability is therefore always the model's own, as fairseq's forward pass computes it.
"""

import logging
import math
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fairseq_seqkd.corpus.nbest import Hypothesis, NBest
from fairseq_seqkd.engines import Sample, source_tokens
from fairseq_seqkd.engines.ctranslate2_model import (
    END,
    check_models,
    convert,
    fairseq_log_probs,
    id_names,
)
from fairseq_seqkd.engines.ctranslate2_support import USE_FAIRSEQ
from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:  # commands check CTranslate2 before they import fairseq
    from fairseq.data import Dictionary
    from torch import Tensor

    from fairseq_seqkd.engines.fairseq_engine import FairseqEngine

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # nats per sequence by which float32 may differ from fairseq; 1e-5 is usual
# Mean nats per token by which a smaller type may differ. Rounding stays far below.
TOLERANCE_QUANTISED = 0.05


class Computation(NamedTuple):
    """How CTranslate2 computes."""

    compute_type: str = "float32"  # CTranslate2's name of a type
    device: str = "cpu"  # or "cuda"
    device_index: int = 0  # the number of the GPU


class CTranslate2Engine:
    """A SearchEngine that runs CTranslate2.

    Args:
        fairseq_engine: fairseq's engine, with one Transformer and the same options.
        dictionaries: source and target dictionary.
        search: fairseq's "generation" group, checked by `options.check_for_ctranslate2`.
        computation: how to compute.
        suppressed: target symbols that no hypothesis may hold.

    Raises:
        Refusal: CTranslate2 cannot hold the model.
    """

    def __init__(
        self,
        fairseq_engine: "FairseqEngine",
        dictionaries: "Tuple[Dictionary, Dictionary]",
        search: Any,
        computation: Computation,
        suppressed: Sequence[str] = (),
    ) -> None:
        check_models(fairseq_engine.models)
        self.fairseq_engine, self.model = fairseq_engine, fairseq_engine.models[0]
        source_dictionary, target_dictionary = dictionaries
        self.pad, self.eos = source_dictionary.pad(), target_dictionary.eos()
        self.source_names, self.target_names = map(id_names, dictionaries)
        self.target_ids = {name: i for i, name in enumerate(self.target_names)}
        self.options, self.computation = search, computation
        self.length_penalty = 0.0 if search.unnormalized else float(search.lenpen)
        positions = int(self.model.max_positions()[1]) - 1
        self.length_limit = LengthLimit(search.max_len_a, search.max_len_b, positions)
        self.suppressed = [
            [self.target_names[target_dictionary.index(symbol)]] for symbol in suppressed
        ]
        self.shifts_scores = bool(
            search.min_len > 1 or search.unkpen == math.inf or search.sampling or suppressed
        )
        self.files: Optional[Dict[str, bytes]] = convert(
            self.model, self.source_names, self.target_names
        )
        self.translator: Any = None

    def open(self, compute_type: Optional[str] = None, seed: Optional[int] = None) -> None:
        """Loads the model into CTranslate2, to compute in this type (default: `computation`'s)."""
        import ctranslate2

        if seed is not None:
            ctranslate2.set_random_seed(seed)
        self.translator = ctranslate2.Translator(
            "teacher",
            files=self.files,
            device=self.computation.device,
            device_index=self.computation.device_index,
            compute_type=compute_type or self.computation.compute_type,
            inter_threads=1,
            intra_threads=1,
        )

    def begin_part(self, seed: Optional[int]) -> None:
        """Seeds the search, if it draws random numbers."""
        self.fairseq_engine.begin_part(seed)
        if seed is not None:
            self.open(seed=seed)  # an open Translator cannot be seeded again

    def verify(self, sample: Sample, prefix_tokens: "Optional[Tensor]" = None) -> None:
        """Compares the log-probabilities of the 1-best of a batch with fairseq's forward pass.

        Call it before the search; for the arguments see `SearchEngine.search`.

        Raises:
            Refusal: they differ by more than rounding in float32, or much in the wanted type.
        """
        self.open("float32")
        largest, _ = self.differences(sample, prefix_tokens)
        if not largest <= TOLERANCE:
            raise Refusal(
                "engine ctranslate2 does not compute what this teacher computes (log-probabilities "
                f"differ by {largest:.3g} nats, rounding by at most {TOLERANCE:g}); {USE_FAIRSEQ}"
            )
        compute_type = self.computation.compute_type
        logger.info(
            "engine ctranslate2: log-probabilities agree with fairseq's to %.1g nats", largest
        )
        if compute_type != "float32":
            self.open()
            _, mean = self.differences(sample, prefix_tokens)
            if not mean <= TOLERANCE_QUANTISED:
                raise Refusal(
                    f"--compute-type {compute_type} changes this teacher too much ({mean:.2g} nats "
                    "per token); use float32"
                )
            logger.info("engine ctranslate2: %s differs by %.1g nats per token", compute_type, mean)
        if not self.options.sampling:
            self.files = None  # only sampling opens the model again, for every part

    def differences(
        self, sample: Sample, prefix_tokens: "Optional[Tensor]" = None
    ) -> Tuple[float, float]:
        """Compares the log-probabilities of the 1-best of a batch with fairseq's.

        Returns:
            The largest difference of a sequence in nats, and the mean difference per token.
        """
        best = [nbest[0] for nbest in self.search(sample, prefix_tokens)]
        targets = [hypothesis.tokens.tolist() for hypothesis in best]
        expected = fairseq_log_probs(self.model, self._source_ids(sample), targets, self.eos)
        differences = np.abs(np.array([hypothesis.log_prob for hypothesis in best]) - expected)
        tokens = sum(len(target) + 1 for target in targets)
        return float(differences.max()), float(differences.sum() / tokens)

    def search(self, sample: Sample, prefix_tokens: "Optional[Tensor]" = None) -> List[NBest]:
        """Translates the sources of a batch, see `SearchEngine.search`."""
        sources = [[self.source_names[i] for i in ids] for ids in self._source_ids(sample)]
        limit = self.length_limit.of(source_tokens(sample).size(1))
        prefixes = None
        if prefix_tokens is not None:
            prefixes = [[self.target_names[i] for i in ids] for ids in prefix_tokens.tolist()]
        empty = [row for row, source in enumerate(sources) if len(source) == 1]
        if not empty:
            return self._search(sources, limit, prefixes)
        prefix_of_empty = None if prefix_tokens is None else prefix_tokens[empty]
        nbests = dict(
            zip(empty, self.fairseq_engine.search(rows_of(sample, empty), prefix_of_empty))
        )
        others = [row for row in range(len(sources)) if row not in nbests]
        if others:
            prefixes = prefixes and [prefixes[row] for row in others]
            searched = self._search([sources[row] for row in others], limit, prefixes)
            nbests.update(zip(others, searched))
        return [nbests[row] for row in range(len(sources))]

    def _search(
        self, sources: List[List[str]], limit: int, prefixes: Optional[List[List[str]]]
    ) -> List[NBest]:
        """Searches sources that are not empty. Sources and prefixes are lists of names."""
        min_len = self.options.min_len
        results = self._translate(sources, limit, min_len if min_len > 1 else 0, prefixes)
        again = [i for i, r in enumerate(results) if [END] in r.hypotheses] if min_len == 1 else []
        if again:
            for i, result in zip(again, self._translate([sources[i] for i in again], limit, 1)):
                results[i] = result
        nbests = [self._nbest(result, limit) for result in results]
        shifted = [
            i
            for i, nbest in enumerate(nbests)
            if self.shifts_scores or prefixes or i in again or any(h.hit_limit for h in nbest)
        ]
        if shifted:
            self._score_again([sources[i] for i in shifted], [nbests[i] for i in shifted])
        return [nbest[: self.options.nbest] for nbest in nbests]

    def _source_ids(self, sample: Sample) -> List[List[int]]:
        return [[i for i in ids if i != self.pad] for ids in source_tokens(sample).tolist()]

    def _translate(
        self,
        sources: List[List[str]],
        limit: int,
        min_length: int,
        prefixes: Optional[List[List[str]]] = None,
    ) -> List[Any]:
        """Runs CTranslate2's search. It returns the whole beam, to show an empty hypothesis."""
        options = self.options
        method: Dict[str, Any]
        if options.sampling:
            method = {
                "beam_size": 1,
                "sampling_topk": max(options.sampling_topk, 0),
                "sampling_topp": options.sampling_topp if options.sampling_topp > 0 else 1.0,
                "sampling_temperature": options.temperature,
            }
        else:
            method = {"beam_size": options.beam, "length_penalty": self.length_penalty}
        return self.translator.translate_batch(
            sources,
            target_prefix=prefixes,
            num_hypotheses=options.beam,
            max_decoding_length=limit + 1,
            min_decoding_length=min_length,
            disable_unk=options.unkpen == math.inf,
            suppress_sequences=self.suppressed or None,
            return_scores=True,
            return_end_token=True,
            max_input_length=0,
            **method,
        )

    def _nbest(self, result: Any, limit: int) -> NBest:
        """Converts a result of CTranslate2. `_score_again` replaces scores that are shifted."""
        nbest: NBest = []
        seen = set()
        for names, score in zip(result.hypotheses, result.scores):
            names = names[:-1] if names and names[-1] == END else names[:limit]
            tokens = [self.target_ids[name] for name in names]
            # Equal hypotheses differed only in the token beyond the limit. But a sample that is
            # drawn twice is twice as probable, which the consensus of a list depends on.
            if tuple(tokens) in seen and not self.options.sampling:
                continue
            seen.add(tuple(tokens))
            length = len(tokens) + 1  # EOS counts
            nbest.append(
                Hypothesis(
                    tokens=np.array(tokens, np.int64),
                    score=score,
                    log_prob=score * length**self.length_penalty,
                    hit_limit=len(tokens) >= limit,
                )
            )
        return nbest

    def _score_again(self, sources: List[List[str]], nbests: List[NBest]) -> None:
        """Replaces the scores of whole lists by the model's own, and sorts by them (stable)."""
        pairs = [(source, h) for source, nbest in zip(sources, nbests) for h in nbest]
        targets = [[self.target_names[i] for i in h.tokens.tolist()] for _, h in pairs]
        # At most as many rows at a time as the search has sentences: a row has as many logits as
        # its length times the vocabulary.
        scored = self.translator.score_batch(
            [source for source, _ in pairs],
            targets,
            max_batch_size=len(sources),
            max_input_length=0,
        )
        for (_, h), result in zip(pairs, scored):
            h.log_prob = float(np.sum(result.log_probs, dtype=np.float64))
            h.score = h.log_prob / (len(h.tokens) + 1) ** self.length_penalty
        for nbest in nbests:
            nbest.sort(key=lambda h: -h.score)


def rows_of(sample: Sample, rows: List[int]) -> Sample:
    """Returns some rows of a batch, as wide as the batch, since its length limit depends on it."""
    tensors = sample["net_input"]
    net_input = {key: tensors[key][rows] for key in ("src_tokens", "src_lengths")}
    return {"id": sample["id"][rows], "net_input": net_input}
