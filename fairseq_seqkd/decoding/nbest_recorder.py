"""What `teacher_decoding` records of a search: n-best lists with their similarity to gold, and then the views."""

import logging
import zlib

import numpy as np

from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE, Detokeniser
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.mmap_format import token_dtype
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.corpus.plan import too_long
from fairseq_seqkd.decoding.build_views import build_views, refuse_empty_views
from fairseq_seqkd.decoding.settings import uses_random_numbers
from fairseq_seqkd.selection.pool import Scorer

logger = logging.getLogger(__name__)


class Recorder:
    """The recorder of hypotheses (see _work.py). The task sets `engine`, `bpe` and `tokenizer` before the first batch."""

    def __init__(self, cfg, gold, dataset, settings, plan):
        self.cfg, self.gold, self.dataset, self.settings = cfg, gold, dataset, settings
        self.distilled = Distilled(cfg.distill_dir, settings, plan.parts)
        self.longest = settings["search"]["longest_source"]
        self.engine, self.scorer, self.bpe, self.tokenizer = None, None, None, None
        self.has_gold, self.consensus = dataset.tgt is not None, settings["select"] == "mbr"
        if settings["similarity"]:
            metric = (str(cfg.similarity), cfg.target_lang, cfg.similarity_tokenizer)
            self.scorer = Scorer(metric, self.consensus, cfg.similarity_workers)
            if settings["similarity"]["post_process"] and not cfg.common_eval.post_process:
                logger.info(
                    "similarity: subwords are joined by --post-process %r, as the dictionary's symbols suggest",
                    settings["similarity"]["post_process"],
                )
        self.scores = []  # of the part at hand: (n-best lists, function that waits for their scores)
        self.found = {}  # sentence id -> n-best list, of the part at hand

    def lengths(self, first, last):
        return np.asarray(self.dataset.src_sizes[first:last])

    def fits(self, first, last):
        return ~too_long([self.lengths(first, last)], [self.longest])

    def expected_bytes(self):
        """A careful estimate of the store and the views."""
        source_tokens = int(np.asarray(self.dataset.src_sizes).sum(dtype=np.int64))
        per_hypothesis = 4 * source_tokens / max(len(self.dataset), 1) + 21
        nbest = self.cfg.generation.nbest
        return (
            nbest * len(self.dataset) * per_hypothesis
            + 4 * 2 * source_tokens
            + 24 * len(self.dataset)
        )

    def begin_part(self, first):
        self.found = {}
        self.engine.begin_part(self._seed(first))

    def _seed(self, first):
        """Sampling depends on the part and the seed alone, not on what this process decoded before.

        Of both there are 32 bits left, as many as the generators of torch on a CPU and of CTranslate2 make use of.
        """
        if not uses_random_numbers(self.settings["search"]):
            return None
        return zlib.crc32(f"{self.settings['search']['seed']}:{first}".encode())

    def record(self, sample, **begin):
        """Searches one batch, and keeps its n-best lists until the part is complete.

        Of a target that is shorter than --prefix-size its EOS is no prefix: with padding in its place fairseq goes on freely.
        """
        if "prefix_tokens" in begin:
            prefix, dictionary = begin["prefix_tokens"], self.dataset.tgt_dict
            begin["prefix_tokens"] = prefix.masked_fill(
                prefix.eq(dictionary.eos()), dictionary.pad()
            )
        nbests = self.engine.search(sample, **begin)
        for sentence, nbest in zip(sample["id"].tolist(), nbests):
            self.found[sentence] = nbest
        self._submit(sample["id"].tolist(), nbests)
        return [len(nbest[0].tokens) for nbest in nbests if nbest]

    def _submit(self, sentences, nbests):
        """Begins to score the lists of a batch."""
        if not self.scorer:
            return
        if not self.scores:
            join = self.settings["similarity"]["post_process"]
            self.output, self.reference = (
                Detokeniser(self.dataset.tgt_dict, join, self.bpe, self.tokenizer, unknown)
                for unknown in (UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE)
            )
        lists = [
            (
                [self.output(h.tokens) for h in nbest],
                self.reference(self.dataset.tgt[sentence]) if self.has_gold else None,
            )
            for sentence, nbest in zip(sentences, nbests)
        ]
        self.scores.append((nbests, self.scorer.submit(lists)))

    def block(self, first, last):
        for nbests, scores in self.scores:
            for nbest, (similarity, consensus) in zip(nbests, scores()):
                for i, hypothesis in enumerate(nbest):
                    hypothesis.similarity = None if similarity is None else similarity[i]
                    hypothesis.consensus = None if consensus is None else consensus[i]
        self.scores = []
        nbests = [self.found.get(sentence, []) for sentence in range(first, last)]
        dtype = token_dtype(len(self.dataset.tgt_dict))
        return Block.from_lists(
            nbests, dtype, with_similarity=self.has_gold, with_consensus=self.consensus
        )

    def finish(self, store):
        return build_views(store, self.distilled, self.gold, self.dataset)

    def finished(self):
        refuse_empty_views(self.distilled.folder)

    def close(self):
        """Ends the processes that compute similarity."""
        if self.scorer:
            self.scorer.close()
