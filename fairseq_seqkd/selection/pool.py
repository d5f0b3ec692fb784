"""The scores of n-best lists: computed here, or in processes that work while the search goes on.

Texts go in, scores come out, and they are the same either way. The task `teacher_decoding` submits each batch when it
is found, and asks for the scores when it commits a part.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection.similarity import Similarity


class Scorer:
    """Scores lists of texts in the order in which they are submitted.

    Args: similarity: a Similarity's arguments (metric, language, tokenizer); consensus: whether lists are also scored
    against themselves; workers: processes, 0 for none. They begin with the first list.
    """

    def __init__(self, similarity, consensus=False, workers=0):
        self.settings, self.workers = (similarity, consensus), workers
        self.pool, self.score = None, None

    def submit(self, lists):
        """Begins to score [(texts, reference or None)]. Returns a function that waits, and returns for each list
        (similarity to the reference, consensus): float32 arrays, None for what was not asked."""
        if not self.workers:
            self.score = self.score or ListScores(*self.settings)
            scores = self.score(lists)
            return lambda: scores
        if self.pool is None:
            # Not forked: a copy of a process with threads, locked files and a GPU in use is not safe.
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(
                self.workers, spawn, initializer=begin_worker, initargs=self.settings
            )
        with refusal_of_a_death(), without_main_module():
            future = self.pool.submit(work, lists)
        return lambda: self._result(future)

    def _result(self, future):
        with refusal_of_a_death():
            return future.result()

    def close(self):
        """Ends the processes, and what they have not finished."""
        if self.pool is not None:
            stop_workers()
            self.pool.shutdown()
            self.pool = None


class ListScores:
    """Scores lists in this process. Args: as Scorer's."""

    def __init__(self, similarity, consensus):
        self.similarity, self.consensus = Similarity(*similarity), consensus

    def __call__(self, lists):
        return [
            (
                None if reference is None else self.similarity(texts, reference),
                self.similarity.consensus(texts) if self.consensus else None,
            )
            for texts, reference in lists
        ]


def begin_worker(*settings):
    """Makes this process a worker: deaf to Ctrl-C, which its parent hears, and gone when its parent is, however it ended."""
    global work_of_this_process
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    work_of_this_process = ListScores(*settings)


def work(lists):
    return work_of_this_process(lists)


def stop_workers():
    """Ends every worker of this process at once. Without it Python, when it ends, waits for all that was submitted."""
    for process in multiprocessing.active_children():
        if isinstance(process, multiprocessing.context.SpawnProcess):
            process.kill()


@contextlib.contextmanager
def refusal_of_a_death():
    try:
        yield
    except BrokenProcessPool:
        raise Refusal(
            "a process that computes similarity has died, perhaps for lack of memory; finished parts are safe, run the same "
            "command again, with fewer --similarity-workers (it changes no result)"
        ) from None


@contextlib.contextmanager
def without_main_module():
    """A new process loads its parent's main program: fairseq and torch, seconds and megabytes that scoring does not need."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
