"""Exported students: their folders translate text as fairseq does, and one that would not is never
left behind.
"""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import folders
import pytest
import toys
from commands import BIN, PLUGIN, refusal, run_here

ctranslate2 = pytest.importorskip("ctranslate2")

from fairseq_seqkd import cli  # noqa: E402
from fairseq_seqkd.checkpoint import Checkpoint  # noqa: E402
from fairseq_seqkd.deployment import export  # noqa: E402
from fairseq_seqkd.deployment.translate import Translator  # noqa: E402
from fairseq_seqkd.engines import by_length, ctranslate2_support, int8_support  # noqa: E402
from fairseq_seqkd.errors import Refusal  # noqa: E402

LIMIT = {"max_len_a": 1.2, "max_len_b": 10}  # as `seqkd export` has it


# What cuts the toy English as make_tiny.py has it, in the order of the merges.
TOY_CODES = (
    "t r, e e</w>, tr ee</w>, r e, o l, a g, ag e, s m, sm a, l l</w>, t i, ti n, "
    "n e, h o, ho u, s e</w>, d o, b o, bo o, b a"
)


def run_export(*arguments, check=True):
    return run_here("seqkd", "export", *arguments, check=check)


def by_fairseq(data, checkpoint, subset="test", **more):
    """What fairseq-generate prints for a split, in order, detokenised; of all sentences, with
    batches of one.
    """
    options = {"path": checkpoint, "gen-subset": subset, "cpu": True, "user-dir": PLUGIN}
    one = {"max_sentences": 1, "required_batch_size_multiple": 1}
    printed = run_here(
        "fairseq-generate", data, *toys.flags(options, **{**one, **LIMIT, "beam": 1, **more})
    ).stdout
    found = {
        int(i): text for i, text in re.findall(r"^H-(\d+)\t[^\t]*\t(.*)$", printed, re.MULTILINE)
    }
    return [found[i] for i in range(len(found))]


@pytest.fixture(scope="module")
def exported(tiny, teacher, tmp_path_factory):
    """The toy teacher as a folder, in float32: its text is cut into pieces already."""
    out = tmp_path_factory.mktemp("exported") / "words.ct2"
    done = run_export(teacher, "--data", tiny, "--no-subwords", "-o", out)
    return out, done.stdout


def make_student_of_subwords(home, text):
    """Trains a student on subwords of SentencePiece."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=f"{text}/train.de,{text}/train.en",
        model_prefix=f"{home}/spm",
        vocab_size=60,
        model_type="bpe",
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{home}/spm.model")
    for split in ("train", "valid", "test"):
        for lang in ("de", "en"):
            lines = (text / f"{split}.{lang}").read_text().splitlines()
            cut = [" ".join(processor.encode(line, out_type=str)) for line in lines]
            (home / f"{split}.{lang}").write_text("\n".join(cut) + "\n")
    toys.binarise(home, home / "bin", joined_dictionary=True)
    more = {
        "max_epoch": 8,
        "disable_validation": True,
        "share_all_embeddings": True,
        "criterion": "cross_entropy",
    }
    toys.train(home / "bin", home / "run", **more)


@pytest.fixture(scope="module")
def pieces(tiny, shared):
    """(data-bin, checkpoint, model, text) of a student that reads subwords of SentencePiece."""
    text = tiny.parent / "text"
    home = shared("subwords", lambda folder: make_student_of_subwords(folder, text))
    return home / "bin", home / "run" / "checkpoint_last.pt", home / "spm.model", text


def test_cut_text_is_translated_as_fairseq_does(exported, tiny, teacher):
    out, printed = exported
    assert re.search(r"(\d+) of \1 greedy translations are fairseq's, BLEU 100\.0", printed)
    lines = (tiny.parent / "text" / "test.de").read_text().splitlines()
    assert Translator(out).translate(lines) == by_fairseq(tiny, teacher, post_process="@@ ")


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_pieces_are_translated_as_fairseq_does(pieces, tmp_path, quantization):
    data, checkpoint, model, text = pieces
    out = tmp_path / "student.ct2"
    done = run_export(
        checkpoint,
        "--quantization",
        quantization,
        "--data",
        data,
        "--sentencepiece-model",
        model,
        "-o",
        out,
    )
    same, sentences = map(int, re.search(r"(\d+) of (\d+) greedy", done.stdout).groups())
    found = Translator(out).translate((text / "test.de").read_text().splitlines())
    wanted = by_fairseq(data, checkpoint, post_process="sentencepiece")
    if quantization == "float32":
        assert same == sentences and found == wanted
    else:
        assert same > 0.8 * sentences
        assert sum(a == b for a, b in zip(found, wanted)) > 0.8 * len(wanted)
    assert (out / "subwords.model").read_bytes() == model.read_bytes()
    assert json.loads((out / "seqkd.json").read_text())["quantization"] == quantization


def test_the_command_gives_a_line_for_every_line(exported):
    source = "ich sehe das haus\n\r\nich sehe das haus\r\n\xff\n   \nich".encode("latin-1")
    done = subprocess.run(
        [BIN / "seqkd", "translate", exported[0]], input=source, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")
    assert (
        len(lines) == 7
        and lines[-1] == ""
        and lines[1] == lines[4] == ""
        and lines[0] == lines[2] != ""
    )


def test_who_writes_a_line_and_waits_gets_its_translation(exported):
    """As a program does that keeps the translator beside it."""
    talk = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([BIN / "seqkd", "translate", exported[0]], **talk) as beside:
        killer = threading.Timer(
            60, beside.kill
        )  # or a translator that waits for more would never end
        killer.start()
        for line in (b"ich sehe das haus\n", b"\n", b"ich\n"):
            beside.stdin.write(line)
            beside.stdin.flush()
            assert beside.stdout.readline().strip() or line == b"\n"
        assert killer.is_alive()
        killer.cancel()
        beside.stdin.write(b"ich sehe")  # and a last line that does not end
        assert beside.communicate()[0].strip() and beside.returncode == 0


@pytest.mark.parametrize(
    "compute_type,expected",
    [("auto", "float32"), ("default", "float32"), ("int8", None), ("int8_float32", None)],
)
def test_a_cpu_that_saturates_is_not_asked_for_int8(exported, monkeypatch, compute_type, expected):
    opened = Translator(exported[0])
    opened.config.quantization = "int8"
    monkeypatch.setattr(int8_support, "saturates", lambda: True)
    if expected:
        assert opened.safe_compute_type(compute_type) == expected
    else:
        with pytest.raises(Refusal, match=f"{compute_type} translates incorrectly here"):
            Translator(exported[0], compute_type=compute_type)
    monkeypatch.setattr(int8_support, "saturates", lambda: False)
    assert opened.safe_compute_type(compute_type) == compute_type


def test_a_gpu_without_the_cublas_of_ctranslate2_is_refused_before_it_translates(
    exported, monkeypatch
):
    monkeypatch.setattr(ctranslate2_support, "cublas_name", lambda: "libcublas.so.0")
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    for device in ("cuda", "auto"):
        with pytest.raises(
            Refusal, match="needs libcublas.so.0 on a GPU, .* or translate with --device cpu"
        ):
            Translator(exported[0], device=device)
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    assert Translator(exported[0], device="auto").translate([""]) == [""]


def test_a_student_full_of_nan_is_refused(tiny, teacher, tmp_path):
    def spoil(state):
        state["model"]["decoder.output_projection.weight"].fill_(float("nan"))

    broken = folders.changed(teacher, tmp_path / "nan.pt", spoil)
    done = run_export(broken, "--data", tiny, "-o", tmp_path / "out", check=False)
    assert "does not end" in refusal(done) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("checkpoint", ["", "."])
def test_what_has_no_name_is_no_checkpoint_to_export(checkpoint):
    with pytest.raises(Refusal, match="names no checkpoint; name a file"):
        cli.main(["export", checkpoint])


def test_a_full_disk_ends_a_translation_with_one_sentence(exported):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [BIN / "seqkd", "translate", exported[0]],
            input=b"ich\n",
            stdout=full,
            stderr=subprocess.PIPE,
        )
    (said,) = done.stderr.decode().splitlines()
    assert done.returncode == 1 and "standard output cannot be written: No space left" in said


def test_a_reader_that_goes_away_is_no_error(exported, tiny):
    text = tiny.parent / "text" / "train.de"
    script = (
        f"set -o pipefail; cat {text} {text} {text} | {BIN}/seqkd translate "
        f"{exported[0]} | head -n 1"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr


def test_no_torch_is_loaded_to_translate(exported):
    code = f"""
import sys
from fairseq_seqkd.deployment.translate import Translator
Translator({str(exported[0])!r}).translate(["ich"])
assert not {{"torch", "fairseq"}} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lines_that_are_too_long_lose_their_end_and_are_counted(exported, tmp_path):
    translator = Translator(exported[0])
    translator.config.max_source_tokens = 5
    long, short = translator.translate(["das haus das haus das haus", "das haus das haus"])
    assert long == short and translator.truncated == 1


def test_a_beam_is_fairseqs_too(exported, tiny, teacher):
    lines = (tiny.parent / "text" / "test.de").read_text().splitlines()
    assert Translator(exported[0], beam=4).translate(lines) == by_fairseq(
        tiny, teacher, beam=4, post_process="@@ "
    )


def test_what_an_export_is_told_of_the_search_is_in_the_folder(tiny, teacher, tmp_path):
    run_export(
        teacher,
        "--data",
        tiny,
        "--no-subwords",
        "--beam",
        4,
        "--max-len-a",
        0,
        "--max-len-b",
        3,
        "-o",
        tmp_path / "x",
    )
    lines = (tiny.parent / "text" / "test.de").read_text().splitlines()
    greedy = Translator(tmp_path / "x", beam=1).translate(lines)
    assert greedy == by_fairseq(tiny, teacher, max_len_a=0, max_len_b=3, post_process="@@ ")
    assert max(len(line.split()) for line in greedy) <= 3
    assert Translator(tmp_path / "x").beam == 4


def test_what_translate_is_told_goes_to_the_translator(exported, monkeypatch):
    told = {}

    class Stop(Exception):
        pass

    def translator(folder, beam=None, lenpen=None, **more):
        told.update(folder=folder, beam=beam, lenpen=lenpen, **more)
        raise Stop

    monkeypatch.setattr("fairseq_seqkd.deployment.translate.Translator", translator)
    words = ["--beam", "3", "--lenpen", "0.5", "--compute-type", "float32", "--threads", "2"]
    with pytest.raises(Stop):
        cli.main(["translate", str(exported[0]), *words])
    how = {"compute_type": "float32", "threads": 2, "device": "cpu"}
    assert told == {"folder": str(exported[0]), "beam": 3, "lenpen": 0.5, **how}


@pytest.mark.parametrize("lengths", [[], [0, 0], [3, 1, 0, 2, 9, 9, 4], list(range(50))])
def test_batches_hold_every_sentence_once(lengths):
    batches = list(by_length(lengths, 10))
    assert sorted(i for batch in batches for i in batch) == [
        i for i, length in enumerate(lengths) if length
    ]
    assert all(
        len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 10 for batch in batches
    )


def test_a_model_that_differs_leaves_no_folder(tiny, teacher, tmp_path, monkeypatch):
    """What the comparison is for: here CTranslate2 gets other weights than fairseq has."""
    import fairseq_seqkd
    from fairseq_seqkd.engines import ctranslate2_model
    from fairseq_seqkd.evaluation import systems

    fairseq_seqkd.register()
    convert = ctranslate2_model.convert

    def wrong(model, *arguments, **more):
        model.decoder.layers[0].fc1.bias.data += 10
        files = convert(model, *arguments, **more)
        model.decoder.layers[0].fc1.bias.data -= 10
        return files

    monkeypatch.setattr(ctranslate2_model, "convert", wrong)
    system = systems.prepare(Checkpoint(teacher), str(tiny), systems.Options("valid"))
    for quantization in ("float32", "int8"):
        options = export.ExportOptions(quantization)
        with pytest.raises(Refusal, match="not the same model any more"):
            export.export(system, tmp_path / "out", options)
    assert not list(tmp_path.iterdir())


def test_the_models_own_weights_are_not_rounded(tiny, teacher):
    import torch

    import fairseq_seqkd
    from fairseq_seqkd.engines import ctranslate2_model
    from fairseq_seqkd.evaluation import systems

    fairseq_seqkd.register()
    model, task = systems.load(
        systems.prepare(Checkpoint(teacher), str(tiny), systems.Options("valid"))
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    vocabularies = (
        ctranslate2_model.symbol_names(task.source_dictionary),
        ctranslate2_model.symbol_names(task.target_dictionary),
    )
    for quantization in ("int8", "int16", "float16"):
        ctranslate2_model.convert(model, *vocabularies, quantization=quantization)
        assert all(
            torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()
        ), quantization


def test_given_text_is_what_is_compared(pieces, tmp_path):
    data, checkpoint, model, text = pieces
    arguments = [
        checkpoint,
        "--sentencepiece-model",
        model,
        "--check",
        text / "test.de",
        "--check-sentences",
        20,
    ]
    assert (
        "20 of 20 greedy translations are fairseq's"
        in run_export(*arguments, "-o", tmp_path / "x").stdout
    )


def test_force_replaces_an_exported_folder_and_nothing_else(teacher, tiny, tmp_path):
    arguments = [teacher, "--data", tiny, "--no-subwords", "--force"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("ten years")
    for there in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex", tmp_path):
        assert "did not write it" in refusal(run_export(*arguments, "-o", there, check=False))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "ten years"
    run_export(*arguments, "-o", tmp_path / "x")
    (tmp_path / "x" / "model.bin").write_bytes(b"")
    run_export(*arguments, "-o", tmp_path / "x")
    assert (tmp_path / "x" / "model.bin").stat().st_size and sorted(
        p.name for p in tmp_path.iterdir()
    ) == ["mine", "x"]


def test_an_lstm_is_told_what_can_be_done(tiny, tmp_path):
    toys.train(
        tiny,
        tmp_path,
        toys.LSTM,
        criterion="cross_entropy",
        max_epoch=1,
        disable_validation=True,
    )
    sentence = refusal(
        run_export(
            tmp_path / "checkpoint_last.pt", "--no-subwords", "-o", tmp_path / "x", check=False
        )
    )
    assert "LSTM" in sentence and "seqkd compress" in sentence and "fairseq-interactive" in sentence
    assert not (tmp_path / "x").exists()


def test_a_student_whose_sources_alone_are_cut(tiny, teacher, tmp_path):
    """The toy English has subwords, the German has words: the side of the source decides."""
    run_export(
        teacher, "--data", tiny, "-o", tmp_path / "words"
    )  # German to English: nothing to cut
    other = {
        "criterion": "cross_entropy",
        "max_epoch": 1,
        "disable_validation": True,
        "source_lang": "en",
        "target_lang": "de",
    }
    toys.train(tiny, tmp_path / "run", **other)
    student = tmp_path / "run" / "checkpoint_last.pt"
    assert "--bpe-codes" in refusal(
        run_export(student, "--data", tiny, "-o", tmp_path / "x", check=False)
    )
    (tmp_path / "codes").write_text("#version: 0.2\n" + TOY_CODES.replace(", ", "\n") + "\n")
    run_export(student, "--data", tiny, "--bpe-codes", tmp_path / "codes", "-o", tmp_path / "cut")


def test_refusals_of_an_export(pieces, tiny, exported, tmp_path):
    data, checkpoint, model, _ = pieces
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "other").write_text("完全に別の言語\n" * 3)
    (tmp_path / "codes").write_text("#version: 0.2\n")
    cut = ["--sentencepiece-model", model]
    for arguments, sentence in [
        ([], "name with --sentencepiece-model"),
        (["--sentencepiece-model", tmp_path / "absent"], "there is no"),
        (["--sentencepiece-model", tmp_path / "empty"], "is not a model of sentencepiece"),
        ([*cut, "--data", tiny], "symbols"),
        ([*cut, "--data", tmp_path / "absent"], "does not exist"),
        ([*cut, "--check", tmp_path / "empty"], "has no text"),
        ([*cut, "--check", tmp_path / "absent"], "cannot be read"),
        ([*cut, "--check", tmp_path / "other"], "not in the student's source language"),
        ([*cut, "--beam", 0], "must be at least 1"),
        ([*cut, "-o", exported[0]], "exists; name another folder"),
        ([*cut, "-o", tmp_path / "absent" / "x"], "make it first"),
    ]:
        out = [] if "-o" in arguments else ["-o", tmp_path / "out"]
        assert sentence in refusal(run_export(checkpoint, *arguments, *out, check=False)), arguments
        assert not (tmp_path / "out").exists()


def test_another_subword_model_is_seen(pieces, tiny, tmp_path):
    import sentencepiece

    data, checkpoint, _, text = pieces
    sentencepiece.SentencePieceTrainer.train(
        input=f"{text}/train.de",
        model_prefix=f"{tmp_path}/other",
        vocab_size=30,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    done = run_export(
        checkpoint,
        "--sentencepiece-model",
        tmp_path / "other.model",
        "-o",
        tmp_path / "x",
        check=False,
    )
    assert "differently from the data" in refusal(done)


@pytest.mark.parametrize("change", [lambda content: "{", lambda content: "[]"])
def test_refusals_of_a_folder(exported, tmp_path, change):
    content = (exported[0] / "seqkd.json").read_text()
    (tmp_path / "seqkd.json").write_text(change(content))
    with pytest.raises(Refusal, match="is damaged, or of another version"):
        Translator(tmp_path)
    with pytest.raises(Refusal, match="was not written by `seqkd export`"):
        Translator(tmp_path / "absent")
    (tmp_path / "seqkd.json").write_text(content)
    with pytest.raises(Refusal, match="cannot be opened"):
        Translator(tmp_path)  # without a model
