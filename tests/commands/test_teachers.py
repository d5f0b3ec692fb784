"""Which teachers are let in, and the sentence with which the others are turned away, while the
criterion is built.
"""

import argparse
import functools
import os
import pickle
import shutil
import zipfile

import folders
import pytest
import torch
import toys
from commands import PLUGIN, ROOT, refusal, run_here, run_process
from fairseq.data import LanguagePairDataset

from fairseq_seqkd import compat
from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.mmap_format import Writer
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import checks, teacher_checks


def build(data, path, **more):
    return toys.build(data, criterion="word_kd", teacher_path=path, **more)


@pytest.fixture
def reordered(tiny, tmp_path):
    """The same data-bin with two symbols of the target dictionary exchanged: equal in size, not in
    order.
    """
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
    with pytest.raises(
        Refusal, match="the data's dictionary has .* own learns from text: `seqkd text distilled"
    ):
        build(tmp_path / "bin", teacher)


def test_a_further_folder_with_another_dictionary_is_refused(tiny, teacher, reordered):
    """fairseq reads all of them with those of the first if the numbers of symbols allow it."""
    data = f"{tiny}:{reordered}"
    with pytest.raises(
        Refusal, match=f"{reordered}/dict.en.txt differs from the dictionary in {tiny}"
    ):
        build(data, teacher)
    shutil.copy(tiny / "dict.en.txt", reordered)
    assert build(data, teacher)[2].teacher is not None


def test_data_in_text_are_read_as_the_student_reads_them(tiny, teacher, tmp_path):
    for lang in ("de", "en"):
        shutil.copy(tiny / f"dict.{lang}.txt", tmp_path)
        for split in ("train", "valid"):
            shutil.copy(
                tiny.parent / "text" / f"{split}.{lang}", tmp_path / f"{split}.de-en.{lang}"
            )
    assert build(tmp_path, teacher, dataset_impl="raw")[2].teacher is not None


def test_a_task_may_add_symbols_to_the_dictionaries_of_its_folders(tiny, teacher, reordered):
    task = build(tiny, teacher)[0]
    task.tgt_dict.add_symbol("<mask>")
    checks.check_directories(task)
    task.cfg.data = f"{tiny}:{reordered}"
    with pytest.raises(Refusal, match="differs from the dictionary in"):
        checks.check_directories(task)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_model_without_both_sides_is_refused(tiny, teacher, tmp_path, side):
    def drop(state):
        for name in [name for name in state["model"] if name.startswith(f"{side}.")]:
            del state["model"][name]

    half = moved(teacher, tmp_path / "half.pt", drop)
    with pytest.raises(Refusal, match=f"has no {side}: it is a language model"):
        build(tiny, half)
    done = toys.decode(tiny, half, tmp_path / "out", check=False)
    assert (
        f"has no {side}: it is a language model" in refusal(done)
        and not (tmp_path / "out").exists()
    )


def moved(teacher, out, change):
    """The teacher's checkpoint with something changed, as another machine would have it: its data
    directory is gone.
    """

    def move(state):
        state["cfg"]["task"]["data"] = "/no/such/directory"
        change(state)

    return folders.changed(teacher, out, move)


def test_without_its_dictionaries_a_wrong_teacher_is_found_by_its_likelihood(
    tiny, teacher, tmp_path
):
    def shuffle(state):
        order = torch.roll(torch.arange(len(state["model"]["decoder.output_projection.weight"])), 7)
        state["model"]["decoder.output_projection.weight"] = state["model"][
            "decoder.output_projection.weight"
        ][order]

    build(tiny, moved(teacher, tmp_path / "right.pt", lambda state: None))
    with pytest.raises(Refusal, match="no better than guessing"):
        build(tiny, moved(teacher, tmp_path / "wrong.pt", shuffle))


def test_a_teacher_full_of_nan_is_refused(tiny, teacher, tmp_path):
    def spoil(state):
        state["model"]["decoder.output_projection.weight"].fill_(float("nan"))

    with pytest.raises(Refusal, match="no better than guessing"):
        build(tiny, moved(teacher, tmp_path / "nan.pt", spoil))


def test_a_teacher_that_overflows_in_training_is_refused_at_the_first_batch(
    tiny, teacher, monkeypatch
):
    """Its check at the start is in float32 on the CPU; on a GPU it has the student's precision."""
    task, model, criterion = build(tiny, teacher)
    logits = criterion.teacher._logits
    monkeypatch.setattr(
        criterion.teacher, "_logits", lambda *a: (found * float("nan") for found in logits(*a))
    )
    model.train()
    with pytest.raises(Refusal, match="NaN or infinite in float32; store them"):
        criterion(model, toys.batch(task))


def test_empty_targets_say_nothing_about_a_teacher(tiny, teacher, tmp_path):
    """A corpus that begins with them, and one whose target side is nothing but empty lines."""
    task, _, criterion = build(tiny, teacher)
    dataset, dictionary = task.dataset("valid"), task.target_dictionary
    whole = teacher_checks.check_better_than_guessing(
        criterion.teacher, dataset, dictionary, "teacher"
    )
    empty = torch.tensor([dictionary.eos()])
    for count in (10, len(dataset)):
        rows = [empty if i < count else dataset.tgt[i] for i in range(len(dataset))]
        sizes = [len(row) for row in rows]
        some = LanguagePairDataset(
            dataset.src, dataset.src_sizes, task.source_dictionary, rows, sizes, dictionary
        )
        found = teacher_checks.check_better_than_guessing(
            criterion.teacher, some, dictionary, "teacher"
        )
        assert (found is None) if count == len(dataset) else found == pytest.approx(whole, rel=0.2)


def test_a_teacher_of_the_other_direction_is_refused(tiny, teacher, tmp_path):
    def turn(state):
        state["cfg"]["task"].update(source_lang="en", target_lang="de")

    with pytest.raises(Refusal, match="translates en-de, the data are de-en"):
        build(tiny, moved(teacher, tmp_path / "turned.pt", turn))


def test_a_teacher_reads_the_data_as_they_are_here_and_in_the_students_direction(
    tiny, teacher, tmp_path
):
    """Its own settings may say raw text, or nothing of languages; and the folder may hold another
    pair, too.
    """
    for file in tiny.iterdir():
        shutil.copy(file, tmp_path / file.name)
        shutil.copy(file, tmp_path / file.name.replace("de-en", "aa-en").replace(".de.", ".aa."))

    def forget(state):
        state["cfg"]["task"].update(
            source_lang=None, target_lang=None, dataset_impl="raw", num_batch_buckets=4
        )

    path = moved(teacher, tmp_path / "teacher.pt", forget)
    for pair in ("de-en", "aa-en"):
        task, _, criterion = build(tmp_path, path, source_lang=pair[:2], target_lang=pair[3:])
        assert criterion.teacher is not None and task.cfg.source_lang == pair[:2]


def test_a_relative_folder_that_is_another_corpus_here_is_not_the_teachers(
    tiny, teacher, tmp_path, monkeypatch
):
    def relative(state):
        state["cfg"]["task"].update(data="data-bin", source_lang=None, target_lang=None)

    path = moved(teacher, tmp_path / "teacher.pt", relative)
    other = tmp_path / "data-bin"
    other.mkdir()
    for name in ("dict.fr.txt", "dict.en.txt"):
        (other / name).write_text("le 2\nla 1\n")
    (other / "train.fr-en.fr.idx").touch()
    monkeypatch.chdir(tmp_path)
    assert build(tiny, path)[2].teacher is not None
    lines = (tiny / "dict.en.txt").read_text().splitlines(keepends=True)
    shutil.copy(tiny / "dict.de.txt", other / "dict.de.txt")
    (other / "dict.en.txt").write_text(
        "".join(reversed(lines))
    )  # as large as the teacher's, so it is taken for it
    with pytest.raises(Refusal, match="data-bin/dict.en.txt differs from the data's: symbol 4 is"):
        build(tiny, path)


def test_embeddings_that_a_teacher_began_with_need_not_be_there(tiny, teacher, tmp_path):
    def begin(state):
        state["cfg"]["model"].encoder_embed_path = state["cfg"]["model"].decoder_embed_path = (
            "absent.txt"
        )

    path = moved(teacher, tmp_path / "teacher.pt", begin)
    ours, plain = (build(tiny, file)[2].teacher.models[0] for file in (path, teacher))
    assert torch.equal(ours.encoder.embed_tokens.weight, plain.encoder.embed_tokens.weight)
    printed = run_here(
        "seqkd", "evaluate", path, "--data", tiny, "--split", "valid", "--cpu"
    ).stdout
    assert "BLEU" in printed
    told = {
        "model-overrides": "{'encoder_embed_path': None, 'decoder_embed_path': None}",
        "gen_subset": "valid",
    }
    toys.decode(tiny, path, tmp_path / "distilled", **told)


def test_truncated_sources_are_looked_at_as_the_student_has_them(tiny, teacher, tmp_path):
    """The teacher's own --truncate-source would hide that they are too long; the student's brings
    long ones into play.
    """

    def shorten(state):
        state["cfg"]["model"].max_source_positions = state["cfg"]["task"][
            "max_source_positions"
        ] = 6
        state["cfg"]["task"]["truncate_source"] = True

    path = moved(teacher, tmp_path / "short.pt", shorten)
    for more in ({}, {"truncate_source": True, "max_source_positions": 7}):
        with pytest.raises(Refusal, match="the teacher .* reads 6; pass --max-source-positions 6"):
            build(tiny, path, **more)
    assert build(tiny, path, truncate_source=True, max_source_positions=6)[2].teacher is not None


def test_flat_settings_name_architecture_and_task_too(tmp_path):
    def checkpoint(**args):
        torch.save({"model": {}, "args": argparse.Namespace(**args)}, tmp_path / "a.pt")
        return Checkpoint(tmp_path / "a.pt")

    checkpoint(arch="transformer_iwslt_de_en", task="translation").check_known()
    checkpoint(arch="transformer_iwslt_de_en").check_known()
    for kind, wrong in (
        ("arch", {"arch": "theirs", "task": "translation"}),
        ("task", {"arch": "transformer", "task": "theirs"}),
    ):
        with pytest.raises(Refusal, match=f"has the {kind} theirs, which belongs to a plugin"):
            checkpoint(**wrong).check_known()


@pytest.mark.parametrize("group", ["model", "task"])
def test_a_teacher_of_another_plugin_is_refused_with_its_name(tiny, teacher, tmp_path, group):
    def rename(state):
        if group == "model":
            state["cfg"]["model"]._name = state["cfg"]["model"].arch = "theirs"
        else:
            state["cfg"]["task"]["_name"] = "theirs"

    with pytest.raises(Refusal, match="theirs, which belongs to a plugin and not to fairseq"):
        build(tiny, moved(teacher, tmp_path / "theirs.pt", rename))


def test_a_teacher_with_too_few_positions_is_refused(tiny, teacher, tmp_path):
    def shorten(state):
        state["cfg"]["model"].max_source_positions = 4

    with pytest.raises(Refusal, match="--max-source-positions 4"):
        build(tiny, moved(teacher, tmp_path / "short.pt", shorten))


@pytest.mark.parametrize("where", ["another folder", "train1"])
def test_sentences_that_it_cannot_read_are_found_wherever_they_are(tiny, teacher, tmp_path, where):
    """In a further folder, of which fairseq-train reads one an epoch, and in a further split."""
    limit, folder = 6, shutil.copytree(tiny, tmp_path / "bin")
    split = Split(tiny, "train", LanguagePair("de", "en"))
    rows = {lang: split.read(lang) for lang in ("de", "en")}
    short = [i for i, size in enumerate(rows["de"].sizes) if size <= limit]
    assert 0 < len(short) < split.sentences("de")
    for lang in rows:
        with Writer(folder / f"train.de-en.{lang}", split.dtype(lang)) as writer:
            for i in short:
                writer.add(rows[lang][i].numpy(), [len(rows[lang][i])])
        if where == "train1":
            for ending in ("bin", "idx"):
                shutil.copy(
                    tiny / f"train.de-en.{lang}.{ending}", folder / f"train1.de-en.{lang}.{ending}"
                )

    def shorten(state):
        state["cfg"]["model"].max_source_positions = limit
        # Of a split that is not its task's own training set fairseq reads the first folder alone.
        state["cfg"]["dataset"]["train_subset"] = state["cfg"]["task"]["train_subset"] = "another"

    path = moved(teacher, tmp_path / "short.pt", shorten)
    with pytest.raises(Refusal, match="--max-source-positions 6"):
        build(folder if where == "train1" else f"{folder}:{tiny}", path, upsample_primary=1)
    for file in folder.glob("train1.*"):
        file.unlink()
    assert build(folder, path)[2].teacher is not None


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
    "kind",
    [
        "absent",
        "directory",
        "empty",
        "text",
        "truncated",
        "no model",
        "hostile",
        "hostile legacy",
        "hostile pickle",
    ],
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
    torch.save(
        compat.read_checkpoint(teacher), tmp_path / "old.pt", _use_new_zipfile_serialization=False
    )
    build(tiny, tmp_path / "old.pt")


def test_sentences_beyond_the_teachers_positions_are_not_probed(tiny, teacher):
    """A teacher with learned positions cannot read them at all."""
    task, _, criterion = toys.build(tiny, criterion="word_kd", teacher_path=teacher)
    for model in criterion.teacher.models:
        model.max_positions = lambda: (7, 9)
    sizes = task.dataset("valid")
    found = teacher_checks.readable(criterion.teacher, sizes, 10)
    expected = [i for i in range(53) if sizes.src_sizes[i] <= 7 and sizes.tgt_sizes[i] <= 9]
    assert found == expected[:10] and 0 < len(found) < 53


@pytest.mark.trap("NumPy")
def test_a_checkpoint_with_numpy_values_loads(tiny, teacher, tmp_path):
    """Validation BLEU leaves NumPy scalars and arrays in fairseq's checkpoints."""
    import numpy as np

    def add(state):
        state["extra_state"]["metrics"] = {
            "counts": np.array([3, 2]),
            "bleu": np.float64(31.5),
            "n": np.int64(4),
        }

    path = moved(teacher, tmp_path / "numpy.pt", add)
    assert compat.read_checkpoint(path)["extra_state"]["metrics"]["n"] == 4
    build(tiny, path)
    # NumPy 1 called its core otherwise, and official fairseq 0.12.2 writes with that.
    old = respelt(path, tmp_path / "numpy1.pt")
    assert compat.read_checkpoint(old)["extra_state"]["metrics"]["bleu"] == 31.5


def respelt(path, out):
    """A checkpoint of NumPy 2 as NumPy 1 would have written it, or the other way round."""
    spellings = [b"numpy._core.multiarray", b"numpy.core.multiarray"]
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                mine, other = spellings if spellings[0] in content else reversed(spellings)
                assert mine in content
                # A name that is followed by a line feed, or by its length before it, as pickle has
                # them.
                content = content.replace(mine + b"\n", other + b"\n")
                content = content.replace(
                    bytes([len(mine)]) + b"\0\0\0" + mine, bytes([len(other)]) + b"\0\0\0" + other
                )
                assert mine not in content
            target.writestr(name, content)
    return out


@pytest.mark.trap(23)
def test_a_teacher_trained_with_eval_bleu_loads(tiny, tmp_path):
    toys.train(
        tiny,
        tmp_path,
        criterion="cross_entropy",
        max_epoch=6,
        eval_bleu=True,
        eval_bleu_remove_bpe="@@ ",
    )
    task, _, criterion = build(tiny, tmp_path / "checkpoint_last.pt")
    assert not hasattr(task, "sequence_generator")
    assert criterion.teacher.models[0].training is False


@pytest.mark.trap("NumPy")
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
    for file in PLUGIN.rglob("*.py"):
        assert "weights_only=False" not in file.read_text().replace("`weights_only=False`", "")


def test_a_teacher_of_an_architecture_of_ones_own_needs_one_line_in_its_user_dir(tiny, tmp_path):
    """As the README has it: fairseq takes one --user-dir, and that imports this package."""
    own, lines = (
        tmp_path / "own_models",
        [f"import sys; sys.path.insert(0, {str(ROOT)!r})", "import fairseq_seqkd"],
    )
    lines += ["from fairseq.models import register_model_architecture"]
    lines += [
        "register_model_architecture('transformer', 'seqkd_own')(lambda args: setattr(args, "
        "'dropout', 0.1))"
    ]
    own.mkdir()
    (own / "__init__.py").write_text("\n".join(lines))
    mine = {"user_dir": own, "arch": "seqkd_own"}
    more = {"criterion": "cross_entropy", "max_epoch": 1, "disable_validation": True}
    # In processes of their own: this one has imported the package already.
    words = toys.train_command(tiny, tmp_path / "teacher", **more, **mine)
    run_process("fairseq-train", *words)
    teacher = tmp_path / "teacher" / "checkpoint_last.pt"
    valid = {"gen_subset": "valid", "user_dir": own}
    words = toys.decode_command(tiny, teacher, tmp_path / "out", **valid)
    run_process("fairseq-generate", *words)
    more = {"criterion": "seq_kd", "max_update": 1, "train_subset": "valid"}
    words = toys.train_command(tmp_path / "out" / "seq_kd", tmp_path / "student", **more, **mine)
    done = run_process("fairseq-train", *words)
    assert "num_updates 1" in done.stdout or "num_updates=1" in done.stdout


def test_the_files_of_the_tests_are_what_they_seem(teacher):
    """Guards the fixtures: a checkpoint is a zip file with a Namespace, as fairseq writes it."""
    assert zipfile.is_zipfile(teacher)
    assert isinstance(compat.read_checkpoint(teacher)["cfg"]["model"], argparse.Namespace)
