"""Many at once: workers on one directory, ranks that are given twice, trainings that read while the
teacher goes on.
"""

import pytest
import torch
import toys
from commands import start_process
from folders import tree

from fairseq_seqkd.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

EIGHT = 8
ONE_EPOCH = {"max-epoch": 1, "disable-validation": True, "seed": 3}


def generate(*words):
    return start_process("fairseq-generate", *words)


def train(data, save_dir, *options):
    return start_process("fairseq-train", *toys.train_command(data, save_dir, *options))


def assert_all_succeed(*processes):
    printed = [process.communicate() for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [0] * len(processes), "\n".join(printed)[-4000:]


def test_eight_workers_of_which_all_have_one_rank(distilled, tiny, teacher, tmp_path):
    shared = {"part_size": 32, "distributed_world_size": EIGHT, "distributed_rank": 5}
    words = toys.decode_command(tiny, teacher, tmp_path / "out", **shared)
    assert_all_succeed(*(generate(*words) for _ in range(EIGHT)))
    alone = toys.decode_command(tiny, teacher, tmp_path / "alone", part_size=32)
    assert_all_succeed(generate(*alone))
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    assert tree(tmp_path / "out" / "seq_kd") == tree(distilled / "seq_kd")


@pytest.fixture
def trainings(distilled, whole, tiny):
    """(data, options) of two students: of translations, and of distributions on gold."""
    by_word = {"criterion": "word_kd", "teacher-distributions": whole}
    return {"seq_kd": (distilled / "seq_kd", {"criterion": "seq_kd"}), "word_kd": (tiny, by_word)}


def test_two_trainings_read_while_the_teacher_goes_on(
    trainings, distilled, whole, tiny, teacher, tmp_path
):
    """They read the data-bin, a view and stored distributions; beside them the commands that made
    these run again, others look
    at them, and a new decode of the same data goes on. Nobody disturbs anybody."""
    quiet = [
        train(data, tmp_path / f"{name}.quiet", options, ONE_EPOCH)
        for name, (data, options) in trainings.items()
    ]
    assert_all_succeed(*quiet)
    before = tree(distilled), tree(whole)
    store_all = {"topk": toys.EVERYTHING, "store_dtype": "float32", **toys.SCORING}
    busy = [
        *(
            train(data, tmp_path / f"{name}.busy", options, ONE_EPOCH)
            for name, (data, options) in trainings.items()
        ),
        generate(*toys.decode_command(tiny, teacher, distilled)),
        generate(*toys.decode_command(tiny, teacher, whole, **store_all)),
        *(generate(*toys.decode_command(tiny, teacher, tmp_path / "new")) for _ in range(2)),
        start_process("seqkd", "inspect", distilled),
    ]
    assert_all_succeed(*busy)
    assert (tree(distilled), tree(whole)) == before
    assert tree(tmp_path / "new") == tree(distilled)
    for name in trainings:
        alone, beside = (
            Checkpoint(tmp_path / f"{name}.{how}" / "checkpoint_last.pt").weights
            for how in ("quiet", "busy")
        )
        assert alone.keys() == beside.keys() and all(
            torch.equal(alone[key], beside[key]) for key in alone
        )
