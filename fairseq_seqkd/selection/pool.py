"""Similarity scores of n-best lists, computed in this process or by workers during the search.

The task `teacher_decoding` submits the lists of each batch, and waits for the scores when it
commits a part. The scores are the same either way.
"""

import multiprocessing
import os
import signal
import sys
import threading
import types
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import SpawnProcess
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection.similarity import Similarity

SimilarityArguments = Tuple[str, Optional[str], Optional[str]]  # metric, language, tokenizer
TextList = Tuple[Sequence[str], Optional[str]]  # texts and their reference, if there is one


class Scores(NamedTuple):
    """The scores of one list of texts, (texts,) float32 each."""

    similarity: Optional[np.ndarray]  # to the reference; None without a reference
    consensus: Optional[np.ndarray]  # mean similarity to the other texts; None if not asked for


class ListScorer:
    """Scores lists in this process, see Scorer."""

    def __init__(self, similarity: SimilarityArguments, consensus: bool) -> None:
        self.similarity, self.consensus = Similarity(*similarity), consensus

    def __call__(self, lists: Sequence[TextList]) -> List[Scores]:
        return [
            Scores(
                None if reference is None else self.similarity(texts, reference),
                self.similarity.consensus(texts) if self.consensus else None,
            )
            for texts, reference in lists
        ]


worker_scorer: ListScorer  # the one of this process, if it is a worker


class Scorer:
    """Scores lists of texts.

    Args:
        similarity: the arguments of Similarity.
        consensus: whether the texts of a list are also compared with each other.
        workers: the number of processes, which start with the first list; 0 to use this process.
    """

    def __init__(
        self, similarity: SimilarityArguments, consensus: bool = False, workers: int = 0
    ) -> None:
        self.settings, self.workers = (similarity, consensus), workers
        self.pool: Optional[ProcessPoolExecutor] = None
        self.local: Optional[ListScorer] = None

    def submit(self, lists: Sequence[TextList]) -> Callable[[], List[Scores]]:
        """Begins to score lists.

        Returns:
            A function that waits, and returns the Scores of each list.

        Raises:
            Refusal: a worker has died. The function raises it, too.
        """
        if not self.workers:
            self.local = self.local or ListScorer(*self.settings)
            scores = self.local(lists)
            return lambda: scores
        if self.pool is None:
            # A fork would copy threads, locked files and the use of a GPU, which is not safe.
            self.pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=begin_worker,
                initargs=self.settings,
            )
        with death_is_refused(), without_main_module():
            future = self.pool.submit(score_in_worker, lists)
        return partial(wait_for, future)

    def close(self) -> None:
        """Ends the workers, with what they have not finished."""
        if self.pool is not None:
            stop_workers()
            self.pool.shutdown()
            self.pool = None


def begin_worker(similarity: SimilarityArguments, consensus: bool) -> None:
    """Prepares a worker. It ignores Ctrl-C, which its parent handles, and ends with its parent."""
    global worker_scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker_scorer = ListScorer(similarity, consensus)


def end_with_parent() -> None:
    """Waits for the end of the parent, however it ends, and then ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def score_in_worker(lists: Sequence[TextList]) -> List[Scores]:
    """Scores lists in a worker."""
    return worker_scorer(lists)


def wait_for(future: "Future[List[Scores]]") -> List[Scores]:
    """Waits for the scores of a worker."""
    with death_is_refused():
        return future.result()


def stop_workers() -> None:
    """Ends every worker at once. Otherwise Python, at its end, waits for all submitted lists."""
    for process in multiprocessing.active_children():
        if isinstance(process, SpawnProcess):
            process.kill()


@contextmanager
def death_is_refused() -> Iterator[None]:
    """Raises Refusal for the death of a worker."""
    try:
        yield
    except BrokenProcessPool:
        raise Refusal(
            "a process that computes similarity has died, perhaps for lack of memory; finished "
            "parts are safe, run the same command again with fewer --similarity-workers (it does "
            "not change the result)"
        ) from None


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keeps new processes from importing the main program, and with it fairseq and torch."""
    main = sys.modules["__main__"]
    sys.modules.update(__main__=types.ModuleType("__main__"))
    try:
        yield
    finally:
        sys.modules.update(__main__=main)
