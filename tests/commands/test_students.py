"""Students through the real fairseq-train: stock checkpoints with no trace of the teacher, resumed
and fine-tuned.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import toys
from commands import PLUGIN, environment_with, refusal, run_here, run_process, start_process
from fairseq.data import iterators

from fairseq_seqkd import compat, interrupts


@pytest.fixture(scope="module")
def student(tiny, teacher, tmp_path_factory):
    """A Word-KD student after a few updates with BLEU, and what its training printed."""
    folder = tmp_path_factory.mktemp("student")
    done = toys.train(
        tiny,
        folder,
        criterion="word_kd",
        teacher_path=teacher,
        max_epoch=2,
        lr=0.0005,
        seed=5,
        eval_bleu=True,
        eval_bleu_remove_bpe="@@ ",
        eval_bleu_args='{"beam": 1, "max_len_b": 20}',
    )
    return folder / "checkpoint_last.pt", done.stdout


@pytest.fixture(scope="module")
def plain_student(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    toys.train(tiny, folder, criterion="cross_entropy", max_epoch=2, lr=0.0005, seed=5)
    return folder / "checkpoint_last.pt"


@pytest.mark.trap(2)
def test_no_teacher_tensor_is_in_the_checkpoint_or_the_optimizer(student, plain_student):
    ours, stock = (compat.read_checkpoint(path) for path in (student[0], plain_student))
    assert ours["model"].keys() == stock["model"].keys()
    assert ours.keys() == stock.keys() and not ours["criterion"]

    def moments(state):
        return sorted(
            (key, tuple(value["exp_avg"].shape))
            for key, value in state["last_optimizer_state"]["state"].items()
        )

    assert moments(ours) == moments(stock)
    assert sum(torch.tensor(shape).prod().item() for _, shape in moments(ours)) == sum(
        tensor.numel()
        for name, tensor in ours["model"].items()
        if "version" not in name and "float_tensor" not in name
    )


@pytest.mark.trap(3, "NumPy")
def test_validation_is_the_students(student, tiny, teacher):
    """A student of two epochs knows little; with the teacher's numbers in their place this would
    fail.
    """
    path, printed = student
    reported = float(re.findall(r"valid on 'valid' subset.*? nll_loss ([\d.]+)", printed)[-1])
    bleu = float(re.findall(r"valid on 'valid' subset.*? bleu ([\d.]+)", printed)[-1])

    def measured(checkpoint):
        task, model, criterion = toys.build(tiny, criterion="cross_entropy")
        model.load_state_dict(compat.read_checkpoint(checkpoint)["model"])
        _, size, log = task.valid_step(toys.batch(task, 53), model, criterion)
        return log["loss"].item() / size / 0.6931471805599453

    assert reported == pytest.approx(measured(path), abs=2e-3)
    assert measured(teacher) < reported - 1
    assert bleu < 20


def test_training_shows_the_teachers_own_likelihood(student):
    values = [
        float(x)
        for x in re.findall(r"train \| epoch \d+ \|.* teacher_nll_loss ([\d.]+)", student[1])
    ]
    nll = [
        float(x)
        for x in re.findall(r"train \| epoch \d+ \|.* nll_loss ([\d.]+) \| kd_loss", student[1])
    ]
    assert len(values) == len(nll) == 2 and values[0] < nll[0] - 1


def bare(student):
    """--eval-bleu left NumPy values in this checkpoint, which is fairseq's own doing: without them,
    as plain fairseq needs.
    """
    state = compat.read_checkpoint(student[0])
    state["extra_state"] = {}
    path = student[0].with_name("bare.pt")
    torch.save(state, path)
    return path


def test_plain_fairseq_loads_the_student_without_the_plugin(student, tiny):
    """In a process that never imports us; argparse.Namespace is what torch 2.6 and later ask
    fairseq's users to allow.
    """
    code = """
import argparse, sys, torch
torch.serialization.add_safe_globals([argparse.Namespace])
sys.argv = ["fairseq-generate"] + sys.argv[1:]
from fairseq_cli.generate import cli_main
cli_main()
assert not any(name.startswith("fairseq_seqkd") for name in sys.modules)
"""
    options = {
        "path": student[0],
        "gen-subset": "test",
        "beam": 2,
        "max-len-b": 20,
        "cpu": True,
        "remove-bpe": True,
    }
    options["path"] = bare(student)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(tiny),
            *toys.flags(options, required_batch_size_multiple=1),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_with(),
        cwd="/",
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(re.findall(r"^H-", done.stdout, re.MULTILINE)) == 45


def test_everything_else_that_reads_stock_checkpoints_reads_the_student(student, tiny, tmp_path):
    """fairseq-interactive, what torch.hub gives, fine-tuning by fairseq's criterion, CTranslate2's
    converter: all without
    the plugin, and what translates says the same."""
    code = """
import argparse, os, sys, torch
torch.serialization.add_safe_globals([argparse.Namespace])
path, data, out = sys.argv[1:]
source = open(f"{out}/source").read().rstrip()

from fairseq.models.transformer import TransformerModel
hub = TransformerModel.from_pretrained(os.path.dirname(path), os.path.basename(path), data)
print("hub:", hub.translate(source, beam=1, max_len_b=20))

from fairseq_cli.interactive import cli_main
sys.argv = ["", data, "--path", path, "--input", f"{out}/source"]
sys.argv += ["--beam", "1", "--max-len-b", "20", "--cpu"]
cli_main()

from ctranslate2.converters import FairseqConverter
FairseqConverter(path, data, "de", "en").convert(f"{out}/ct2")

from fairseq_cli.train import cli_main
sys.argv = ["", data, *FINE_TUNING, "--save-dir", f"{out}/tuned", "--finetune-from-model", path]
cli_main()
assert not any(name.startswith("fairseq_seqkd") for name in sys.modules)
"""
    ctranslate2 = pytest.importorskip("ctranslate2")
    (tmp_path / "source").write_text(
        (tiny.parent / "text" / "test.de").read_text().splitlines()[0] + "\n"
    )
    tuning = toys.flags(
        toys.TINY,
        toys.TRAINING,
        criterion="cross_entropy",
        max_update=2,
        cpu=True,
        disable_validation=True,
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code.replace("FINE_TUNING", repr(tuning)),
            bare(student),
            tiny,
            tmp_path,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_with(),
        cwd="/",
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (hub,) = re.findall(r"^hub: (.*)", done.stdout, re.MULTILINE)
    (interactive,) = re.findall(r"^H-0\t\S+\t(.*)", done.stdout, re.MULTILINE)
    source = (tmp_path / "source").read_text().split()
    fast = ctranslate2.Translator(str(tmp_path / "ct2"), inter_threads=1, intra_threads=1)
    found = fast.translate_batch([source], beam_size=1, max_decoding_length=len(hub.split()))[
        0
    ].hypotheses[0]
    assert hub == interactive == " ".join(found) and len(hub.split()) > 2
    assert (tmp_path / "tuned" / "checkpoint_last.pt").is_file()


@pytest.mark.trap(5)
def test_seq_kd_trains_resumes_and_seq_inter_fine_tunes_it(distilled, teacher, tmp_path):
    """Each objective on its view; a second run of the same command continues; then Seq-Inter with
    the teacher beside.

    Across the end of an epoch fairseq's own resume makes other batches, so only within one are the
    bits compared below.
    """
    view = distilled / "seq_kd"
    toys.train(view, tmp_path / "a", criterion="seq_kd", max_epoch=1)
    resumed = toys.train(view, tmp_path / "a", criterion="seq_kd", max_epoch=2)
    assert "Loaded checkpoint" in resumed.stdout
    assert re.findall(r"train \| epoch (\d+)", resumed.stdout) == ["002"]
    tuned = toys.train(
        distilled / "seq_inter",
        tmp_path / "c",
        criterion="seq_inter",
        max_epoch=1,
        lr=0.0005,
        teacher_path=teacher,
        finetune_from_model=tmp_path / "a" / "checkpoint_last.pt",
    )
    assert "loading pretrained model" in tuned.stdout and "teacher_nll_loss" in tuned.stdout
    # The gold likelihood at the end of a short fine-tuning is near where it began, far from an
    # untrained model's.
    assert (
        float(re.findall(r"valid on 'valid' subset.*? nll_loss ([\d.]+)", tuned.stdout)[-1]) < 2.5
    )


def test_resume_in_the_middle_of_an_epoch_equals_an_undisturbed_run(tiny, teacher, tmp_path):
    more = {
        "criterion": "word_kd",
        "teacher_path": teacher,
        "max_tokens": 300,
        "disable_validation": True,
        "max_update": 14,
    }
    toys.train(tiny, tmp_path / "a", save_interval_updates=9, **{**more, "max_update": 9})
    toys.train(tiny, tmp_path / "a", **more)
    toys.train(tiny, tmp_path / "b", **more)
    a, b = (compat.read_checkpoint(tmp_path / run / "checkpoint_last.pt")["model"] for run in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    "criterion,options",
    [("seq_kd", {}), ("word_kd", {}), ("word_kd", {"teacher_path": "absent.pt"})],
)
def test_fairseq_train_ends_with_one_sentence(tiny, tmp_path, criterion, options):
    arguments = toys.train_command(tiny, tmp_path / "save", criterion=criterion, **options)
    done = run_here("fairseq-train", *arguments, check=False)
    assert refusal(done) and done.returncode == 1
    assert not (tmp_path / "save" / "checkpoint_last.pt").exists()


@pytest.mark.trap(13)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_only_the_model_shows_ends_with_one_sentence_too(tiny, teacher, tmp_path, workers):
    """In a process of its own, which also ends by itself: threads that read ahead made it abort
    below the sentence.
    """
    more = {
        "criterion": "word_kd",
        "teacher_path": teacher,
        "num_workers": workers,
        "adaptive_softmax_cutoff": "8,16",
    }
    words = toys.train_command(tiny, tmp_path / "save", max_tokens=100, **more)
    done = run_process("fairseq-train", *words, check=False)
    assert "--adaptive-softmax-cutoff" in refusal(done) and done.returncode == 1


def test_ctrl_c_in_a_training_is_one_sentence(distilled, tmp_path):
    """It reaches the processes that read batches too."""
    words = toys.train_command(
        distilled / "seq_kd",
        tmp_path / "save",
        criterion="seq_kd",
        num_workers=2,
        max_tokens=100,
        max_epoch=999,
        log_interval=1,
        save_interval=999,
        save_interval_updates=40,
    )
    process, seen = start_process("fairseq-train", *words), ""
    for line in process.stdout:
        seen += line
        if "num_updates=41" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    seen += process.communicate()
    assert process.returncode == 130 and "Traceback" not in seen, seen[-2000:]
    sentence = (
        "fairseq_seqkd: interrupted; run the same command to continue from the last checkpoint in "
        "its --save-dir"
    )
    assert seen.splitlines()[-1] == sentence and seen.count("interrupted") == 1
    again = run_here("fairseq-train", *words, "--max-update", "90").stdout
    assert re.search("Loaded checkpoint .* @ [48]0 updates", again) and "num_updates=90" in again


def test_ctrl_c_waits_until_a_checkpoint_is_whole(capsys):
    """fairseq copies it to checkpoint_last.pt byte by byte."""
    code = """
def save_checkpoint():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    saved.append(True)
"""
    saved, listens = [], signal.getsignal(signal.SIGINT)
    names = {"os": os, "signal": signal, "time": time, "saved": saved}
    exec(compile(code, "/x/fairseq/checkpoint_utils.py", "exec"), names)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.end_with("this was said", busy=compat.is_saving)
        with pytest.raises(SystemExit) as end:
            names["save_checkpoint"]()
            assert saved
            time.sleep(30)
    finally:
        signal.signal(signal.SIGINT, listens)
    assert saved and end.value.code == 130
    assert capsys.readouterr().out == "fairseq_seqkd: interrupted; this was said\n"


def test_threads_that_read_ahead_are_ended():
    class Slow(list):
        def __iter__(self):
            for item in super().__iter__():
                time.sleep(0.01)
                yield item

    ahead = iterators.BufferedIterator(2, Slow(range(1000)))
    assert next(ahead) == 0 and ahead._consumer.is_alive()
    compat.stop_prefetching()
    assert not ahead._consumer.is_alive()


def test_fairseq_validate_measures_on_gold_and_needs_no_teacher(distilled, tiny, teacher, tmp_path):
    """Any data that fairseq-validate is given, by a student of either criterion; the figures are
    those of the training.
    """
    here = tmp_path / "teacher.pt"
    shutil.copyfile(teacher, here)
    for run, data, more in (
        ("word", tiny, {"criterion": "word_kd", "teacher_path": here}),
        ("seq", distilled / "seq_kd", {"criterion": "seq_kd"}),
    ):
        printed = toys.train(data, tmp_path / run, max_epoch=1, **more).stdout
        (in_training,) = re.findall(r"valid on 'valid' subset.*? nll_loss ([\d.]+)", printed)
        here.unlink(missing_ok=True)
        path = {
            "path": tmp_path / run / "checkpoint_last.pt",
            "max-tokens": 2000,
            "required-batch-size-multiple": 1,
        }
        words = toys.flags(path, {"user-dir": PLUGIN, "task": "translation", "cpu": True})
        printed = run_here("fairseq-validate", tiny, *words).stdout
        (alone,) = re.findall(r"valid on 'valid' subset.*? nll_loss ([\d.]+)", printed)
        assert float(alone) == pytest.approx(float(in_training), abs=0.002)
