"""Records a search: n-best lists with their similarity to gold, and in the end the views."""

import logging
import zlib
from functools import cached_property
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from torch import Tensor

from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE, Detokeniser
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.manifest import DecodeManifest
from fairseq_seqkd.corpus.mmap_format import token_dtype
from fairseq_seqkd.corpus.nbest import NBest
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.corpus.plan import Plan
from fairseq_seqkd.corpus.settings import DecodeSettings
from fairseq_seqkd.decoding.build_views import build_views, refuse_empty_views
from fairseq_seqkd.decoding.parts import PartRecorder
from fairseq_seqkd.decoding.settings import DecodeInputs, TextDecoders, uses_random_numbers
from fairseq_seqkd.engines import Sample, SearchEngine
from fairseq_seqkd.selection.pool import Scorer

logger = logging.getLogger(__name__)


class NBestRecorder(PartRecorder):
    """Records the n-best lists of a search.

    Args:
        inputs: the options, and the dataset that is searched.
        settings: of the decode, as the manifest holds them.
        plan: of the parts.
        text: how hypotheses are detokenised; read when the first batch has been searched.
    """

    engine: SearchEngine

    def __init__(
        self, inputs: DecodeInputs, settings: DecodeSettings, plan: Plan, text: TextDecoders
    ) -> None:
        self.inputs, self.settings, self.text = inputs, settings, text
        self.dataset = inputs.dataset
        self.distilled = Distilled(inputs.cfg.distill_dir, settings, plan.parts)
        self.sizes, self.limits = [self.dataset.src_sizes], [settings.search.longest_source]
        self.has_gold = self.dataset.tgt is not None
        self.has_consensus = settings.select == "mbr"
        self.scorer = self._scorer()
        # Of the current part: the n-best list of each sentence, and what waits for their scores.
        self.nbests: Dict[int, NBest] = {}
        self.pending: List[Tuple[List[NBest], Callable[[], Any]]] = []

    def _scorer(self) -> Optional[Scorer]:
        """Returns what computes similarity, or None if nothing needs it."""
        cfg, similarity = self.inputs.cfg, self.settings.similarity
        if not similarity:
            return None
        if similarity.post_process and not cfg.common_eval.post_process:
            logger.info(
                "similarity: subwords are joined by --post-process %r, guessed from the dictionary",
                similarity.post_process,
            )
        metric = (str(cfg.similarity), cfg.target_lang, cfg.similarity_tokenizer)
        return Scorer(metric, self.has_consensus, cfg.similarity_workers)

    def search_with(self, engine: SearchEngine) -> None:
        """Sets the engine; called once, before the first part."""
        self.engine = engine

    def expected_bytes(self) -> float:
        """Returns a careful estimate of the size of the store and the views."""
        sentences, nbest = len(self.dataset), self.inputs.cfg.generation.nbest
        source_tokens = int(np.asarray(self.dataset.src_sizes).sum(dtype=np.int64))
        per_hypothesis = 4 * source_tokens / max(sentences, 1) + 21
        return nbest * sentences * per_hypothesis + 4 * 2 * source_tokens + 24 * sentences

    def begin_part(self, first: int) -> None:
        """Begins the part whose first sentence is `first`."""
        self.nbests = {}
        self.engine.begin_part(self._seed(first))

    def _seed(self, first: int) -> Optional[int]:
        """Returns the seed of a part if the search draws random numbers.

        It depends on the part and --seed alone, not on what this process decoded before. It has 32
        bits, because the generators of torch on a CPU and of CTranslate2 use no more.
        """
        search = self.settings.search
        return (
            zlib.crc32(f"{search.seed}:{first}".encode()) if uses_random_numbers(search) else None
        )

    def record(self, sample: Sample, prefix_tokens: Optional[Tensor] = None) -> List[int]:
        """Searches a batch, and keeps its n-best lists until the part is complete."""
        prefix = None if prefix_tokens is None else self._prefix(prefix_tokens)
        nbests = self.engine.search(sample, prefix_tokens=prefix)
        sentences = sample["id"].tolist()
        self.nbests.update(zip(sentences, nbests))
        if self.scorer:
            texts = [self._texts(*item) for item in zip(sentences, nbests)]
            self.pending.append((nbests, self.scorer.submit(texts)))
        return [len(nbest[0].tokens) for nbest in nbests if nbest]

    def _prefix(self, tokens: Tensor) -> Tensor:
        """Returns prefixes in which the EOS of a shorter target is padding.

        The search goes on freely from there.
        """
        dictionary = self.dataset.tgt_dict
        return tokens.masked_fill(tokens.eq(dictionary.eos()), dictionary.pad())

    @cached_property
    def _detokenisers(self) -> Tuple[Detokeniser, Detokeniser]:
        """The detokenisers of hypotheses and references, with different names for unknown words."""
        join = self.settings.similarity.post_process if self.settings.similarity else None
        bpe, tokenizer = self.text.bpe, self.text.tokenizer
        output, reference = (
            Detokeniser(self.dataset.tgt_dict, join, bpe, tokenizer, unknown)
            for unknown in (UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE)
        )
        return output, reference

    def _texts(self, sentence: int, nbest: NBest) -> Tuple[List[str], Optional[str]]:
        """Returns the texts of a list, and of its reference if there is one."""
        output, reference = self._detokenisers
        gold = reference(self.dataset.tgt[sentence]) if self.has_gold else None
        return [output(hypothesis.tokens) for hypothesis in nbest], gold

    def block(self, first: int, last: int) -> Block:
        """Returns the n-best lists of sentences first..last-1, when their scores are there."""
        for nbests, scores in self.pending:
            for nbest, (similarity, consensus) in zip(nbests, scores()):
                for i, hypothesis in enumerate(nbest):
                    hypothesis.similarity = None if similarity is None else similarity[i]
                    hypothesis.consensus = None if consensus is None else consensus[i]
        self.pending = []
        nbests = [self.nbests.get(sentence, []) for sentence in range(first, last)]
        dtype = token_dtype(len(self.dataset.tgt_dict))
        return Block.from_lists(nbests, dtype, self.has_gold, self.has_consensus)

    def finish(self, store: NBestStore, content: DecodeManifest) -> DecodeManifest:
        """Writes the views, and adds them to the manifest."""
        return build_views(store, content, self.distilled.folder, self.inputs.gold, self.dataset)

    def check_finished(self) -> None:
        """Refuses a directory in which a view is missing because no sentence is left for it."""
        refuse_empty_views(self.distilled.folder)

    def close(self) -> None:
        """Ends the processes that compute similarity."""
        if self.scorer:
            self.scorer.close()
