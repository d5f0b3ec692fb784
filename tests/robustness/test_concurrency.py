"""Many at once: workers on one directory, ranks that are given twice, trainings that read while the teacher goes on."""

import fairseq_cli.generate
import fairseq_cli.train
import helpers
import pytest
import torch

import fairseq_seqkd
from fairseq_seqkd import cli
from fairseq_seqkd.checkpoint import Checkpoint

fairseq_seqkd.register()
pytestmark = pytest.mark.slow

EIGHT = 8
ONE_EPOCH = {"max-epoch": 1, "disable-validation": True, "seed": 3}


def generate(*words):
    return helpers.fork(lambda: helpers.generate(words))


def train(data, save_dir, *options):
    """fairseq-train in a fork."""

    def run():
        import sys

        sys.argv = ["fairseq-train", *helpers.train_command(data, save_dir, *options)]
        fairseq_cli.train.cli_main()
        return 0

    return helpers.fork(run, f"{save_dir}.log")


def all_well(*children):
    return [helpers.wait(child) for child in children] == [0] * len(children)


def test_eight_workers_of_which_all_have_one_rank(distilled, tiny, teacher, tmp_path):
    shared = {"part_size": 32, "distributed_world_size": EIGHT, "distributed_rank": 5}
    words = helpers.decode_command(tiny, teacher, tmp_path / "out", **shared)
    assert all_well(*(generate(*words) for _ in range(EIGHT)))
    alone = helpers.decode_command(tiny, teacher, tmp_path / "alone", part_size=32)
    assert all_well(generate(*alone))
    assert helpers.tree(tmp_path / "out") == helpers.tree(tmp_path / "alone")
    assert helpers.tree(tmp_path / "out" / "seq_kd") == helpers.tree(distilled / "seq_kd")


@pytest.fixture
def trainings(distilled, whole, tiny):
    """(data, options) of two students: of the teacher's translations, and of what it said of gold."""
    by_word = {"criterion": "word_kd", "teacher-distributions": whole}
    return {"seq_kd": (distilled / "seq_kd", {"criterion": "seq_kd"}), "word_kd": (tiny, by_word)}


def test_two_trainings_read_while_the_teacher_goes_on(
    trainings, distilled, whole, tiny, teacher, tmp_path
):
    """They read the data-bin, a view and stored distributions; beside them the commands that made these run again, others look
    at them, and a new decode of the same data goes on. Nobody disturbs anybody."""
    quiet = [
        train(data, tmp_path / f"{name}.quiet", options, ONE_EPOCH)
        for name, (data, options) in trainings.items()
    ]
    assert all_well(*quiet)
    before = helpers.tree(distilled), helpers.tree(whole)
    store_all = {"topk": helpers.EVERYTHING, "store_dtype": "float32", **helpers.SCORING}
    busy = [
        *(
            train(data, tmp_path / f"{name}.busy", options, ONE_EPOCH)
            for name, (data, options) in trainings.items()
        ),
        generate(*helpers.decode_command(tiny, teacher, distilled)),
        generate(*helpers.decode_command(tiny, teacher, whole, **store_all)),
        *(generate(*helpers.decode_command(tiny, teacher, tmp_path / "new")) for _ in range(2)),
        helpers.fork(lambda: cli.main(["inspect", str(distilled)])),
    ]
    assert all_well(*busy)
    assert (helpers.tree(distilled), helpers.tree(whole)) == before
    assert helpers.tree(tmp_path / "new") == helpers.tree(distilled)
    for name in trainings:
        alone, beside = (
            Checkpoint(tmp_path / f"{name}.{how}" / "checkpoint_last.pt").weights
            for how in ("quiet", "busy")
        )
        assert alone.keys() == beside.keys() and all(
            torch.equal(alone[key], beside[key]) for key in alone
        )
