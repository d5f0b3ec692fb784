"""The loop of `teacher_decoding`: hands fairseq-generate one part's batches after the other, and records what it finds."""

import logging
import time

from fairseq.data.iterators import EpochBatchIterating

from fairseq_seqkd.corpus.databin import token_dtype
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.hypotheses import Block
from fairseq_seqkd.corpus.text import UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE, Detokeniser
from fairseq_seqkd.scoring import Scorer
from fairseq_seqkd.tasks._settings import uses_random_numbers
from fairseq_seqkd.tasks._views import build_views, refuse_empty_views

logger = logging.getLogger(__name__)


class Recorder(EpochBatchIterating):
    """An iterator over the batches that are left, which commits a part after its last batch, and finishes the directory.

    fairseq-generate asks it for batches; the task gives it what was found. When no part is left it ends the process,
    because fairseq-generate would go on to score nothing, and divide by zero if there was nothing to decode.
    """

    def __init__(self, cfg, gold, dataset, settings, plan, rank=(0, 1)):
        self.cfg, self.gold, self.dataset, self.settings, self.plan = cfg, gold, dataset, settings, plan
        self.rank = rank
        self.longest = settings["search"]["longest_source"]
        self.distilled = Distilled(cfg.distill_dir, settings, plan.parts)
        self.distilled.look()
        self.engine, self.scorer, self.bpe, self.tokenizer = None, None, None, None
        self.has_gold, self.consensus = dataset.tgt is not None, settings["select"] == "mbr"
        if settings["similarity"]:
            metric = (str(cfg.similarity), cfg.target_lang, cfg.similarity_tokenizer)
            self.scorer = Scorer(metric, self.consensus, cfg.similarity_workers)
        self.scores = []  # of the part at hand: (n-best lists, function that waits for their scores)
        self.found = {}  # sentence id -> n-best list, of the part at hand
        self.n = 0
        done = self.distilled.done() - self.distilled.damaged()
        self.remaining = [part for part in self._order() if part not in done]
        self._announce(len(done))

    def _announce(self, done):
        logger.info("%s: %d of %d parts are done | %s", self.distilled.folder, done, self.plan.parts, self.distilled.signature)
        if self.scorer and self.settings["similarity"]["post_process"] and not self.cfg.common_eval.post_process:
            logger.info(
                "similarity: subwords are joined by --post-process %r, as the dictionary's symbols suggest",
                self.settings["similarity"]["post_process"],
            )

    def begin(self):
        """Creates the directory; called when everything that can be refused has been looked at."""
        self.distilled.begin()
        rank, size = self.rank
        self.distilled.note(f"began as rank {rank} of {size}, {len(self.remaining)} parts to do")
        logger.info("decoding begins: %d parts to do, as rank %d of %d", len(self.remaining), rank, size)

    def _order(self):
        """Every part, beginning where this worker's share would begin: the rank is a hint and nothing more."""
        rank, size = self.rank
        start = rank * self.plan.parts // max(size, 1)
        return [(start + i) % self.plan.parts for i in range(self.plan.parts)]

    # What fairseq-generate asks of an iterator.

    def next_epoch_itr(self, **ignored):
        return self

    @property
    def next_epoch_idx(self):
        return 1

    def end_of_epoch(self):
        return self.n >= len(self)

    @property
    def iterations_in_epoch(self):
        return self.n

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        """Nothing to restore: the directory itself is the state."""

    def __len__(self):
        """Batches that were left when this process began."""
        if not hasattr(self, "_length"):
            self._length = sum(len(self._batches(part)) for part in self.remaining)
        return self._length

    def _batches(self, part):
        return self.plan.batches(part, self.dataset.src_sizes, self.longest)

    def __iter__(self):
        try:
            yield from self._decode()
        finally:
            self.close()

    def _decode(self):
        progress = Progress(self.plan.sentences)
        for part in self.remaining:
            with self.distilled.claim(part) as mine:
                if not mine:
                    continue
                self.found = {}
                first, last = self.plan.bounds(part)
                self.engine.begin_part(self._seed(first))
                for batch in self._batches(part):
                    self.n += 1
                    yield self.sample(batch)
                self.distilled.commit(part, self._block(first, last))
                progress.part_done(last - first, len(self.distilled.done()), self.plan.parts)
        self._finish()
        raise SystemExit(0)

    def sample(self, ids):
        """fairseq's batch of these sentences."""
        return self.dataset.collater([self.dataset[int(i)] for i in ids])

    def _seed(self, first):
        """Sampling depends on the part and the seed alone, not on what this process decoded before."""
        if not uses_random_numbers(self.settings["search"]):
            return None
        return (int(self.settings["search"]["seed"]) << 32) + first

    # What the task tells it.

    def use_bpe(self, bpe):
        self.bpe = bpe

    def use_tokenizer(self, tokenizer):
        self.tokenizer = tokenizer

    def search(self, sample, **constraints):
        """Searches one batch, keeps its n-best lists until the part is complete, and returns them."""
        nbests = self.engine.search(sample, **constraints)
        for sentence, nbest in zip(sample["id"].tolist(), nbests):
            self.found[sentence] = nbest
        self._submit(sample["id"].tolist(), nbests)
        return nbests

    # From n-best lists to files.

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
            ([self.output(h.tokens) for h in nbest], self.reference(self.dataset.tgt[sentence]) if self.has_gold else None)
            for sentence, nbest in zip(sentences, nbests)
        ]
        self.scores.append((nbests, self.scorer.submit(lists)))

    def _block(self, first, last):
        for nbests, scores in self.scores:
            for nbest, (similarity, consensus) in zip(nbests, scores()):
                for i, hypothesis in enumerate(nbest):
                    hypothesis.similarity = None if similarity is None else similarity[i]
                    hypothesis.consensus = None if consensus is None else consensus[i]
        self.scores = []
        nbests = [self.found.get(sentence, []) for sentence in range(first, last)]
        dtype = token_dtype(len(self.dataset.tgt_dict))
        return Block.from_lists(nbests, dtype, with_similarity=self.has_gold, with_consensus=self.consensus)

    def close(self):
        """Ends the processes that score."""
        if self.scorer:
            self.scorer.close()

    def _finish(self):
        if self.distilled.complete:
            logger.info("%s is complete: nothing is left to decode", self.distilled.folder)
        if not self.distilled.finish(lambda store: build_views(store, self.distilled, self.gold, self.dataset)):
            logger.info(
                "%s: what is left is in the hands of other workers; the last one finishes it (run this again if it dies)",
                self.distilled.folder,
            )
            return
        logger.info("%s is complete | %s", self.distilled.folder, self.distilled.signature)
        refuse_empty_views(self.distilled.folder)


class Progress:
    """A log line for each part: how many sentences, how fast, how long it will take."""

    def __init__(self, total):
        self.total = total
        self.begun, self.mine = time.monotonic(), 0

    def part_done(self, sentences, parts_done, parts):
        self.mine += sentences
        rate = self.mine / max(time.monotonic() - self.begun, 1e-9)
        left = self.total * (1 - parts_done / parts) / max(rate, 1e-9)
        logger.info(
            "%d of %d parts done | this worker: %d sentences, %.1f a second | %s left at this rate",
            parts_done, parts, self.mine, rate, duration(left),
        )  # fmt: skip


def duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
