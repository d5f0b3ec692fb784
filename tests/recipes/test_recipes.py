"""The recipes: text from descriptions of packages, help pages and files, and quickstart from end to
end on a cut-down input.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import processes
import pytest
import toys
from commands import BIN, ROOT, environment_with, heed_interrupts

from recipes import recipe

RECIPES = ROOT / "recipes"
PAGE = """<html><head><title>No paragraph</title></head><body>
<h1 id="hd_1">{title}</h1>
<p id="par_1" class="paragraph">{first} <span class="emph">{second}</span></p>
<p id="par_2">{twice}</p><p id="par_2">Again.</p>
<p id="par_3">=A1+B2 (1) [2]</p></body></html>"""


def parallel_text(*arguments):
    command = [sys.executable, RECIPES / "parallel_text.py", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def pages():
    """Two help pages and the functions of the recipe's script."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("parallel_text", RECIPES / "parallel_text.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_joined_by_paragraph_and_cut_into_sentences(pages, tmp_path):
    german = {
        "title": "Titel",
        "first": "Das ist ein Satz. Das ist noch",
        "second": "ein Satz.",
        "twice": "Zweimal da.",
    }
    english = {
        "title": "Title",
        "first": "This is a sentence. This is one",
        "second": "more.",
        "twice": "There twice.",
    }
    for lang, words in (("de", german), ("en-US", english)):
        (tmp_path / lang / "text" / "shared").mkdir(parents=True)
        (tmp_path / lang / "text" / "shared" / "page.html").write_text(
            PAGE.format(**words), encoding="utf-8"
        )
    paragraphs = list(pages.aligned(tmp_path, "de", "en-US"))
    assert ("Titel", "Title") in paragraphs
    assert (
        "Das ist ein Satz. Das ist noch ein Satz.",
        "This is a sentence. This is one more.",
    ) in paragraphs
    assert not any(
        "Zweimal" in source for source, _ in paragraphs
    )  # an id that occurs twice tells nothing
    found = [pair for paragraph in paragraphs for pair in pages.sentences(*paragraph)]
    assert ("Das ist noch ein Satz.", "This is one more.") in found
    kept = [pair for pair in found if pages.is_pair(*pair, 3, 12)]
    assert kept == [
        ("Das ist ein Satz.", "This is a sentence."),
        ("Das ist noch ein Satz.", "This is one more."),
    ]


ONE, TWO, ABSENT = "0" * 32, "1" * 32, "2" * 32
LISTS = {
    "en": {
        ONE: [
            "a title.",
            " This tool does a lot. It does",
            " more.",
            " .",
            "  * a list item of it",
            " .",
            " It also makes coffee.",
        ],
        TWO: ["another", " One paragraph of text.", " .", " And a second one."],
        ABSENT: ["only English", " Nobody has translated this."],
    },
    "da": {
        TWO: ["en anden", " Kun et afsnit af tekst."],
        ONE: [
            "en titel.",
            " Dette program kan meget. Det kan",
            " endnu mere.",
            " .",
            "  * et punkt af den",
            " .",
            " Det brygger også kaffe.",
        ],
    },
}


def make_lists(folder):
    for lang, packages in LISTS.items():
        entries = [
            f"Package: p{key[0]}\nDescription-md5: {key}\nDescription-{lang}: {title}\n"
            + "".join(f"{line}\n" for line in lines)
            for key, (title, *lines) in packages.items()
        ]
        (folder / f"mirror_dists_x_main_i18n_Translation-{lang}").write_text(
            "\n".join(entries), encoding="utf-8"
        )


def test_descriptions_are_joined_by_the_hash_of_their_original(pages, tmp_path):
    make_lists(tmp_path)
    paragraphs = list(pages.described(tmp_path, "da", "en"))
    # The second has not as many paragraphs in both, and the third is in one list only.
    assert paragraphs == [
        ("Dette program kan meget. Det kan endnu mere.", "This tool does a lot. It does more."),
        ("", ""),  # the list
        ("Det brygger også kaffe.", "It also makes coffee."),
    ]
    assert set(pages.described(tmp_path, "en", "da")) == {
        (target, source) for source, target in paragraphs
    }
    with pytest.raises(SystemExit, match="no list of descriptions in 'fo'"):
        list(pages.described(tmp_path, "fo", "en"))


@pytest.mark.parametrize(
    "source, target",
    [
        (
            ["Это небольшая программа.", "Она очень нужна всем."],
            ["This is a small program.", "Everybody needs it a lot."],
        ),
        (
            ["これは小さなプログラムです。", "誰でもそれを使えます。"],
            ["This is a small program.", "Everybody can use it."],
        ),
        (
            ["这是一个小小的程序。", "谁都可以使用这个程序！"],
            ["This is a small program.", "Everybody can use it!"],
        ),
        (
            ["यह एक छोटा कार्यक्रम है।", "सबको यह चाहिए ही है।"],
            ["This is a small program.", "Everybody needs it a lot."],
        ),
        (["Es kostet 3.5 Euro, d.h. wenig Geld."], ["It costs 3.5 euros, i.e. little money."]),
    ],
)
def test_sentences_of_any_script(pages, source, target):
    blank = "" if source[0].endswith("。") else " "
    pairs = pages.sentences(blank.join(source), " ".join(target))
    assert pairs == list(zip(source, target, strict=True))
    assert [pages.is_pair(*pair, 3, 12) for pair in pairs] == [
        "3.5" not in source for source, _ in pairs
    ]


def test_lines_of_a_script_without_blanks_are_joined_without(pages):
    text = pages.running_text(["これは", "小さな a b", "c です。", "誰でも", "使えます。"])
    assert text == "これは小さな a b c です。誰でも使えます。" and len(pages.cut(text)) == 2


def test_held_out_sentences_are_not_in_train(pages):
    pairs = [(f"s{i}", f"t{i % 40}") for i in range(60)]
    parts = pages.split(pairs, 10, 10)
    assert len(parts["valid"]) == len(parts["test"]) == 10
    held = parts["valid"] + parts["test"]
    assert not {t for _, t in held} & {t for _, t in parts["train"]} and not {
        s for s, _ in held
    } & {s for s, _ in parts["train"]}
    assert pages.split(list(reversed(pairs)), 10, 10) == parts


def test_only_a_line_feed_ends_a_line(tmp_path):
    (tmp_path / "a").write_bytes("".join(f"en linje\r til {i}\r\n" for i in range(200)).encode())
    (tmp_path / "b").write_bytes("".join(f"a line {i}\n" for i in range(200)).encode())
    files = ["--src-file", tmp_path / "a", "--tgt-file", tmp_path / "b"]
    done = parallel_text("files", *files, "--src", "da", "--tgt", "en", "-o", tmp_path / "text")
    assert done.returncode == 0, done.stderr
    train = zip(
        *((tmp_path / "text" / f"train.{lang}").read_text().splitlines() for lang in ("da", "en")),
        strict=True,
    )
    assert all(
        left.startswith("en linje til ") and left.split()[-1] == right.split()[-1]
        for left, right in train
    )


@pytest.mark.parametrize(
    "source,sentence",
    [
        (b"eins\nzwei\n", "different numbers of lines"),
        ("dr\xfcben\n".encode("latin-1"), "/a is no UTF-8 in line 1"),
    ],
)
def test_files_that_are_no_pairs_of_lines_are_refused(source, sentence, tmp_path):
    (tmp_path / "a").write_bytes(source)
    (tmp_path / "b").write_text("one\n")
    options = [
        "--src-file",
        tmp_path / "a",
        "--tgt-file",
        tmp_path / "b",
        "--src",
        "de",
        "--tgt",
        "en",
        "-o",
        tmp_path / "o",
    ]
    done = parallel_text("files", *options)
    assert done.returncode != 0 and sentence in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "options,sentence",
    [
        (["--pair", "de"], "must name two languages"),
        (["--seeds", "one"], "must be numbers"),
        (["--seeds", "1,2,1"], "names a seed twice"),
        (["--beam", "0"], "no positive number"),
        (["--split", "train"], "must be test or valid"),
        (["--text", "news"], "must be descriptions or help"),
        (["--src", "absent"], "go together"),
        (["--wrong", "1"], "unknown option"),
        (["--work"], "needs a value"),
    ],
)
def test_quickstart_refuses_wrong_options(tmp_path, options, sentence):
    done = subprocess.run(
        ["bash", RECIPES / "quickstart.sh", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode != 0 and sentence in done.stdout and not list(tmp_path.iterdir())


def quickstart(work, text, **more):
    options = {
        "work": work,
        "pair": "de-en",
        "src": text / "train.de",
        "tgt": text / "train.en",
        "vocabulary": 60,
        "beam": 3,
    }
    lengths = {"teacher-updates": 250, "student-updates": 15, "tuning-updates": 5}
    return recipe(RECIPES / "quickstart.sh", text.parent, *toys.flags(options, lengths, more))


@pytest.mark.slow
def test_quickstart_goes_from_text_to_the_table_and_continues(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "tests/data/make_tiny.py", tmp_path / "text"], check=True
    )
    done = quickstart(tmp_path / "work", tmp_path / "text")
    assert done.returncode == 0, done.stdout[-3000:]
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    names = [
        "Teacher",
        "Student",
        "Word-KD",
        "Seq-KD",
        "Student + Seq-Inter",
        "Seq-KD + Seq-Inter",
        "Seq-KD + Word-KD",
    ]
    assert [row["name"] for row in report["rows"]] == [*names, "Seq-KD + Seq-Inter + Word-KD"]
    columns = {
        "params",
        "bleu_greedy",
        "bleu_beam5",
        "ppl",
        "mode_probability",
        "sentences_per_second_greedy",
        "sentences_per_second_beam5",
        "sacrebleu_signature",
        "distillation_signature",
        "length_ratio_greedy",
        "length_ratio_beam5",
        "hit_limit_greedy",
    }
    assert all(columns <= row.keys() for row in report["rows"])
    assert (tmp_path / "work" / "report.md").read_text() in done.stdout
    assert "view:seq_inter" in report["rows"][-1]["distillation_signature"]

    again = quickstart(tmp_path / "work", tmp_path / "text")
    assert again.returncode == 0 and again.stdout.count(": there") == 18, again.stdout[-3000:]
    other = quickstart(tmp_path / "work", tmp_path / "text", beam=4)
    assert other.returncode != 0 and "begun with other options" in other.stdout


def test_a_stage_whose_command_fails_is_not_done(tmp_path):
    """Also where the failing command is not the last one of its stage."""
    script = f"""
set -euo pipefail
ROOT={ROOT} WORK={tmp_path} JOBS=2
. "$ROOT/recipes/lib.sh"
do_bad() {{ sleep 1; false; echo "went on"; }}
do_good() {{ sleep 0.1; }}
side_by_side good@1 bad@1 good@2
echo "went on"
"""
    done = subprocess.run(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode != 0 and "bad@1: FAILED" in done.stdout and "went on" not in done.stdout
    assert sorted(mark.name for mark in (tmp_path / "done").iterdir()) == ["good@1", "good@2"]
    assert "went on" not in (tmp_path / "logs" / "bad@1.log").read_text()


SMALL = " ".join(toys.flags(toys.TINY, {"share-all-embeddings": False}))
# The last one is of inverse_sqrt alone.
TRAINING = "--optimizer adam --lr 5e-3 --warmup-updates 2 --warmup-init-lr 1e-4"
SHORT = {"updates": 8, "tuning-updates": 4, "max-tokens": 1000, "batch": 1000, "beam": 2}


def own_data(folder, *words, **more):
    options = {"work": folder / "work", "student": SMALL, "training": TRAINING, **SHORT}
    more = {key.replace("_", "-"): value for key, value in more.items()}
    return recipe(RECIPES / "own_data.sh", folder, *words, *toys.flags({**options, **more}))


@pytest.mark.slow
def test_own_data_trains_what_it_is_asked_for(tiny, teacher, tmp_path):
    words, work = (
        ["--data-bin", tiny, "--teacher", teacher],
        tmp_path / "my work",
    )  # blanks do no harm, nor those in the list
    more = {
        "methods": "student, word_kd, seq_kd, seq_word, word_kd_inter, seq_inter_word",
        "jobs": 2,
        "work": work,
    }
    done = own_data(tmp_path, *words, **more)
    assert done.returncode == 0, done.stdout[-3000:]
    report = json.loads((work / "report.json").read_text())
    found = {row["name"]: row["distillation_signature"] for row in report["rows"]}
    assert [*found] == [
        "Teacher",
        "Student",
        "Word-KD",
        "Seq-KD",
        "Word-KD + Seq-Inter",
        "Seq-KD + Word-KD",
        "Seq-KD + Seq-Inter + Word-KD",
    ]
    assert (
        found["Student"] is None
        and "word_teacher" in found["Word-KD"]
        and "view:seq_inter" in found[[*found][-1]]
    )
    page = (work / "report.html").read_text()  # what run.json names is there
    assert page.count("Training: ") == 6 and 'id="curves-' in page and "Single sentences" in page
    again = own_data(tmp_path, *words, **more)
    assert again.returncode == 0 and " s\n" not in again.stdout.replace(": there\n", ""), (
        again.stdout[-3000:]
    )


@pytest.mark.slow
def test_own_data_with_a_vocabulary_of_the_students_own(tiny, teacher, tmp_path):
    done = own_data(
        tmp_path,
        "--data-bin",
        tiny,
        "--teacher",
        teacher,
        methods="seq_kd,seq_inter",
        vocabulary=70,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    work = tmp_path / "work"
    names = [row["name"] for row in json.loads((work / "report.json").read_text())["rows"]]
    assert names == ["Seq-KD", "Seq-KD + Seq-Inter"]
    assert [r["name"] for r in json.loads((work / "teacher.test.json").read_text())["results"]] == [
        "Teacher"
    ]
    dictionaries = {
        (work / "own" / view / "bin" / f"dict.{lang}.txt").read_text()
        for view in ("seq_kd", "seq_inter")
        for lang in ("de", "en")
    }
    assert len(dictionaries) == 1 and "\u2581" in dictionaries.pop()

    # Another split is another table, and the first one comes back without being measured again.
    first = (work / "report.json").read_text()
    for split in ("valid", "test"):
        words = ["--data-bin", tiny, "--teacher", teacher, "--split", split]
        done = own_data(tmp_path, *words, methods="seq_kd,seq_inter", vocabulary=70)
        assert done.returncode == 0, done.stdout[-3000:]
        assert ((work / "report.json").read_text() == first) == (split == "test")
        assert json.loads((work / f"teacher.{split}.json").read_text())["results"]


@pytest.mark.slow
def test_own_data_with_a_vocabulary_needs_no_test_split_to_report_on_valid(tiny, teacher, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    for file in (tmp_path / "bin").glob("test.*"):
        file.unlink()
    words = ["--data-bin", tmp_path / "bin", "--teacher", teacher, "--split", "valid"]
    done = own_data(tmp_path, *words, methods="seq_kd", vocabulary=70)
    assert done.returncode == 0, done.stdout[-3000:]
    assert [
        row["name"] for row in json.loads((tmp_path / "work" / "report.json").read_text())["rows"]
    ] == ["Seq-KD"]


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"data_bin": "absent"}, "must be a folder of fairseq-preprocess"),
        ({"teacher": "absent"}, "which is no file"),
        ({"methods": "seq_kd,magic"}, "--methods has 'magic'"),
        ({"methods": "seq_inter"}, "which fine-tunes seq_kd"),
        ({"methods": "word_kd_inter"}, "which fine-tunes word_kd"),
        ({"seeds": "2,2"}, "names a seed twice"),
        ({"methods": "seq_kd,word_kd", "vocabulary": 70}, "only seq_kd and seq_inter do"),
        ({"updates": "many"}, "is no positive number"),
        ({"seeds": "one"}, "must be numbers"),
        ({"split": "test1"}, "has no such split"),
        ({"engine": "marian"}, "--engine is 'marian', it must be fairseq or ctranslate2"),
        ({"tuning_lr": "fast"}, "'fast' is no number"),
        ({"lenpen": "1,2"}, "'1,2' is no number"),
        ({"methods": " "}, "--methods is empty"),
    ],
)
def test_own_data_refuses_wrong_options(options, sentence, tiny, teacher, tmp_path):
    done = own_data(tmp_path, **{"data_bin": tiny, "teacher": teacher, **options})
    assert done.returncode != 0 and sentence in done.stdout and not (tmp_path / "work").exists()


def test_own_data_says_before_the_search_what_fairseq_train_does_not_take(tiny, teacher, tmp_path):
    words = ["--data-bin", tiny, "--teacher", teacher]
    done = own_data(tmp_path, *words, training="--optimizer adam --lr 5e-3 --warm-up 2")
    assert done.returncode != 0 and "unrecognized arguments: --warm-up 2" in done.stdout, (
        done.stdout[-3000:]
    )
    assert "fairseq-train does not take these options of --student and --training" in done.stdout
    assert (
        not (tmp_path / "work" / "settings").exists()
        and not (tmp_path / "work" / "distilled").exists()
    )


@pytest.mark.parametrize(
    "methods,training,refused",
    [
        (
            "student,seq_kd,seq_inter",
            "--optimizer adam --lr 5e-3 --label-smoothing 0.1",
            None,
        ),  # the baseline's is smoothed too
        (
            "seq_kd,seq_inter",
            "--optimizer adam --lr 5e-3 --lr-scheduler tri_stage",
            "--warmup-updates",
        ),  # of fine-tuning alone
        ("seq_kd", "--optimizer adam --lr 5e-3 --lr-scheduler tri_stage", None),
        (
            "seq_kd",
            "--optimizer adam --lr 5e-3 --tail ignore",
            None,
        ),  # no criterion of fairseq's is asked
        ("student,seq_kd", "--optimizer adam --lr 5e-3 --tail ignore", "--tail"),
    ],
)
def test_own_data_looks_at_every_kind_of_its_trainings_before_the_search(
    tiny, teacher, tmp_path, methods, training, refused
):
    more = {
        "training": training,
        "methods": methods,
        "text": "--tokenizer wrong",
    }  # the next complaint
    done = own_data(tmp_path, "--data-bin", tiny, "--teacher", teacher, **more)
    complaint = "fairseq-train does not take" if refused else "fairseq-generate does not take"
    assert complaint in done.stdout and (not refused or refused in done.stdout), done.stdout[-2000:]
    assert not (tmp_path / "work" / "distilled").exists()


@pytest.mark.parametrize("rate", ["1", "1.", ".5", "2e-4", "1E+1", "-0.5"])
def test_own_data_knows_a_number(rate, tiny, teacher, tmp_path):
    """It goes on to the next complaint."""
    done = own_data(
        tmp_path, "--data-bin", tiny, "--teacher", teacher, tuning_lr=rate, engine="marian"
    )
    assert "--engine is 'marian'" in done.stdout


@pytest.mark.parametrize("text", ["--bpe marian", "--post-proces"])
def test_own_data_says_before_the_search_what_fairseq_generate_does_not_take(
    tiny, teacher, tmp_path, text
):
    done = own_data(tmp_path, "--data-bin", tiny, "--teacher", teacher, "--text", text)
    assert (
        done.returncode != 0
        and "fairseq-generate does not take these options of --text" in done.stdout
    ), done.stdout[-3000:]
    assert (
        not (tmp_path / "work" / "settings").exists()
        and not (tmp_path / "work" / "distilled").exists()
    )


def test_own_data_needs_a_valid_split(tiny, teacher, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin", ignore=shutil.ignore_patterns("valid.*"))
    done = own_data(tmp_path, "--data-bin", tmp_path / "bin", "--teacher", teacher)
    assert done.returncode != 0 and "bin has no split 'valid', which students need" in done.stdout
    assert not (tmp_path / "work").exists()


def test_own_data_refuses_one_matrix_for_two_dictionaries_before_the_search(
    tiny, teacher, tmp_path
):
    words = ["--data-bin", tiny, "--teacher", teacher]
    (tmp_path / "joined").mkdir()
    for lang in ("de", "en"):
        (tmp_path / "joined" / f"dict.{lang}.txt").write_bytes((tiny / "dict.de.txt").read_bytes())
    for split in ("train", "valid", "test"):
        (tmp_path / "joined" / f"{split}.de-en.de.idx").touch()
    sentence = "has a dictionary for each language"
    done = own_data(tmp_path, *words, student="--arch transformer --share-all-embeddings")
    assert done.returncode != 0 and sentence in done.stdout and not (tmp_path / "work").exists()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings").write_text("others")
    for options in (
        {"data-bin": tmp_path / "joined"},
        {"student": "--arch lstm"},
        {"vocabulary": 70, "methods": "seq_kd"},
    ):
        done = own_data(
            tmp_path, *words, **{"student": "--arch transformer --share-all-embeddings", **options}
        )
        assert done.returncode != 0 and "begun with other options" in done.stdout


def shell(script, **more):
    """Runs a script of bash that has the recipes' functions."""
    head = f'set -euo pipefail\nROOT={ROOT}\n. "$ROOT/recipes/lib.sh"\n'
    return subprocess.Popen(
        ["bash", "-c", head + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


@pytest.mark.parametrize(
    "gpus,batch,at_once,expected",
    # GPUs there are, tokens of a batch, of a device at a time; (GPUs used, tokens of each, times).
    [
        (0, 32000, 4000, (1, 4000, 8)),
        (1, 4096, 8192, (1, 4096, 1)),
        (4, 4096, 4096, (4, 1024, 1)),
        (8, 4096, 4096, (4, 1024, 1)),
        (8, 32000, 4000, (8, 4000, 1)),
        (4, 25000, 4096, (4, 3125, 2)),
        (3, 400000, 4096, (3, 4041, 33)),
        (8, 500, 4096, (1, 500, 1)),
    ],
)
def test_a_batch_is_the_same_however_many_gpus_there_are(gpus, batch, at_once, expected):
    words = shell(f"GPUS={gpus}; batch_of {batch} {at_once}").communicate()[0].split()
    value = {word: words[i + 1] for i, word in enumerate(words[:-1])}
    found = tuple(
        int(value[name]) for name in ("--distributed-world-size", "--max-tokens", "--update-freq")
    )
    assert found == expected and batch <= math.prod(found) < batch * 1.001 and found[1] <= at_once
    assert ("--fp16" in words) == ("--load-checkpoint-on-all-dp-ranks" in words) == (gpus > 0)


@pytest.mark.parametrize("tasks", [None, 1, 8])
def test_a_training_on_several_gpus_is_no_part_of_slurms_job(tasks, tmp_path):
    """fairseq, asked what it makes of four of a node's eight GPUs within a job of sbatch."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho node1\n")
    (tmp_path / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node1", "SLURM_STEP_NODELIST": "node1", "SLURM_NNODES": "1"}
    slurm |= dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0")
    slurm |= {"SLURM_NTASKS": str(tasks)} if tasks else {}
    code = """
import torch
from fairseq.dataclass.configs import DistributedTrainingConfig
from fairseq.distributed.utils import infer_init_method
from omegaconf import OmegaConf
torch.cuda.device_count = lambda: 8
cfg = OmegaConf.structured(DistributedTrainingConfig(distributed_world_size=4, tpu=False))
infer_init_method(cfg)
sizes = cfg.distributed_world_size, cfg.distributed_num_procs
print("processes", *sizes, cfg.distributed_no_spawn, cfg.distributed_init_method)
"""
    environment = environment_with(**slurm, PATH=f"{tmp_path}:{BIN}:{os.environ['PATH']}")
    printed = shell(
        f"WORK={tmp_path}/work; begin_work settings; python -c '{code}'", env=environment
    ).communicate()[0]
    assert "processes 4 4 False tcp://localhost:" in printed, printed


def test_a_checkpoint_that_was_cut_short_is_made_whole(teacher, tmp_path):
    """fairseq's newest checkpoint is whole before it is copied to the names that a training goes on
    from.
    """
    content = teacher.read_bytes()
    for name, part in (
        ("checkpoint1.pt", content[:-1]),
        ("checkpoint_2_100.pt", content),
        ("checkpoint_last.pt", content[:999]),
    ):
        (tmp_path / name).write_bytes(part)
    os.utime(tmp_path / "checkpoint1.pt", (1, 1))
    printed = shell(f"mend_checkpoints {tmp_path}").communicate()[0]
    assert "checkpoint_last.pt was cut short; checkpoint_2_100.pt takes its place" in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint1.pt",
        "checkpoint_2_100.pt",
        "checkpoint_last.pt",
    ]
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == content
    assert (
        shell(f"mend_checkpoints {tmp_path}; mend_checkpoints {tmp_path}/absent").communicate()[0]
        == ""
    )
    for file in tmp_path.iterdir():
        file.write_bytes(content[:999])
    assert "nothing takes its place" in shell(f"mend_checkpoints {tmp_path}").communicate()[
        0
    ] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "last", ["side_by_side quick@1 long@1", "stage quick@1 do_quick; stage long@1 do_long"]
)
def test_an_interrupted_recipe_says_so_stops_what_it_started_and_continues(tmp_path, number, last):
    script = f"""
WORK={tmp_path} JOBS=2
begin_work settings
do_quick() {{ :; }}
do_long() {{
    [ ! -e "$WORK/begun" ] || return 0
    sleep 600 &
    echo $! >"$WORK/begun"
    wait
}}
{last}
echo ended
"""
    run = shell(script, start_new_session=True, preexec_fn=heed_interrupts)
    processes.wait_until(
        lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text().endswith("\n")
    )
    processes.wait_until((tmp_path / "done" / "quick@1").exists)
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1 and said.endswith(
        "interrupted; run the same command again, it continues\n"
    ), said
    assert "ended" not in said and [mark.name for mark in (tmp_path / "done").iterdir()] == [
        "quick@1"
    ]
    sleeper = int((tmp_path / "begun").read_text())
    processes.wait_until(lambda: not processes.is_running(sleeper))

    said, _ = shell(script).communicate(timeout=60)
    assert (
        "quick@1: there" in said and re.search(r"long@1: \d+ s", said) and said.endswith("ended\n")
    )


def test_of_two_processes_that_train_none_outlives_the_other_one(tmp_path):
    (tmp_path / "fairseq-train").write_text(f"""#!/bin/sh
case "$*" in
    *"--distributed-rank 0 "*) while [ ! -e {tmp_path}/other ]; do sleep 0.1; done; exit 1 ;;
esac
echo $$ >{tmp_path}/other
exec sleep 600
""")
    (tmp_path / "fairseq-train").chmod(0o755)
    script = f"""
JOBS=2 PATH={tmp_path}:$PATH
python() {{ return 1; }} # no GPU
train() {{ fairseq-train "$@"; }}
on_both_cores {tmp_path}/run train data || echo ended with $?
"""
    said, _ = shell(script).communicate(timeout=60)
    assert said == "ended with 1\n"
    other = int((tmp_path / "other").read_text())
    processes.wait_until(lambda: not processes.is_running(other))


def test_half_of_an_environment_is_made_anew(tmp_path):
    """As it is left without Debian's python3-venv, or by Ctrl-C while pip is put into it."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    script = f"""
unset VIRTUAL_ENV
find_python() {{ echo makes_one; }}
makes_one() {{
    echo "$*" >{tmp_path}/called
    echo 'export VIRTUAL_ENV={tmp_path}/venv' >{tmp_path}/venv/bin/activate
    for command in fairseq-train seqkd pip; do cp /bin/true {tmp_path}/venv/bin/$command; done
}}
need_environment {tmp_path}/venv '' && echo "in $VIRTUAL_ENV"
"""
    said, _ = shell(script).communicate(timeout=60)
    assert said.splitlines()[-1] == f"in {tmp_path}/venv", said
    assert (tmp_path / "called").read_text() == f"-m venv --clear {tmp_path}/venv\n"
    assert shell(script).communicate(timeout=60)[0] == f"in {tmp_path}/venv\n"
    for gone in (
        "pip",
        "python",
    ):  # as where the Python is not there any more that its links lead to
        (tmp_path / "called").unlink()
        (tmp_path / "venv" / "bin" / gone).unlink()
        shell(script).communicate(timeout=60)
        assert (tmp_path / "called").exists()


@pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="no dpkg-deb, which Debian and Ubuntu have"
)
def test_without_python3_venv_pip_comes_from_a_package(tmp_path):
    """As on a Debian that has python3 alone: no ensurepip, nobody is root, and there are no lists
    of packages.
    """
    ensurepip = pytest.importorskip("ensurepip")
    bundled = (
        sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).parent / "_bundled"
    )
    found = list(Path(bundled).glob("pip-*.whl"))
    if not found:
        pytest.skip("this Python has no wheel of pip")
    wheels = tmp_path / "package" / "usr" / "share" / "python-wheels"
    (tmp_path / "package" / "DEBIAN").mkdir(parents=True)
    wheels.mkdir(parents=True)
    shutil.copy(found[0], wheels)
    facts = (
        "Package: python3-pip-whl\nVersion: 1\nArchitecture: all\nMaintainer: a "
        "<a@b.c>\nDescription: pip\n"
    )
    (tmp_path / "package" / "DEBIAN" / "control").write_text(facts)
    subprocess.run(
        ["dpkg-deb", "-b", tmp_path / "package", tmp_path / "pip.deb"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = f"""
bare() {{ [[ "$*" == *--without-pip* ]] && {sys.executable} "$@"; }}
apt-get() {{
    case "$*" in
        *Lists=*update) touch {tmp_path}/updated ;;
        *download\\ python3-pip-whl)
            [ -e {tmp_path}/updated ] && cp {tmp_path}/pip.deb python3-pip-whl_1_all.deb ;;
    esac
}}
make_environment bare {tmp_path}/venv && {tmp_path}/venv/bin/pip --version
"""
    said, _ = shell(script).communicate(timeout=60)
    assert f"from {tmp_path}/venv/lib" in said.splitlines()[-1], said
    assert not (tmp_path / "venv" / "package").exists()
    assert shell(script.replace("cp ", "false ")).communicate(timeout=60)[0] == ""


def quickstart_with(fakes, folder, *words, **variables):
    """Quickstart, with commands of the distribution that are scripts of the test."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, content in fakes.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{content}\n")
        (folder / "bin" / name).chmod(0o755)
    environment = environment_with(
        VIRTUAL_ENV=sys.prefix,
        PATH=f"{folder / 'bin'}:{BIN}:/usr/local/bin:/usr/bin:/bin",
        **variables,
    )
    done = subprocess.run(
        ["bash", RECIPES / "quickstart.sh", "--work", folder / "work", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    return done.stdout


def test_a_package_whose_download_broke_off_is_fetched_again(tmp_path):
    fakes = {
        "apt-get": 'for name; do :; done\nprintf "%s" "$APT_GIVES" >"${name}_1_all.deb"; [ '
        '"$APT_GIVES" = whole ]',
        "dpkg-deb": 'cat "$2"; exit 1',
    }
    words = ["--text", "help", "--pair", "es-en"]
    assert "cannot fetch libreoffice-help-es" in quickstart_with(
        fakes, tmp_path, *words, APT_GIVES="half"
    )
    assert (
        quickstart_with(fakes, tmp_path, *words, APT_GIVES="whole")
        .splitlines()[-1]
        .startswith("whole")
    )


def test_descriptions_are_fetched_without_touching_the_machines_lists(tmp_path):
    """The fake is offline first, then gives the lists of the test, of which too little is left to
    train on.
    """
    (tmp_path / "lists").mkdir()
    make_lists(tmp_path / "lists")
    fakes = {"apt-get": 'echo "$@" >>"$SAID"; [ -n "$LISTS" ] || exit 100\ncp "$LISTS"/* "${2#*=}"'}
    said = tmp_path / "said"
    offline = quickstart_with(fakes, tmp_path, LISTS="", SAID=str(said))
    assert (
        "apt-get could not fetch all lists" in offline
        and "no list of descriptions in 'da'" in offline
    )
    assert "only 3 sentence pairs are left" in quickstart_with(
        fakes, tmp_path, LISTS=str(tmp_path / "lists"), SAID=str(said)
    )
    packages = tmp_path / "work" / "packages"
    for call in said.read_text().splitlines():
        assert call.split()[:4] == [
            "-o",
            f"Dir::State::Lists={packages / 'lists'}",
            "-o",
            f"Dir::Cache={packages}",
        ]
        assert call.endswith(" update") and "Acquire::Languages=da,en" in call


def test_stages_that_end_at_once_are_not_taken_for_failed_ones(tmp_path):
    """All of a run that is repeated are such."""
    script = f"WORK={tmp_path} JOBS=2\ndo_quick() {{ :; }}\nside_by_side quick@{{1..40}}\n"
    for _ in range(3):
        run = shell(script)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 0 and said.count("  quick@") == 40, said


def test_stages_run_side_by_side_behind_ones_that_end_at_once(tmp_path):
    """Two that wait for each other end only if both run."""
    script = f"""
WORK={tmp_path} JOBS=2
do_quick() {{ :; }}
do_meet() {{
    touch "$WORK/met.$1"
    for _ in $(seq 100); do [ ! -e "$WORK/met.$((3 - $1))" ] || return 0; sleep 0.1; done
    return 1
}}
side_by_side quick@{{1..40}} meet@1 meet@2
"""
    run = shell(script)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0 and said.count("  meet@") == 2, said


def test_nothing_waits_for_ever_for_a_stage_that_failed(tmp_path):
    """Where bash has lost the code of a job, as it may of those that end at once, a stage that
    waits for it has to see it.
    """
    script = f"""
WORK={tmp_path} JOBS=2
begin_work settings
wait_for_one() {{ wait -n || true; }}
do_bad() {{ false; }}
do_waiting() {{ after bad@1; echo "went on"; }}
side_by_side bad@1 waiting@1
"""
    run = shell(script)
    said, _ = run.communicate(timeout=60)
    assert (
        run.returncode == 1
        and "bad@1, which this stage waits for, has failed" in said
        and "went on" not in said
    ), said
    run = shell(script.replace("{ false; }", "{ :; }"))  # its mark is of that run alone
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and "waiting@1: " in said, said


def test_a_stage_is_waited_for_behind_one_that_ends_before_it(tmp_path):
    """As Table 2 behind a Table 1 that is there: `wait -n` returns for any of them."""
    script = f"""
WORK={tmp_path} JOBS=2
do_quick() {{ :; }}
do_slow() {{ sleep 0.5; }}
as_a_job quick do_quick
stage slow do_slow
echo on
"""
    run = shell(script)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and said.endswith("on\n") and "  slow: " in said, said
