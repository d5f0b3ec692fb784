"""The traps of fairseq: a table names the tests that show that we are out of each. Those that no other module has are here."""

import argparse
import ast
import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import helpers
import pytest
import torch
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

TRAPS = {  # number or name: (the trap, tests that show that we are out of it)
    1: (
        "the last batch is dropped where its size is no multiple of 8, and with it the longest sentences",
        "test_decoding.py::test_fairseqs_batch_multiple_drops_nothing",
        "test_evaluation.py::test_every_sentence_counts_and_tied_weights_count_once",
        "test_traps.py::test_recipes_train_on_every_sentence",
        "test_inspect.py::test_the_doctor_sees_whether_batches_lose_sentences",
    ),
    2: (
        "modules of a criterion are optimised, saved, wrapped by DDP, and set to training mode at every step",
        "test_criterions.py::test_the_teacher_is_no_part_of_the_criterion",
        "test_students.py::test_no_teacher_tensor_is_in_the_checkpoint_or_the_optimizer",
    ),
    3: (
        "building a model replaces the task's generator: validation BLEU would be the teacher's",
        "test_criterions.py::test_the_teacher_does_not_replace_the_students_generator",
        "test_students.py::test_validation_is_the_students",
    ),
    4: (
        "only registered modules are moved to a device and halved",
        "test_traps.py::test_a_teacher_follows_the_students_device_and_on_a_gpu_its_precision",
        "test_setups.py::test_bfloat16",
    ),
    5: (
        "a run is resumed only with the criterion that it began with; going on with another is fine-tuning",
        "test_students.py::test_seq_kd_trains_resumes_and_seq_inter_fine_tunes_it",
    ),
    6: (
        "a criterion may not take **kwargs; the loss of a dummy batch is multiplied by 0, and must be finite",
        "test_criterions.py::test_alpha_0_equals_fairseqs_own_criterion",
        "test_loss.py::test_no_nan_at_the_limits",
        "test_distributions.py::test_a_batch_that_does_not_count_may_come_from_the_validation_split",
    ),
    7: (
        "fairseq-generate ignores --num-shards; shards are --distributed-world-size and --distributed-rank",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
        "test_decoding.py::test_shards_write_the_same_bytes",
    ),
    8: (
        "--results-path begins anew every time; text is in the order of batches, with scores in base 2",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
        "test_decoding.py::test_the_mode_is_what_fairseq_generate_prints",
        "test_decoding.py::test_log_probabilities_are_the_teachers",
        "test_decoding.py::test_what_a_dead_worker_left_half_written_is_never_read",
    ),
    9: (
        "sentences that are too long raise, or vanish with a warning",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
        "test_decoding.py::test_over_long_sources_are_left_out_counted_and_listed",
        "test_distributions.py::test_sentences_that_the_teacher_cannot_read_are_listed",
    ),
    10: (
        "of several data directories fairseq-generate reads the first",
        "test_traps.py::test_several_data_directories_are_refused",
    ),
    11: (
        "while it scores its text, fairseq-generate adds words to the dictionary",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
    ),
    12: (
        "hypotheses may be the same text; a beam is smaller than the dictionary, whatever was asked for",
        "test_selection.py::test_equal_texts_are_scored_once",
        "test_traps.py::test_a_beam_beyond_the_dictionary_finds_fewer_hypotheses",
    ),
    13: (
        "--user-dir imports a package, its tasks/ and models/, but no criterions/, nor a second package of that name",
        "test_students.py::test_seq_kd_trains_resumes_and_seq_inter_fine_tunes_it",
        "test_decoding.py::test_every_sentence_is_there_once",
        "test_decode_command.py::test_what_is_not_ours_goes_to_fairseq_as_it_is",
    ),
    14: (
        "with nothing to decode fairseq-generate divides by zero",
        "test_decoding.py::test_what_a_dead_worker_left_half_written_is_never_read",
    ),
    15: (
        "a task sees the search's options by interpolation only, and --bpe in what it builds",
        "test_decoding.py::test_a_directory_begun_with_other_options_is_refused_and_untouched",
        "test_traps.py::test_similarity_is_that_of_text_without_bpe",
    ),
    16: (
        "fairseq counts GPUs to start processes, so on CPUs it starts none",
        "test_setups.py::test_torchrun",
        "test_setups.py::test_two_processes_are_one_that_waits_for_two_batches",
    ),
    17: (
        "SLURM runs on one machine, so a job array can be tried (recipes/slurm/test.sh does)",
        "test_slurm.py::test_a_job_array_leaves_the_bytes_of_one_process",
        "test_slurm.py::test_a_worker_killed_in_the_middle_leaves_no_trace",
    ),
    18: (
        "fairseq-generate knows no RANK and no LOCAL_RANK: everybody decodes everything on GPU 0",
        "test_rank.py::test_the_rank_comes_from_the_environment",
        "test_decode_command.py::test_a_worker_has_one_thread_and_its_gpu",
    ),
    19: (
        "the order of sentences depends on the seed and on gold's lengths, by which fairseq also drops some",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
        "test_corpus.py::test_every_sentence_is_in_one_batch_of_its_part",
    ),
    20: (
        "--quiet makes text and scores it all the same; only an empty batch has none",
        "test_traps.py::test_options_that_cost_fairseq_generate_sentences_change_nothing",
    ),
    21: (
        "of two options with one name the second is dropped without a word",
        "test_traps.py::test_our_options_are_no_others",
    ),
    22: (
        "binarised files are overwritten in place, merged wrongly beyond 2 GiB, and not mapped without a token",
        "test_traps.py::test_binarising_into_gold_again_leaves_the_views_as_they_are",
        "test_decoding.py::test_everything_else_in_a_view_is_gold",
        "test_corpus.py::test_the_writer_writes_fairseqs_bytes",
        "test_decoding.py::test_filters_that_leave_nothing_are_one_sentence_and_the_hypotheses_are_kept",
    ),
    23: (
        "an exception in forward is a crash; --eval-bleu builds a teacher's generator; ranks must log the same keys",
        "test_students.py::test_fairseq_train_ends_with_one_sentence",
        "test_teachers.py::test_a_teacher_trained_with_eval_bleu_loads",
        "test_setups.py::test_two_processes_are_one_that_waits_for_two_batches",
    ),
    24: (
        "checkpoint_best.pt has the best loss on gold, which Seq-KD makes worse",
        "test_traps.py::test_no_recipe_takes_a_students_best_checkpoint",
    ),
    25: (
        "ids count through concatenated data, upsampling repeats them, a dummy batch may be of the validation split",
        "test_distributions.py::test_concatenated_and_repeated_data",
        "test_distributions.py::test_a_batch_that_does_not_count_may_come_from_the_validation_split",
    ),
    26: (
        "old momentum, averages and flattened parameters bring pruned weights back",
        "test_pruning.py::test_zeros_stay_zero",
        "test_pruning.py::test_zeros_stay_zero_in_bf16",
        "test_pruning.py::test_zeros_stay_zero_in_two_processes",
        "test_pruning.py::test_the_command_writes_a_stock_checkpoint_and_a_table",
        "test_pruning.py::test_matrices_that_are_cut_up_are_refused",
    ),
    27: (
        "--bf16 means TPUs, --fp16 without a GPU needs another option, fairseq-hydra-train finds no plugin's criterion",
        "test_setups.py::test_bfloat16",
        "test_setups.py::test_half_precision_on_the_cpu_is_near_full",
        "test_traps.py::test_no_page_runs_fairseq_hydra_train",
    ),
    28: (
        "importing fairseq takes four seconds",
        "test_cli.py::test_help_needs_no_heavy_library",
        "test_report.py::test_importing_the_report_needs_no_torch",
    ),
    "NumPy": (
        "checkpoints hold NumPy values, which torch does not load with weights only",
        "test_teachers.py::test_a_checkpoint_with_numpy_values_loads",
        "test_students.py::test_validation_is_the_students",
        "test_teachers.py::test_reading_never_loads_more_than_weights",
    ),
    "threads": (
        "the last bits of a score depend on the number of threads",
        "test_traps.py::test_resuming_with_other_threads_gives_the_same_bytes",
    ),
    "names": (
        "settings are handed on as strings in quotes, in which a file name may have some of its own",
        "test_traps.py::test_any_file_name_will_do",
    ),
}


@pytest.mark.parametrize("trap", [*range(1, 29), "NumPy", "threads", "names"])
def test_every_trap_has_a_test(trap):
    _, *tests = TRAPS[trap]
    assert tests
    for test in tests:
        module, name = test.split("::")
        tree = ast.parse(next((helpers.ROOT / "tests").rglob(module)).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# Decoding.

VALID = 53  # sentences


def decode(data, teacher, out, **more):
    """A small decode: the valid split, in four parts."""
    return helpers.decode(data, teacher, out, **{"gen_subset": "valid", "part_size": 16, **more})


@pytest.fixture(scope="module")
def decoded(tiny, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("valid") / "out"
    decode(tiny, teacher, out)
    return out


def test_options_that_cost_fairseq_generate_sentences_change_nothing(
    decoded, tiny, teacher, tmp_path
):
    """Its shards, limits, multiples and seeds are not those of the plan, and no text is made: there is nothing to print."""
    more = {
        "num_shards": 2, "shard_id": 1, "required_batch_size_multiple": 8, "seed": 7, "max_target_positions": 4,
        "skip_invalid_size_inputs_valid_test": True, "results_path": tmp_path / "text", "post_process": "@@ ",
    }  # fmt: skip
    done = decode(tiny, teacher, tmp_path / "out", **more)
    assert (
        helpers.tree(tmp_path / "out") == helpers.tree(decoded)
        and len(NBestStore(decoded)) == VALID
    )
    printed = done.stdout + (tmp_path / "text" / "generate-valid.txt").read_text()
    assert "is complete" in printed and not re.search(
        r"^[STHDP]-\d|BLEU4? = ", printed, re.MULTILINE
    )


def test_several_data_directories_are_refused(tiny, teacher, tmp_path):
    done = decode(f"{tiny}:{tiny}", teacher, tmp_path / "out", check=False)
    assert "name one data directory" in helpers.refusal(done) and not (tmp_path / "out").exists()


def test_a_beam_beyond_the_dictionary_finds_fewer_hypotheses(tiny, teacher, tmp_path):
    size = len(Dictionary.load(str(tiny / "dict.en.txt")))
    decode(tiny, teacher, tmp_path / "out", gen_subset="test", beam=size + 8, nbest=size + 8)
    store = NBestStore(tmp_path / "out")
    for i in range(len(store)):
        assert len({tuple(h.tokens.tolist()) for h in store[i]}) == len(store[i]) == size - 1
    assert helpers.read_manifest(tmp_path / "out")["complete"] and len(store) == 45


def test_similarity_is_that_of_text_without_bpe(decoded, tiny, teacher, tmp_path):
    """Of subwords, --bpe makes the text that --post-process makes by default."""
    (tmp_path / "codes").write_text("#version: 0.2\nd o\n")
    decode(tiny, teacher, tmp_path / "out", bpe="subword_nmt", bpe_codes=tmp_path / "codes")
    settings = helpers.read_manifest(tmp_path / "out")["settings"]["similarity"]
    assert (settings["bpe"], settings["post_process"]) == ("subword_nmt", None)
    codes = hashlib.sha256((tmp_path / "codes").read_bytes()).hexdigest()
    assert settings["decoders"] == {"bpe_codes": codes, "bpe_separator": "@@"}
    assert "decoders" not in helpers.read_manifest(decoded)["settings"]["similarity"]
    other = {"bpe": "subword_nmt", "bpe_codes": tmp_path / "codes", "bpe_separator": "##"}
    refused = decode(tiny, teacher, tmp_path / "out", **other, check=False)
    assert 'similarity.decoders.bpe_separator was "@@", now "##"' in helpers.refusal(refused)
    found, expected = (NBestStore(folder) for folder in (tmp_path / "out", decoded))
    for i in range(VALID):
        assert [h.similarity for h in found[i]] == [h.similarity for h in expected[i]]


def test_similarity_is_that_of_text_as_the_options_make_it(decoded, tiny, teacher, tmp_path):
    """Subwords stay apart, and --tokenizer detokenises; beside sacrebleu on text that was made by hand."""
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

    found, others = NBestStore(tmp_path / "out"), NBestStore(decoded)
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


@pytest.mark.slow
def test_resuming_with_other_threads_gives_the_same_bytes(decoded, tiny, teacher, tmp_path):
    """A process with one thread leaves one part to a process that is given two."""
    out = tmp_path / "out"
    unfinished = Distilled(out, manifest.read(decoded).settings, parts=4)
    unfinished.begin()
    with lock(unfinished.parts_folder / "000002.lock") as mine:  # as another worker would hold it
        decode(tiny, teacher, out)
    assert mine and unfinished.done() == {0, 1, 3}
    arguments = helpers.decode_command(tiny, teacher, out, gen_subset="valid", part_size=16)
    two = helpers.environment(OMP_NUM_THREADS="2")
    done = subprocess.run(
        [sys.executable, "-c", RESUME, *arguments], env=two, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "threads: 2, then 1" in done.stdout
    assert helpers.tree(out) == helpers.tree(decoded)


def test_any_file_name_will_do(decoded, tiny, teacher, tmp_path):
    """For the data, the teacher and what is made of them: in a decode, in its inspection, and in a training with both."""
    folder = tmp_path / """it's a "große" 例, {1} = $2"""
    data, path, out = folder / "data bin", folder / "teacher's.pt", folder / "distilled 'ü'"
    shutil.copytree(tiny, data)
    shutil.copy(teacher, path)
    decode(data, path, out)
    assert helpers.tree(out) == helpers.tree(decoded)
    assert str(out) in helpers.command("seqkd", "inspect", out, "--ids", 0, "--data", data).stdout
    more = {
        "criterion": "seq_kd",
        "teacher_path": path,
        "max_update": 1,
        "disable_validation": True,
    }
    helpers.train(out / "seq_kd", folder / "save", train_subset="valid", **more)
    assert (folder / "save" / "checkpoint_last.pt").is_file()


def test_binarising_into_gold_again_leaves_the_views_as_they_are(tiny, teacher, tmp_path):
    """fairseq-preprocess empties the files that are there and fills them anew: links to them would change, too."""
    gold, out = tmp_path / "gold", tmp_path / "out"
    shutil.copytree(tiny, gold)
    decode(gold, teacher, out)
    before, gold_before = helpers.tree(out), helpers.tree(gold)
    text = {"validpref": tiny.parent / "text" / "test", "testpref": tiny.parent / "text" / "valid"}
    same = {"srcdict": tiny / "dict.de.txt", "tgtdict": tiny / "dict.en.txt", "workers": 1}
    words = helpers.flags(text, same, {"source-lang": "de", "target-lang": "en", "destdir": gold})
    helpers.command("fairseq-preprocess", *words)
    changed = {name for name, content in helpers.tree(gold).items() if content != gold_before[name]}
    assert {"valid.de-en.de.bin", "test.de-en.en.idx"} <= changed
    assert helpers.tree(out) == before
    sentence = helpers.refusal(decode(gold, teacher, out, check=False))
    assert "data.sentences was 53, now 45" in sentence and "data.source_sha256 was" in sentence
    with pytest.raises(Refusal, match="is not the data-bin that"):
        cli.main(["select", str(out), "--data", str(gold), "-o", str(tmp_path / "new")])
    assert helpers.tree(out) == before and not (tmp_path / "new").exists()


# Teachers and options.


class Stub(torch.nn.Linear):
    """A teacher that reads numbers."""

    def get_normalized_probs(self, net_output, log_probs):
        return net_output.log_softmax(-1)


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
    """The options of an optimizer, a model and so on, in either of the ways in which fairseq declares them."""
    parser = argparse.ArgumentParser(add_help=False)
    if hasattr(cls, "add_args"):
        cls.add_args(parser)
    elif getattr(cls, "__dataclass", None):
        gen_parser_from_dataclass(parser, cls.__dataclass())
    return strings(parser)


def strings(parser):
    return {string for action in parser._actions for string in action.option_strings}


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

FOLDERS = [helpers.ROOT / "recipes", helpers.ROOT / "examples"]
SCRIPTS = [
    file for folder in FOLDERS for ending in ("sh", "md") for file in folder.rglob(f"*.{ending}")
]
PAGES = [helpers.ROOT / "README.md", *(helpers.ROOT / "docs").glob("*.md"), *SCRIPTS]


def pages_that_train(*endings):
    """{name: text} of the pages of recipes and examples that run fairseq-train."""
    pages = {page.name: page.read_text() for page in SCRIPTS if page.suffix in endings}
    training = {
        name: text
        for name, text in pages.items()
        if re.search(r"^ *fairseq-train ", text, re.MULTILINE)
    }
    assert {
        "quickstart.sh",
        "paper.sh",
        "small.sh",
        "own_data.sh",
        "benchmark.sh",
    } <= training.keys()
    return training


def test_recipes_train_on_every_sentence():
    training = pages_that_train(".sh", ".md")
    assert [
        name for name, text in training.items() if "--required-batch-size-multiple 1 " not in text
    ] == []


def test_recipes_say_how_many_devices_train():
    """Without a number fairseq takes all GPUs, and a batch becomes as many times larger; batch_of counts them."""
    counted = ("--distributed-world-size", "$(batch_of ")
    assert [
        name
        for name, text in pages_that_train(".sh").items()
        if not any(word in text for word in counted)
    ] == []


def test_no_recipe_takes_a_students_best_checkpoint():
    """A teacher may: it is trained on gold."""
    folders = [
        folder
        for page in PAGES
        for folder in re.findall(r"(\S*)/checkpoint_best", page.read_text())
    ]
    assert [folder for folder in folders if not folder.endswith("teacher")] == []


def test_no_page_runs_fairseq_hydra_train():
    assert [
        page.name
        for page in PAGES
        if re.search(r"^ *fairseq-hydra-train ", page.read_text(), re.MULTILINE)
    ] == []
