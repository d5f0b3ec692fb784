"""Which teachers are let in, and the sentence with which the others are turned away, while the criterion is built."""

import argparse
import functools
import os
import pickle
import shutil
import zipfile

import helpers
import pytest
import torch

from fairseq_seqkd import compat
from fairseq_seqkd.errors import Refusal


def build(data, path, **more):
    return helpers.build(data, criterion="word_kd", teacher_path=path, **more)


@pytest.fixture
def reordered(tiny, tmp_path):
    """The same data-bin with two symbols of the target dictionary exchanged: equal in size, not in order."""
    shutil.copytree(tiny, tmp_path / "bin")
    file = tmp_path / "bin" / "dict.en.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[1], lines[0], *lines[2:]]))
    return tmp_path / "bin"


def test_a_dictionary_in_another_order_is_refused_symbol_by_symbol(reordered, teacher):
    with pytest.raises(Refusal, match="symbol 4 is .* own learns from text: `seqkd text distilled"):
        build(reordered, teacher)


def test_a_dictionary_of_another_size_is_refused(tiny, teacher, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    with (tmp_path / "bin" / "dict.en.txt").open("a") as file:
        file.write("more 1\n")
    with pytest.raises(Refusal, match="the data's dictionary has .* own learns from text: `seqkd text distilled"):
        build(tmp_path / "bin", teacher)


def moved(teacher, out, change):
    """The teacher's checkpoint with something changed, as another machine would have it: its data directory is gone."""
    state = compat.read_checkpoint(teacher)
    state["cfg"]["task"]["data"] = "/no/such/directory"
    change(state)
    torch.save(state, out)
    return out


def test_without_its_dictionaries_a_wrong_teacher_is_found_by_its_likelihood(tiny, teacher, tmp_path):
    def shuffle(state):
        order = torch.roll(torch.arange(len(state["model"]["decoder.output_projection.weight"])), 7)
        state["model"]["decoder.output_projection.weight"] = state["model"]["decoder.output_projection.weight"][order]

    build(tiny, moved(teacher, tmp_path / "right.pt", lambda state: None))
    with pytest.raises(Refusal, match="no better than guessing"):
        build(tiny, moved(teacher, tmp_path / "wrong.pt", shuffle))


def test_a_teacher_full_of_nan_is_refused(tiny, teacher, tmp_path):
    def spoil(state):
        state["model"]["decoder.output_projection.weight"].fill_(float("nan"))

    with pytest.raises(Refusal, match="no better than guessing"):
        build(tiny, moved(teacher, tmp_path / "nan.pt", spoil))


def test_a_teacher_of_the_other_direction_is_refused(tiny, teacher, tmp_path):
    def turn(state):
        state["cfg"]["task"].update(source_lang="en", target_lang="de")

    with pytest.raises(Refusal, match="translates en-de, the data are de-en"):
        build(tiny, moved(teacher, tmp_path / "turned.pt", turn))


def test_a_teacher_with_too_few_positions_is_refused(tiny, teacher, tmp_path):
    def shorten(state):
        state["cfg"]["model"].max_source_positions = 4

    with pytest.raises(Refusal, match="--max-source-positions 4"):
        build(tiny, moved(teacher, tmp_path / "short.pt", shorten))


def damaged(teacher, out):
    content = bytearray(teacher.read_bytes())
    out.write_bytes(content[: len(content) // 2])
    return out


class Evil:
    """Unpickled without care, it would create a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize(
    "kind", ["absent", "directory", "empty", "text", "truncated", "no model", "hostile", "hostile legacy", "hostile pickle"]
)
def test_what_is_no_checkpoint_is_refused(tiny, teacher, tmp_path, kind):
    path, mark = tmp_path / "teacher.pt", tmp_path / "executed"
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("epoch 1\n")
    elif kind == "truncated":
        damaged(teacher, path)
    elif kind == "no model":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "hostile":
        torch.save({"model": Evil(mark)}, path)
    elif kind == "hostile legacy":
        torch.save({"model": Evil(mark)}, path, _use_new_zipfile_serialization=False)
    elif kind == "hostile pickle":
        path.write_bytes(pickle.dumps({"model": Evil(mark)}, protocol=2))
    with pytest.raises(Refusal) as refused:
        build(tiny, path)
    assert str(path) in refused.value.sentence
    assert ("could run code" in refused.value.sentence) == kind.startswith("hostile")
    assert not mark.exists()


def test_a_checkpoint_in_the_format_before_torch_1_6_loads(tiny, teacher, tmp_path):
    torch.save(compat.read_checkpoint(teacher), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    build(tiny, tmp_path / "old.pt")


def test_sentences_beyond_the_teachers_positions_are_not_probed(tiny, teacher):
    """A teacher with learned positions cannot read them at all."""
    from fairseq_seqkd import teachers

    task, _, criterion = helpers.build(tiny, criterion="word_kd", teacher_path=teacher)
    for model in criterion.teacher.models:
        model.max_positions = lambda: (7, 9)
    sizes = task.dataset("valid")
    found = teachers.readable(criterion.teacher, sizes, 10)
    expected = [i for i in range(53) if sizes.src_sizes[i] <= 7 and sizes.tgt_sizes[i] <= 9]
    assert found == expected[:10] and 0 < len(found) < 53


def test_a_checkpoint_with_numpy_values_loads(tiny, teacher, tmp_path):
    """Validation BLEU leaves NumPy scalars and arrays in fairseq's checkpoints."""
    import numpy as np

    def add(state):
        state["extra_state"]["metrics"] = {"counts": np.array([3, 2]), "bleu": np.float64(31.5), "n": np.int64(4)}

    path = moved(teacher, tmp_path / "numpy.pt", add)
    assert compat.read_checkpoint(path)["extra_state"]["metrics"]["n"] == 4
    build(tiny, path)


def test_a_teacher_trained_with_eval_bleu_loads(tiny, tmp_path):
    helpers.train(tiny, tmp_path, criterion="cross_entropy", max_epoch=6, eval_bleu=True, eval_bleu_remove_bpe="@@ ")
    task, _, criterion = build(tiny, tmp_path / "checkpoint_last.pt")
    assert not hasattr(task, "sequence_generator")
    assert criterion.teacher.models[0].training is False


def test_reading_never_loads_more_than_weights(monkeypatch, teacher):
    """The one place that reads checkpoints asks for weights only, whatever torch's default is."""
    asked, load = [], torch.load

    @functools.wraps(load)
    def spy(*args, **kwargs):
        asked.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", spy)
    compat.read_checkpoint(teacher)
    assert asked == [True]
    for file in helpers.PLUGIN.rglob("*.py"):
        assert "weights_only=False" not in file.read_text().replace("`weights_only=False`", "")


def test_the_files_of_the_tests_are_what_they_seem(teacher):
    """Guards the fixtures: a checkpoint is a zip file with a Namespace in it, as fairseq writes it."""
    assert zipfile.is_zipfile(teacher)
    assert isinstance(compat.read_checkpoint(teacher)["cfg"]["model"], argparse.Namespace)
