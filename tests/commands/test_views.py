"""Views of a real decode: what may be moved, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from fairseq_seqkd.corpus import manifest, views
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.errors import Refusal


@pytest.fixture
def view(distilled, tmp_path):
    shutil.copytree(distilled / "seq_kd", tmp_path / "view")
    return tmp_path / "view"


def change(folder, **entries):
    content = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).write_text(json.dumps({**content, **entries}))


def test_a_finished_view_can_be_moved_and_used_alone(view):
    assert views.check_view(view, "seq_kd").complete is True


@pytest.mark.parametrize(
    "damage,sentence",
    [
        (lambda folder: (folder / manifest.NAME).unlink(), "holds no teacher's translations"),
        (lambda folder: change(folder, complete=False), "is not finished"),
        (lambda folder: change(folder, view="seq_inter"), "holds seq_inter targets"),
        (lambda folder: change(folder, format="other"), "is not a manifest"),
        (lambda folder: change(folder, files=None), "is not finished"),
        (
            lambda folder: change(folder, files=[]),
            r"is damaged .Expected `object . null`, got `array`",
        ),
        (lambda folder: (folder / "train.de-en.en.bin").unlink(), "is not the file that belongs"),
        (
            lambda folder: (folder / "train.de-en.en.bin").write_bytes(b"1"),
            "is not the file that belongs",
        ),
    ],
)
def test_what_is_no_finished_view_is_refused(view, damage, sentence):
    damage(view)
    with pytest.raises(Refusal, match=sentence):
        views.check_view(view, "seq_kd")


def test_a_distilled_directory_is_not_the_view_in_it(distilled):
    with pytest.raises(Refusal, match="train on the view in it"):
        views.check_view(distilled, "seq_kd")


def test_a_directory_with_a_part_missing_is_not_finished(distilled, tmp_path):
    settings = manifest.read(distilled).settings
    unfinished = Distilled(tmp_path / "out", settings, parts=2)
    unfinished.begin()
    nothing = Block.from_lists([[]], np.dtype(np.uint16), with_similarity=True)
    unfinished.commit(0, nothing)
    assert unfinished.finish(lambda store: pytest.fail("built from half the parts")) is False
    assert manifest.read(tmp_path / "out").complete is False
    unfinished.commit(1, nothing)
    with pytest.raises(Refusal, match="holds 2 sentences instead of 509"):
        unfinished.finish(lambda store: pytest.fail("built from parts of something else"))
    assert manifest.read(tmp_path / "out").complete is False
