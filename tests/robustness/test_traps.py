"""Traps of fairseq (tests/support/traps.py lists them) whose tests have no other place."""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import folders
import manifests
import pytest
import torch
import toys
from commands import ROOT, environment_with, refusal, run_here
from fairseq import options
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.data import Dictionary, data_utils
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.translation import TranslationConfig

from fairseq_seqkd import cli
from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.criterions.word_kd import WordKDConfig
from fairseq_seqkd.decoding.config import TeacherDecodingConfig
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.teacher import Teacher

# Decoding.

VALID = 53  # sentences


def decode(data, teacher, out, **more):
    """A small decode: the valid split, in four parts."""
    return toys.decode(data, teacher, out, **{"gen_subset": "valid", "part_size": 16, **more})


@pytest.mark.trap(7, 8, 9, 11, 19, 20)
def test_options_that_cost_fairseq_generate_sentences_change_nothing(
    distilled_valid, tiny, teacher, tmp_path
):
    """Its shards, limits, multiples and seeds are not those of the plan, and no text is made: there
    is nothing to print.
    """
    more = {
        "num_shards": 2,
        "shard_id": 1,
        "required_batch_size_multiple": 8,
        "seed": 7,
        "max_target_positions": 4,
        "skip_invalid_size_inputs_valid_test": True,
        "results_path": tmp_path / "text",
        "post_process": "@@ ",
    }
    done = decode(tiny, teacher, tmp_path / "out", **more)
    assert (
        folders.tree(tmp_path / "out") == folders.tree(distilled_valid)
        and len(NBestStore(distilled_valid)) == VALID
    )
    printed = done.stdout + (tmp_path / "text" / "generate-valid.txt").read_text()
    assert "is complete" in printed and not re.search(
        r"^[STHDP]-\d|BLEU4? = ", printed, re.MULTILINE
    )


@pytest.mark.trap(10)
def test_several_data_directories_are_refused(tiny, teacher, tmp_path):
    done = decode(f"{tiny}:{tiny}", teacher, tmp_path / "out", check=False)
    assert "name one data directory" in refusal(done) and not (tmp_path / "out").exists()


@pytest.mark.trap(12)
def test_a_beam_beyond_the_dictionary_finds_fewer_hypotheses(tiny, teacher, tmp_path):
    size = len(Dictionary.load(str(tiny / "dict.en.txt")))
    decode(tiny, teacher, tmp_path / "out", gen_subset="test", beam=size + 8, nbest=size + 8)
    store = NBestStore(tmp_path / "out")
    for i in range(len(store)):
        assert len({tuple(h.tokens.tolist()) for h in store[i]}) == len(store[i]) == size - 1
    assert manifests.read(tmp_path / "out")["complete"] and len(store) == 45


@pytest.mark.trap(15)
def test_similarity_is_that_of_text_without_bpe(distilled_valid, tiny, teacher, tmp_path):
    """Of subwords, --bpe makes the text that --post-process makes by default."""
    (tmp_path / "codes").write_text("#version: 0.2\nd o\n")
    decode(tiny, teacher, tmp_path / "out", bpe="subword_nmt", bpe_codes=tmp_path / "codes")
    settings = manifests.read(tmp_path / "out")["settings"]["similarity"]
    assert (settings["bpe"], settings["post_process"]) == ("subword_nmt", None)
    codes = hashlib.sha256((tmp_path / "codes").read_bytes()).hexdigest()
    assert settings["decoders"] == {"bpe_codes": codes, "bpe_separator": "@@"}
    assert "decoders" not in manifests.read(distilled_valid)["settings"]["similarity"]
    other = {"bpe": "subword_nmt", "bpe_codes": tmp_path / "codes", "bpe_separator": "##"}
    refused = decode(tiny, teacher, tmp_path / "out", **other, check=False)
    assert 'similarity.decoders.bpe_separator was "@@", now "##"' in refusal(refused)
    found, expected = (NBestStore(folder) for folder in (tmp_path / "out", distilled_valid))
    for i in range(VALID):
        assert [h.similarity for h in found[i]] == [h.similarity for h in expected[i]]


def test_similarity_is_that_of_text_as_the_options_make_it(
    distilled_valid, tiny, teacher, tmp_path
):
    """Subwords stay apart, and --tokenizer detokenises; beside sacrebleu on text that was made by
    hand.
    """
    sacremoses, sacrebleu = pytest.importorskip("sacremoses"), pytest.importorskip("sacrebleu")
    decode(
        tiny,
        teacher,
        tmp_path / "out",
        post_process="none",
        tokenizer="moses",
        source_lang="de",
        target_lang="en",
    )
    dictionary, moses = (
        Dictionary.load(str(tiny / "dict.en.txt")),
        sacremoses.MosesDetokenizer("en"),
    )
    bleu = sacrebleu.metrics.BLEU(effective_order=True)
    gold = data_utils.load_indexed_dataset(str(tiny / "valid.de-en.en"), dictionary)

    def text(tokens):
        return moses.detokenize([dictionary[i] for i in tokens if i != dictionary.eos()])

    found, others = NBestStore(tmp_path / "out"), NBestStore(distilled_valid)
    for i in range(VALID):
        for hypothesis in found[i]:
            expected = bleu.sentence_score(
                text(hypothesis.tokens.tolist()), [text(gold[i].tolist())]
            ).score
            assert hypothesis.similarity == pytest.approx(expected, abs=1e-4)
    assert [h.similarity for i in range(VALID) for h in found[i]] != [
        h.similarity for i in range(VALID) for h in others[i]
    ]


RESUME = """
import torch
from fairseq_cli.generate import cli_main
before = torch.get_num_threads()
try:
    cli_main()
finally:
    print(f"threads: {before}, then {torch.get_num_threads()}")
"""


@pytest.mark.trap("threads")
@pytest.mark.slow
def test_resuming_with_other_threads_gives_the_same_bytes(distilled_valid, tiny, teacher, tmp_path):
    """A process with one thread leaves one part to a process that is given two."""
    out = tmp_path / "out"
    unfinished = Distilled(out, manifest.read(distilled_valid).settings, parts=4)
    unfinished.begin()
    with lock(unfinished.parts_folder / "000002.lock") as mine:  # as another worker would hold it
        decode(tiny, teacher, out)
    assert mine and unfinished.done() == {0, 1, 3}
    arguments = toys.decode_command(tiny, teacher, out, gen_subset="valid", part_size=16)
    two = environment_with(OMP_NUM_THREADS="2")
    done = subprocess.run(
        [sys.executable, "-c", RESUME, *arguments], env=two, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "threads: 2, then 1" in done.stdout
    assert folders.tree(out) == folders.tree(distilled_valid)


@pytest.mark.trap("names")
def test_any_file_name_will_do(distilled_valid, tiny, teacher, tmp_path):
    """For the data, the teacher and what is made of them: in a decode, in its inspection, and in a
    training with both.
    """
    folder = tmp_path / """it's a "große" 例, {1} = $2"""
    data, path, out = folder / "data bin", folder / "teacher's.pt", folder / "distilled 'ü'"
    shutil.copytree(tiny, data)
    shutil.copy(teacher, path)
    decode(data, path, out)
    assert folders.tree(out) == folders.tree(distilled_valid)
    assert str(out) in run_here("seqkd", "inspect", out, "--ids", 0, "--data", data).stdout
    more = {
        "criterion": "seq_kd",
        "teacher_path": path,
        "max_update": 1,
        "disable_validation": True,
    }
    toys.train(out / "seq_kd", folder / "save", train_subset="valid", **more)
    assert (folder / "save" / "checkpoint_last.pt").is_file()


@pytest.mark.trap(22)
def test_binarising_into_gold_again_leaves_the_views_as_they_are(tiny, teacher, tmp_path):
    """fairseq-preprocess empties the files that are there and fills them anew: links to them would
    change, too.
    """
    gold, out = tmp_path / "gold", tmp_path / "out"
    shutil.copytree(tiny, gold)
    decode(gold, teacher, out)
    before, gold_before = folders.tree(out), folders.tree(gold)
    text = {"validpref": tiny.parent / "text" / "test", "testpref": tiny.parent / "text" / "valid"}
    same = {"srcdict": tiny / "dict.de.txt", "tgtdict": tiny / "dict.en.txt", "workers": 1}
    words = toys.flags(text, same, {"source-lang": "de", "target-lang": "en", "destdir": gold})
    run_here("fairseq-preprocess", *words)
    changed = {name for name, content in folders.tree(gold).items() if content != gold_before[name]}
    assert {"valid.de-en.de.bin", "test.de-en.en.idx"} <= changed
    assert folders.tree(out) == before
    sentence = refusal(decode(gold, teacher, out, check=False))
    assert "data.sentences was 53, now 45" in sentence and "data.source_sha256 was" in sentence
    with pytest.raises(Refusal, match="is not the data-bin that"):
        cli.main(["select", str(out), "--data", str(gold), "-o", str(tmp_path / "new")])
    assert folders.tree(out) == before and not (tmp_path / "new").exists()


# Teachers and options.


class Stub(torch.nn.Linear):
    """A teacher that reads numbers."""

    def get_normalized_probs(self, net_output, log_probs):
        return net_output.log_softmax(-1)


@pytest.mark.trap(4)
@pytest.mark.parametrize(
    "student,expected",
    [
        (
            ("meta", torch.half),
            ("meta", torch.half),
        ),  # a device that computes nothing, in place of a GPU
        (("meta", torch.float), ("meta", torch.float)),
        (("cpu", torch.half), ("cpu", torch.float)),
    ],
)
def test_a_teacher_follows_the_students_device_and_on_a_gpu_its_precision(student, expected):
    model = Stub(2, 3)
    sample = {"net_input": {"input": torch.zeros(1, 4, 2, device=expected[0], dtype=expected[1])}}
    found = Teacher([model]).log_probs(sample, torch.zeros(1, device=student[0], dtype=student[1]))
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {expected}
    assert found.dtype == torch.float and found.shape == (1, 4, 3)


def options_of(cls):
    """The options of an optimizer, a model and so on, in either of the ways in which fairseq
    declares them.
    """
    parser = argparse.ArgumentParser(add_help=False)
    if hasattr(cls, "add_args"):
        cls.add_args(parser)
    elif getattr(cls, "__dataclass", None):
        gen_parser_from_dataclass(parser, cls.__dataclass())
    return strings(parser)


def strings(parser):
    return {string for action in parser._actions for string in action.option_strings}


@pytest.mark.trap(21)
@pytest.mark.parametrize(
    "ours,stock,parser",
    [
        (WordKDConfig, LabelSmoothedCrossEntropyCriterionConfig, options.get_training_parser),
        (TeacherDecodingConfig, TranslationConfig, options.get_generation_parser),
    ],
)
def test_our_options_are_no_others(ours, stock, parser):
    # But those that take the value of an option of fairseq's, under its own name.
    asked = {field.name for field in fields(ours) if str(field.default).startswith("${")}
    new = {field.name for field in fields(ours)} - {field.name for field in fields(stock)} - asked
    groups = {
        name: group["registry"].values()
        for name, group in REGISTRIES.items()
        if name != "criterion"
    }
    tasks = {task for name, task in TASK_REGISTRY.items() if name.startswith("translation")}
    found = {
        *tasks,
        *ARCH_MODEL_REGISTRY.values(),
        *(cls for group in groups.values() for cls in group),
    }
    theirs = strings(parser()).union(*map(options_of, found))
    assert {"--cpu", "--adam-betas", "--encoder-layers", "--eval-bleu"} <= theirs
    assert not {f"--{name.replace('_', '-')}" for name in new} & theirs


# What users are told.

FOLDERS = [ROOT / "recipes", ROOT / "examples"]
SCRIPTS = [
    file for folder in FOLDERS for ending in ("sh", "md") for file in folder.rglob(f"*.{ending}")
]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *SCRIPTS]


@pytest.mark.trap(24)
def test_no_recipe_takes_a_students_best_checkpoint():
    """A teacher may: it is trained on gold."""
    folders = [
        folder
        for page in PAGES
        for folder in re.findall(r"(\S*)/checkpoint_best", page.read_text())
    ]
    assert [folder for folder in folders if not folder.endswith("teacher")] == []
