"""The loop of `teacher_decoding`: hands fairseq-generate one part's batches after the other, and commits the parts.

What is done with a batch, and what becomes of a part, is said by the recorder of hypotheses (_recorder.py) or of
distributions (_scoring.py).
"""

import logging
import time

from fairseq.data.iterators import EpochBatchIterating

logger = logging.getLogger(__name__)


class Work(EpochBatchIterating):
    """An iterator over the batches that are left, which commits a part after its last batch, and finishes the directory.

    fairseq-generate asks it for batches; the task gives it what was found. When no part is left it ends the process,
    because fairseq-generate would go on to score nothing, and divide by zero if there was nothing to decode.

    A recorder has
        distilled                       the directory, see corpus/distilled.py
        lengths(first, last)            (sentences,) tokens that each counts for in a batch
        fits(first, last)               (sentences,) bool, whether the teacher can read it
        begin_part(first)
        record(sample, **begin)         works on a batch of fairseq, and returns how many tokens it made of each row
        block(first, last)              what to commit for these sentences
        finish(store)                   what the manifest should say of the finished store, and writes what is made of it
        finished(), close()             last words, whether it ended well or not
    """

    def __init__(self, recorder, dataset, plan, rank=(0, 1)):
        self.recorder, self.dataset, self.plan, self.rank = recorder, dataset, plan, rank
        self.distilled = recorder.distilled
        self.distilled.look()
        self.n = 0
        done = self.distilled.done() - self.distilled.damaged()
        self.remaining = [part for part in self._order() if part not in done]
        logger.info(
            "%s: %d of %d parts are done | %s",
            self.distilled.folder,
            len(done),
            plan.parts,
            self.distilled.signature,
        )

    def begin(self):
        """Creates the directory; called when everything that can be refused has been looked at."""
        self.distilled.begin()
        rank, size = self.rank
        self.distilled.note(f"began as rank {rank} of {size}, {len(self.remaining)} parts to do")
        logger.info(
            "decoding begins: %d parts to do, as rank %d of %d", len(self.remaining), rank, size
        )

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
        bounds = self.plan.bounds(part)
        return self.plan.batches(part, self.recorder.lengths(*bounds), self.recorder.fits(*bounds))

    def __iter__(self):
        try:
            yield from self._parts()
        finally:
            self.close()

    def _parts(self):
        progress = Progress(self.plan.sentences)
        for part in self.remaining:
            with self.distilled.claim(part) as mine:
                if not mine:
                    continue
                first, last = self.plan.bounds(part)
                self.recorder.begin_part(first)
                for batch in self._batches(part):
                    self.n += 1
                    yield self.sample(batch)
                self.distilled.commit(part, self.recorder.block(first, last))
                progress.part_done(last - first, len(self.distilled.done()), self.plan.parts)
        self._finish()
        raise SystemExit(0)

    def sample(self, ids):
        """fairseq's batch of these sentences."""
        return self.dataset.collater([self.dataset[int(i)] for i in ids])

    def close(self):
        self.recorder.close()

    def _finish(self):
        if self.distilled.complete:
            logger.info("%s is complete: nothing is left to decode", self.distilled.folder)
        if not self.distilled.finish(self.recorder.finish):
            logger.info(
                "%s: what is left is in the hands of other workers; the last one finishes it (run this again if it dies)",
                self.distilled.folder,
            )
            return
        logger.info("%s is complete | %s", self.distilled.folder, self.distilled.signature)
        self.recorder.finished()


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
