"""Scores from worker processes: the same as without, and no process that outlives its purpose."""

import multiprocessing

import numpy as np
import pytest

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection.pool import Scorer

METRIC = ("bleu", "en", None)
LISTS = [
    (["the cat sat", "a cat sat", "the cat sat"], "the cat sits"),
    (["x", "y z"], "y"),
    ([], "y"),
    (["x y"], None),
]


def plain(scores):
    return [[None if values is None else values.tolist() for values in found] for found in scores]


@pytest.fixture
def workers():
    scorer = Scorer(METRIC, consensus=True, workers=2)
    yield scorer
    scorer.close()
    assert multiprocessing.active_children() == []


def test_workers_give_the_same_scores_in_the_same_order(workers):
    here = Scorer(METRIC, consensus=True)
    batches = [LISTS[i:] + LISTS[:i] for i in range(4)] * 3
    waiting = [workers.submit(batch) for batch in batches]
    assert [plain(scores()) for scores in waiting] == [
        plain(here.submit(batch)()) for batch in batches
    ]
    similarity, consensus = here.submit(LISTS)()[3]
    assert similarity is None and consensus.tolist() == [0.0]


def test_a_worker_that_dies_is_one_sentence(workers):
    workers.submit(LISTS)()
    waiting = workers.submit([(["a b c d " * 40 + str(i) for i in range(150)], "a")] * 50)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(Refusal, match="has died.*fewer --similarity-workers"):
        waiting()
    with pytest.raises(Refusal, match="has died"):
        workers.submit(LISTS)


def test_scores_are_float32():
    similarity, consensus = Scorer(METRIC, consensus=True).submit(LISTS)()[0]
    assert similarity.dtype == consensus.dtype == np.float32
