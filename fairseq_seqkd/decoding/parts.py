"""The loop over the parts of a decode, for fairseq-generate and for `seqkd select`.

A part is the unit of work that is committed. A recorder works on its batches and keeps the results.
"""

import logging
import time
from typing import Any, Dict, Iterator, List, Optional, Protocol, Sequence

import numpy as np
from fairseq.data import LanguagePairDataset
from torch import Tensor
from tqdm import tqdm

from fairseq_seqkd.corpus.distilled import Distilled, PartBlock
from fairseq_seqkd.corpus.plan import Plan, too_long
from fairseq_seqkd.decoding.rank import Rank
from fairseq_seqkd.engines import Sample

logger = logging.getLogger(__name__)

ALONE = Rank(0, 1)


class PartRecorder(Protocol):
    """Works on the batches of a part, keeps the results, and finishes the directory.

    NBestRecorder records a search, DistributionRecorder the scoring of given targets.
    """

    distilled: Distilled
    sizes: Sequence[np.ndarray]  # for each side that is read, the tokens of all sentences
    limits: Sequence[int]  # for each of these sides, the tokens that the teacher can read

    def expected_bytes(self) -> float:
        """Returns a careful estimate of the size of all parts."""

    def begin_part(self, first: int) -> None:
        """Begins the part whose first sentence is `first`."""

    def record(self, sample: Sample, prefix_tokens: Optional[Tensor] = None) -> List[int]:
        """Works on a batch and keeps the results.

        Args:
            sample: a batch of fairseq's LanguagePairDataset.
            prefix_tokens: (sentences, n) ids with which every hypothesis begins.

        Returns:
            The number of tokens written for each sentence.
        """

    def block(self, first: int, last: int) -> PartBlock:
        """Returns the results for the sentences first..last-1, the part that is committed."""

    def finish(self, store: Any, content: Any) -> Any:
        """Writes what is made from the finished store.

        Args:
            store: an NBestStore or a DistributionStore.
            content: the manifest of the directory, without results.

        Returns:
            The manifest with results.
        """

    def check_finished(self) -> None:
        """Raises Refusal if the finished directory lacks what it was decoded for."""
        return

    def close(self) -> None:
        """Releases processes, after the last part or an error."""
        return


class PartLoop:
    """Iterates over the batches that are left, and commits a part after its last batch.

    Args:
        recorder: works on the batches.
        plan: of parts and batches.
        rank: says with which part to begin.

    Attributes:
        remaining: the parts that are left, in the order in which they are tried.

    Raises:
        Refusal: the directory was begun with other settings.
    """

    def __init__(self, recorder: PartRecorder, plan: Plan, rank: Rank = ALONE) -> None:
        self.recorder, self.plan, self.rank = recorder, plan, rank
        self.distilled = recorder.distilled
        self.distilled.check()
        done = self.distilled.done() - self.distilled.damaged()
        start = rank.number * plan.parts // max(rank.size, 1)
        order = [(start + i) % plan.parts for i in range(plan.parts)]
        self.remaining = [part for part in order if part not in done]
        folder, signature = self.distilled.folder, self.distilled.signature
        logger.info("%s: %d of %d parts are done | %s", folder, len(done), plan.parts, signature)

    def begin(self) -> None:
        """Creates the directory, once every check has passed."""
        self.distilled.begin()
        worker = f"as rank {self.rank.number} of {self.rank.size}"
        self.distilled.note(f"began {worker}, {len(self.remaining)} parts to do")
        logger.info("decoding begins: %d parts to do, %s", len(self.remaining), worker)

    def __len__(self) -> int:
        return sum(len(self._batches(part)) for part in self.remaining)

    def _batches(self, part: int) -> List[np.ndarray]:
        part_of_split = slice(*self.plan.bounds(part))
        sizes = [np.asarray(side[part_of_split]) for side in self.recorder.sizes]
        fits = ~too_long(sizes, self.recorder.limits)
        return self.plan.batches(part, np.maximum.reduce(sizes), fits)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the sentence ids of each batch, for the recorder to work on."""
        began, sentences = time.monotonic(), 0
        for part in self.remaining:
            with self.distilled.claim(part) as claimed:
                if not claimed:
                    continue
                first, last = self.plan.bounds(part)
                self.recorder.begin_part(first)
                yield from self._batches(part)
                self.distilled.commit(part, self.recorder.block(first, last))
                sentences += last - first
                self._log_progress(sentences, time.monotonic() - began)

    def _log_progress(self, sentences: int, seconds: float) -> None:
        parts, done = self.plan.parts, len(self.distilled.done())
        rate = sentences / max(seconds, 1e-9)
        left = tqdm.format_interval(self.plan.sentences * (1 - done / parts) / max(rate, 1e-9))
        logger.info(
            "%d of %d parts done | this worker: %d sentences, %.1f per second, %s left",
            done, parts, sentences, rate, left,
        )  # fmt: skip

    def finish(self) -> bool:
        """Finishes the directory if all parts are there, and returns whether it is complete."""
        folder = self.distilled.folder
        if self.distilled.complete:
            logger.info("%s is complete: nothing is left to decode", folder)
        if not self.distilled.finish(self.recorder.finish):
            logger.info(
                "%s: other workers hold the parts that are left; the last one finishes the "
                "directory (run this command again if it dies)",
                folder,
            )
            return False
        logger.info("%s is complete | %s", folder, self.distilled.signature)
        self.recorder.check_finished()
        return True


class FairseqBatches:
    """The batches of a loop, as fairseq-generate asks a task for them.

    After the last one the process ends: fairseq-generate would go on to score nothing, and divide
    by zero if there was nothing to decode.
    """

    def __init__(self, loop: PartLoop, dataset: LanguagePairDataset) -> None:
        self.loop, self.dataset = loop, dataset

    def next_epoch_itr(self, **ignored: Any) -> "FairseqBatches":
        """Returns this iterator: there is one epoch, in the order of the plan."""
        return self

    def __len__(self) -> int:
        return len(self.loop)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        try:
            for ids in self.loop:
                yield self.dataset.collater([self.dataset[i] for i in ids.tolist()])
            self.loop.finish()
        finally:
            self.loop.recorder.close()
        raise SystemExit(0)
