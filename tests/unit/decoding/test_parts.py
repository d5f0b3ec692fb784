"""The loop over parts, with a recorder that only remembers what it is asked to do."""

import manifests
import numpy as np
import pytest

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.corpus.settings import AnySettings
from fairseq_seqkd.decoding.parts import FairseqBatches, PartLoop, PartRecorder
from fairseq_seqkd.decoding.rank import Rank

SENTENCES, PARTS, TOO_LONG = 250, 3, 7  # sentence 7 is too long


@pytest.fixture
def settings(tmp_path) -> AnySettings:
    """The settings of a decode of 250 sentences in parts of 100."""
    (tmp_path / "settings").mkdir()
    manifests.write(tmp_path / "settings", manifests.content())
    return manifest.read(tmp_path / "settings").settings


class Recorder(PartRecorder):
    """Notes the parts that begin and the sentences that it records, and finds nothing."""

    def __init__(self, folder, settings):
        self.distilled = Distilled(folder, settings, PARTS)
        sizes = np.full(SENTENCES, 5)
        sizes[TOO_LONG] = 50
        self.sizes, self.limits = [sizes], [40]
        self.begun, self.recorded, self.closed = [], [], 0

    def expected_bytes(self):
        return 0.0

    def begin_part(self, first):
        self.begun.append(first)

    def record(self, sample, prefix_tokens=None):
        self.recorded += sample["id"].tolist()
        return []

    def block(self, first, last):
        return Block.from_lists([[]] * (last - first), np.dtype(np.uint16), with_similarity=False)

    def finish(self, store, content):
        return content

    def close(self):
        self.closed += 1


def run(recorder, settings, rank=None):
    loop = PartLoop(recorder, settings.batch_plan(), *([rank] if rank else []))
    loop.begin()
    for ids in loop:
        recorder.record({"id": ids})
    return loop


def test_every_sentence_that_fits_is_handed_out_once(tmp_path, settings):
    recorder = Recorder(tmp_path / "out", settings)
    loop = run(recorder, settings)
    assert sorted(recorder.recorded) == [i for i in range(SENTENCES) if i != TOO_LONG]
    assert recorder.begun == [0, 100, 200] and recorder.distilled.done() == {0, 1, 2}
    assert loop.finish() and manifest.read(tmp_path / "out").complete


def test_the_rank_says_where_to_begin_and_committed_parts_are_left_out(tmp_path, settings):
    recorder = Recorder(tmp_path / "out", settings)
    run(recorder, settings, Rank(2, 3))
    assert recorder.begun == [200, 0, 100]
    recorder.distilled.path(1).unlink()
    again = Recorder(tmp_path / "out", settings)
    loop = PartLoop(again, settings.batch_plan(), Rank(0, 1))
    assert loop.remaining == [1] and len(loop) == 5  # batches of 20 sentences of 5 tokens
    assert not loop.finish()  # a part is missing


def test_fairseqs_batches_end_the_process_and_close_the_recorder(tmp_path, settings):
    class Dataset:
        def __getitem__(self, i):
            return i

        def collater(self, items):
            return {"id": np.array(items)}

    recorder = Recorder(tmp_path / "out", settings)
    loop = PartLoop(recorder, settings.batch_plan())
    loop.begin()
    batches = FairseqBatches(loop, Dataset()).next_epoch_itr(shuffle=False)
    with pytest.raises(SystemExit) as end:
        for sample in batches:
            recorder.record(sample)
    assert end.value.code == 0 and recorder.closed == 1
    assert len(recorder.recorded) == SENTENCES - 1 and manifest.read(tmp_path / "out").complete


def test_a_batch_that_fails_closes_the_recorder_and_commits_nothing(tmp_path, settings):
    recorder = Recorder(tmp_path / "out", settings)
    loop = PartLoop(recorder, settings.batch_plan())
    loop.begin()
    batches = iter(FairseqBatches(loop, [0] * SENTENCES))
    with pytest.raises(AttributeError):  # a list has no collater
        next(batches)
    assert recorder.closed == 1 and not recorder.distilled.done()
