"""Checks of the options of teacher_decoding, without running a command."""

import pytest
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import fairseq_seqkd
from fairseq_seqkd.decoding import checks
from fairseq_seqkd.errors import Refusal


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory in which fairseq finds a language pair."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "train.de-en.de.idx").touch()
    return folder


def configuration(data, *words, distill_dir="distilled"):
    """The task's configuration, as fairseq-generate makes it of a command line."""
    fairseq_seqkd.register()
    parser = fairseq_options.get_generation_parser(default_task="teacher_decoding")
    command = [str(data), "--path", "teacher.pt", "--cpu", *map(str, words)]
    if distill_dir:
        command += ["--distill-dir", distill_dir]
    return convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, command)).task


def refusal(data, *words, **more):
    with pytest.raises(Refusal) as error:
        checks.check_options(configuration(data, *words, **more))
    return error.value.sentence


def test_sound_options_pass(data):
    checks.check_options(configuration(data, "--beam", 5, "--nbest", 5, "--filter-copy", 0.8))


def test_all_wrong_options_are_reported_at_once(data):
    """One line for each, in one refusal."""
    sentence = refusal(data, "--beam", 2, "--nbest", 3, "--filter-copy", 2, "--part-size", -1)
    first, *lines = sentence.splitlines()
    assert first == "3 problems:" and len(lines) == 3
    assert "--part-size is -1" in lines[0]
    assert "--nbest 3 asks for more hypotheses than --beam 2" in lines[1]
    assert "--filter-copy is 2.0, it must be a share" in lines[2]


def test_one_cause_is_one_problem(data):
    """--fp16 on a CPU is wrong for each of three reasons under CTranslate2: the first is enough."""
    assert refusal(data, "--fp16", "--engine", "ctranslate2").startswith("--fp16 is for --engine")
    assert refusal(data, "--fp16").startswith("--fp16 is for GPUs")


def test_of_missing_data_only_their_absence_is_reported(data):
    assert refusal(data / "absent").endswith("does not exist; check the path")
    assert "name one data directory" in refusal(f"{data}:{data}")
    assert refusal(data, distill_dir=None).startswith("--distill-dir is missing")


def test_scoring_refuses_every_option_of_a_search_and_fills_in_its_own(data):
    words = ["--score-reference", "--beam", 7, "--select", "mbr", "--engine", "ctranslate2"]
    lines = refusal(data, *words).splitlines()
    named = [line.split()[0] for line in lines[1:]]
    assert named == ["--engine", "--select", "--beam"]
    assert refusal(data, "--score-reference", "--topk", 0) == "--topk is 0, it must be at least 1"
    cfg = configuration(data, "--score-reference")
    checks.check_options(cfg)
    assert (cfg.topk, str(cfg.store_dtype)) == (8, "float16")
