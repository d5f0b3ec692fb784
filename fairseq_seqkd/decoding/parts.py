"""The loop of `teacher_decoding`: hands fairseq-generate the batches of one part after the other.

A recorder works on the batches and keeps the results of a part, which the loop then commits.
"""

import logging
import time
from functools import cached_property
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Protocol

import numpy as np
import torch
from fairseq.data.iterators import EpochBatchIterating

from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.plan import Plan
from fairseq_seqkd.decoding.rank import Rank

logger = logging.getLogger(__name__)


class PartRecorder(Protocol):
    """Works on the batches of a part, keeps the results, and finishes the directory.

    NBestRecorder records a search, DistributionRecorder the scoring of given targets.
    """

    distilled: Distilled

    def lengths(self, first: int, last: int) -> np.ndarray:
        """Returns the tokens that sentences first..last-1 count for in a batch: (sentences,)."""

    def fits(self, first: int, last: int) -> np.ndarray:
        """Returns whether the teacher can read sentences first..last-1: (sentences,) bool."""

    def expected_bytes(self) -> float:
        """Returns a careful estimate of what is written in all."""

    def begin_part(self, first: int) -> None:
        """Begins the part whose first sentence is `first`."""

    def record(
        self, sample: Dict[str, Any], prefix_tokens: Optional[torch.Tensor] = None
    ) -> List[int]:
        """Works on a batch and keeps the results.

        Args:
            sample: a batch of fairseq's LanguagePairDataset.
            prefix_tokens: (sentences, length) ids with which every hypothesis begins.

        Returns:
            The number of tokens written for each sentence.
        """

    def block(self, first: int, last: int) -> Any:
        """Returns the results for sentences first..last-1, as the block that is committed."""

    def finish(self, store: Any, manifest: Any) -> Any:
        """Writes what is made of the finished store, and adds it to the manifest."""

    def finished(self) -> None:
        """Says how the finished directory ended.

        Raises:
            Refusal: the directory lacks what it was decoded for.
        """

    def close(self) -> None:
        """Releases processes, after the last part and after an error."""


class PartLoop(EpochBatchIterating):
    """Iterates over the batches that are left, and commits a part after its last batch.

    When no part is left it finishes the directory and ends the process: fairseq-generate would go
    on to score nothing, and divide by zero if there was nothing to decode.
    """

    def __init__(self, recorder: PartRecorder, dataset: Any, plan: Plan, rank: Rank) -> None:
        self.recorder, self.dataset, self.plan, self.rank = recorder, dataset, plan, rank
        self.distilled = recorder.distilled
        self.distilled.check()
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

    def begin(self) -> None:
        """Creates the directory, once every check has passed."""
        self.distilled.begin()
        rank, size, parts = self.rank.number, self.rank.size, len(self.remaining)
        self.distilled.note(f"began as rank {rank} of {size}, {parts} parts to do")
        logger.info("decoding begins: %d parts to do, as rank %d of %d", parts, rank, size)

    def _order(self) -> List[int]:
        """Returns every part, in the order in which this worker tries to claim them."""
        start = self.rank.number * self.plan.parts // max(self.rank.size, 1)
        return [(start + i) % self.plan.parts for i in range(self.plan.parts)]

    # What fairseq-generate asks of an iterator.

    def next_epoch_itr(self, **ignored: Any) -> "PartLoop":
        """Returns this iterator: there is one epoch, in the order of the plan."""
        return self

    @property
    def next_epoch_idx(self) -> int:
        """The number of the only epoch."""
        return 1

    def end_of_epoch(self) -> bool:
        """Returns whether every batch has been handed out."""
        return self.n >= len(self)

    @property
    def iterations_in_epoch(self) -> int:
        """The number of batches handed out."""
        return self.n

    def state_dict(self) -> Dict[str, Any]:
        """Returns nothing: the directory itself is the state."""
        return {}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Restores nothing."""

    def __len__(self) -> int:
        return self._batches_to_do

    @cached_property
    def _batches_to_do(self) -> int:
        """The batches that were left when this process began."""
        return sum(len(self._batches(part)) for part in self.remaining)

    def _batches(self, part: int) -> List[np.ndarray]:
        bounds = self.plan.bounds(part)
        return self.plan.batches(part, self.recorder.lengths(*bounds), self.recorder.fits(*bounds))

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        try:
            yield from self._parts()
            self._finish()
        finally:
            self.recorder.close()

    def _parts(self) -> Iterator[Dict[str, Any]]:
        progress = Progress(self.plan)
        for part in self.remaining:
            with self.distilled.claim(part) as claimed:
                if not claimed:
                    continue
                first, last = self.plan.bounds(part)
                self.recorder.begin_part(first)
                for batch in self._batches(part):
                    self.n += 1
                    yield self.sample(batch)
                self.distilled.commit(part, self.recorder.block(first, last))
                progress.add(last - first, len(self.distilled.done()))

    def sample(self, ids: np.ndarray) -> Dict[str, Any]:
        """Returns fairseq's batch of these sentences."""
        return self.dataset.collater([self.dataset[int(i)] for i in ids])

    def _finish(self) -> NoReturn:
        if self.distilled.complete:
            logger.info("%s is complete: nothing is left to decode", self.distilled.folder)
        if not self.distilled.finish(self.recorder.finish):
            logger.info(
                "%s: other workers hold the parts that are left; the last one finishes the "
                "directory (run this command again if it dies)",
                self.distilled.folder,
            )
        else:
            logger.info("%s is complete | %s", self.distilled.folder, self.distilled.signature)
            self.recorder.finished()
        raise SystemExit(0)


class Progress:
    """Logs a line for each part: sentences, speed, and the time that is left."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.began, self.sentences = time.monotonic(), 0

    def add(self, sentences: int, parts_done: int) -> None:
        """Logs that a part is done.

        Args:
            sentences: its size.
            parts_done: parts that all workers have committed.
        """
        self.sentences += sentences
        rate = self.sentences / max(time.monotonic() - self.began, 1e-9)
        left = self.plan.sentences * (1 - parts_done / self.plan.parts) / max(rate, 1e-9)
        logger.info(
            "%d of %d parts done | this worker: %d sentences, %.1f per second, %s left",
            parts_done,
            self.plan.parts,
            self.sentences,
            rate,
            duration(left),
        )


def duration(seconds: float) -> str:
    """Returns a duration in hours, minutes and seconds, e.g. "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
