"""Arguments that several commands share: what is parsed, and what is refused."""

import argparse

import pytest

from fairseq_seqkd.commands import arguments
from fairseq_seqkd.commands.arguments import CheckpointArgument, ModelArgument
from fairseq_seqkd.errors import Refusal


@pytest.mark.parametrize(
    "text, checkpoint",
    [
        ("work/seq_kd-2/last.pt", CheckpointArgument("seq_kd-2", None, "work/seq_kd-2/last.pt")),
        ("Student=a/b.pt", CheckpointArgument("Student", None, "a/b.pt")),
        ("Seq-KD + Word-KD@2=a/b.pt", CheckpointArgument("Seq-KD + Word-KD", 2, "a/b.pt")),
        ("a@b@0=x.pt", CheckpointArgument("a@b", 0, "x.pt")),
        ("A=x=y.pt", CheckpointArgument("A", None, "x=y.pt")),
    ],
)
def test_checkpoints(text, checkpoint):
    assert arguments.parse_checkpoint(text) == checkpoint


def test_a_file_that_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "lr=0.1" / "last.pt").touch()
    assert arguments.parse_checkpoint("lr=0.1/last.pt").name == "lr=0.1"
    assert arguments.parse_checkpoint("last.pt").name == tmp_path.name


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("A@one=x.pt", "must be a whole number"),
        ("A@=x.pt", "must be a whole number"),
        ("A@-1=x.pt", "must be a whole number"),
        ("A@\u00b2=x.pt", "must be a whole number"),
        ("=x.pt", "names no checkpoint"),
        ("@1=x.pt", "names no checkpoint"),
        ("A=", "names no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text, sentence):
    with pytest.raises(Refusal, match=sentence):
        arguments.parse_checkpoint(text)


def test_models_have_different_names():
    assert arguments.parse_models(["A=x.pt", "A@1=y.pt"]) == [
        ModelArgument("A", "x.pt"),
        ModelArgument("A@1", "y.pt"),
    ]
    with pytest.raises(Refusal, match="two models are named A; "):
        arguments.parse_models(["A=x.pt", "A=y.pt"])


def test_the_length_limit_has_one_default():
    parser = argparse.ArgumentParser()
    arguments.add_length_limit_options(parser)
    parsed = parser.parse_args([])
    assert (parsed.max_len_a, parsed.max_len_b) == (1.2, 10)
    parsed = parser.parse_args(["--max-len-a", "0", "--max-len-b", "3"])
    assert (parsed.max_len_a, parsed.max_len_b) == (0, 3)


def test_outputs_are_checked_together_and_nothing_is_left(tmp_path):
    with pytest.raises(Refusal) as refused:
        arguments.check_output(
            "", tmp_path, None, tmp_path / "absent" / "x", tmp_path / "absent" / "y", tmp_path / "x"
        )
    assert [sentence.split("; ")[-1] for sentence in refused.value.sentences] == [
        "name a file",
        "name a file",
        "make it first",
    ]
    arguments.check_output(None, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(Refusal, match="^fairseq_seqkd: /proc/x cannot be written: "):
        arguments.check_output("/proc/x")


def test_all_numbers_below_one_are_reported():
    options = argparse.Namespace(beam=0, check_sentences=-3, threads=1, nbest=None)
    names = ("--beam", "--check-sentences", "--threads", "--nbest")
    with pytest.raises(Refusal) as refused:
        arguments.check_at_least_one(options, *names)
    assert refused.value.sentences == [
        "--beam is 0, it must be at least 1",
        "--check-sentences is -3, it must be at least 1",
    ]
    arguments.check_at_least_one(options, "--threads", "--nbest")


def test_a_help_text_ends_with_its_example_and_breaks_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    subcommands = argparse.ArgumentParser(prog="seqkd").add_subparsers()
    arguments.add_command(
        subcommands,
        "go",
        example="seqkd go \\\n    --far",
        epilog="A paragraph before the example that is long enough to be wrapped twice, at "
        "--long-option-names of all places, and not within them.",
        description="Goes.",
    )
    with pytest.raises(SystemExit):
        subcommands.choices["go"].parse_args(["--help"])
    printed = capsys.readouterr().out
    assert printed.endswith("\nExample:\n  seqkd go \\\n      --far\n")
    assert "--long-option-names" in printed and max(map(len, printed.splitlines())) <= 60
