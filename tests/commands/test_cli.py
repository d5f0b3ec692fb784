"""The command `seqkd`, as it is typed: arguments, what is printed where, files that are continued,
exit codes.
"""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from commands import run_python, start_process

from fairseq_seqkd import cli, commands
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.version import __version__

NAMES = [command.__name__.rpartition(".")[2] for command in cli.COMMANDS]


def parse(*args):
    return commands.evaluate.parse_requests(
        cli.make_parser().parse_args(["evaluate", *args, "--data", "bin"])
    )


@pytest.mark.trap(28)
def test_help_needs_no_heavy_library():
    code = """
import sys
from fairseq_seqkd import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "fairseq", "sacrebleu", "numpy", "omegaconf"} & set(sys.modules)
assert not heavy, heavy
"""
    for words in (["--help"], *([name, "--help"] for name in NAMES), ["--version"]):
        done = run_python("-c", code, *words)
        assert done.returncode == 0, done.stderr
        assert "usage: seqkd" in done.stdout or __version__ in done.stdout


def test_no_command_is_an_error_with_usage():
    done = run_python("-m", "fairseq_seqkd")
    assert done.returncode == 2 and "COMMAND" in done.stderr and "Traceback" not in done.stderr


def test_unknown_options_are_an_error_where_fairseq_takes_none():
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "results.json", "--beam", "5"])
    assert end.value.code == 2


def test_names_and_seeds_of_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "lr=0.1" / "last.pt").touch()
    assert parse("work/seq_kd-2/checkpoint_last.pt") == [
        ("seq_kd-2", None, "work/seq_kd-2/checkpoint_last.pt")
    ]
    assert parse("last.pt") == [(tmp_path.name, None, "last.pt")]
    assert parse("Seq-KD + Word-KD@2=a/b.pt") == [("Seq-KD + Word-KD", 2, "a/b.pt")]
    assert parse("A=x=y.pt") == [("A", None, "x=y.pt")]
    assert parse("lr=0.1/last.pt") == [
        ("lr=0.1", None, "lr=0.1/last.pt")
    ]  # a file that is there is a path
    assert parse("x/y.pt", "--name", "N", "--seed", "3") == [("N", 3, "x/y.pt")]
    assert parse("A@1=x.pt", "A@2=x.pt", "A=x.pt") == [
        ("A", 1, "x.pt"),
        ("A", 2, "x.pt"),
        ("A", None, "x.pt"),
    ]


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["A@1=x.pt", "A@1=y.pt"], "two checkpoints are named A@1"),
        (["work/x.pt", "work/y.pt"], "two checkpoints are named work"),
        (["A@one=x.pt"], "must be a whole number"),
        (["=x.pt"], "names no checkpoint"),
        (["A="], "names no checkpoint"),
        (["A@=x.pt"], "must be a whole number"),
        (["A@-1=x.pt"], "must be a whole number"),
        (["x.pt", "--seed", "-1"], "must be at least 0"),
        (["x.pt", "y.pt", "--name", "N"], "for a single checkpoint"),
    ],
)
def test_checkpoints_that_cannot_be_told_apart_are_refused(args, sentence):
    with pytest.raises(Refusal, match=sentence):
        parse(*args)


@pytest.mark.parametrize(
    "output, sentence", [(".", "is a directory"), ("nowhere/r.json", "its folder does not exist")]
)
def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, output, sentence):
    for words in (["evaluate", "a.pt", "--data", "bin"], ["report", "a.json"]):
        with pytest.raises(Refusal, match=sentence):
            cli.main([*words, "-o", str(tmp_path / output)])
        with pytest.raises(Refusal, match="the name of an output file is empty"):
            cli.main([*words, "-o", ""])


def test_a_refusal_is_one_line_and_code_1(tmp_path):
    words = ["evaluate", tmp_path / "none.pt", "--data", tmp_path, "--cpu"]
    done = run_python("-m", "fairseq_seqkd", *words)
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr
        == f"fairseq_seqkd: the checkpoint {tmp_path}/none.pt does not exist; check the path\n"
    )


WAIT = """
import time
from fairseq_seqkd import cli

def run(arguments):
    print("ready", flush=True)
    time.sleep(60)

cli.report.run = run
"""


def test_interrupts_end_with_one_sentence_and_130():
    process = start_process("seqkd", "report", "results.json", prepare=WAIT)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate() == (
        "fairseq_seqkd: interrupted; files written so far are complete, run the same command "
        "to continue\n"
    )
    assert process.returncode == 130


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """How often something is really measured, with an empty cache."""
    from fairseq_seqkd.evaluation import measure

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths, real = [], measure.measure
    monkeypatch.setattr(
        measure, "measure", lambda system, *more: paths.append(system.path) or real(system, *more)
    )
    return paths


def evaluate(teacher, tiny, *args):
    return cli.main(["evaluate", *args, "--data", str(tiny), "--cpu"])


def test_evaluate_prints_a_table_and_continues_its_file(tiny, teacher, tmp_path, capsys, counted):
    out = tmp_path / "results.json"
    assert evaluate(teacher, tiny, f"Student@1={teacher}", "-o", str(out)) == 0
    printed = capsys.readouterr()
    assert len(counted) == 1
    assert printed.err.count("\n") == 1 and printed.err.startswith("[1/1] Student (seed 1): BLEU ")
    lines = printed.out.splitlines()
    assert (
        lines[0].startswith("| Model ")
        and lines[2].startswith("| Student ")
        and len({len(line) for line in lines[:3]}) == 1
    )
    (first,) = json.loads(out.read_text())["results"]
    assert (first["name"], first["seed"], first["checkpoint"]) == ("Student", 1, str(teacher))

    # The same checkpoint is known under any name; the earlier result stays.
    assert (
        evaluate(teacher, tiny, f"Seq-KD@1={teacher}", f"Student@2={teacher}", "-o", str(out)) == 0
    )
    printed = capsys.readouterr()
    assert len(counted) == 1 and printed.err.count("BLEU") == 2
    again = json.loads(out.read_text())["results"]
    assert [(r["name"], r["seed"]) for r in again] == [
        ("Student", 1),
        ("Seq-KD", 1),
        ("Student", 2),
    ]
    assert all(r["ppl"] == first["ppl"] for r in again)

    # Other settings are another measurement, and another file's.
    with pytest.raises(Refusal, match="with other settings"):
        evaluate(teacher, tiny, str(teacher), "-o", str(out), "--max-len-b", "3")
    assert len(counted) == 1

    # And the report of it all.
    assert (
        cli.main(
            [
                "report",
                str(out),
                "-o",
                str(tmp_path / "r.md"),
                "-o",
                str(tmp_path / "r.json"),
                "--title",
                "T",
            ]
        )
        == 0
    )
    assert (tmp_path / "r.md").read_text().startswith("# T\n")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Student", "Seq-KD"] and rows[0][
        "bleu_greedy_std"
    ] == 0
    capsys.readouterr()
    assert cli.main(["report", str(out)]) == 0
    assert "## The claims of the paper" in capsys.readouterr().out


def test_what_was_measured_is_known_by_its_content(tiny, teacher, tmp_path, capsys, counted):
    moved = tmp_path / "moved.pt"
    moved.write_bytes(teacher.read_bytes())
    printed = []
    for arguments in (
        [str(teacher)],
        [str(moved), "--name", "Moved"],
        [str(moved), "--cache", str(tmp_path / "other")],
    ):
        assert evaluate(teacher, tiny, *arguments, "--json") == 0
        printed.append(json.loads(capsys.readouterr().out)["results"][0])
    assert (
        len(counted) == 2
        and printed[1]["name"] == "Moved"
        and printed[1]["checkpoint"] == str(moved)
    )
    assert printed[0]["ppl"] == printed[1]["ppl"] == printed[2]["ppl"]
    assert printed[0]["sentences_per_second_greedy"] == printed[1]["sentences_per_second_greedy"]
    assert evaluate(teacher, tiny, str(teacher), "--again") == 0 and len(counted) == 3
    for kept in (tmp_path / "cache" / "fairseq_seqkd").iterdir():
        kept.write_text('{"half')
    assert evaluate(teacher, tiny, str(teacher)) == 0 and len(counted) == 4
    moved.write_bytes(
        teacher.read_bytes() + b"\0"
    )  # another hash; a zip file may be followed by anything
    assert evaluate(teacher, tiny, str(moved)) == 0 and len(counted) == 5


def test_an_interrupted_evaluation_keeps_what_it_has(tiny, teacher, tmp_path, capsys, monkeypatch):
    from fairseq_seqkd.evaluation import measure

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out, real, calls = tmp_path / "results.json", measure.measure, []

    def interrupted(system, *more):
        calls.append(system)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(system, *more)

    other = tmp_path / "other.pt"
    other.write_bytes(
        teacher.read_bytes() + b"\0"
    )  # another hash; a zip file may be followed by anything
    monkeypatch.setattr(measure, "measure", interrupted)
    assert evaluate(teacher, tiny, f"A={teacher}", f"B={other}", "-o", str(out)) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("fairseq_seqkd: interrupted; ")
    assert [r["name"] for r in json.loads(out.read_text())["results"]] == ["A"]
    assert evaluate(teacher, tiny, f"A={teacher}", f"B={other}", "-o", str(out)) == 0
    assert [r["name"] for r in json.loads(out.read_text())["results"]] == ["A", "B"] and len(
        calls
    ) == 3


def test_wrong_inputs_stop_before_anything_is_measured(tiny, teacher, tmp_path, counted):
    with pytest.raises(Refusal, match="does not exist"):
        evaluate(teacher, tiny, f"A={teacher}", f"B={tmp_path / 'none.pt'}")
    with pytest.raises(Refusal, match="several of A: one has a seed, and one has none"):
        evaluate(teacher, tiny, f"A={teacher}", f"A@1={teacher}")
    assert not counted


def test_json_on_standard_output_is_json(tiny, teacher, capsys):
    assert evaluate(teacher, tiny, f"A={teacher}", "--json", "--split", "valid") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (
        result["settings"]["split"] == "valid" and result["name"] == "A" and result["seed"] is None
    )
    assert result["bleu_greedy"] > 20 and result["ppl"] < 20  # it has learnt the toy language


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"translate"})
)  # text by nature; its --json names a file
def test_every_command_has_json(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert re.search(r"--json +print", " ".join(capsys.readouterr().out.split()))


def test_what_commands_say_as_json(tiny, teacher, distilled, tmp_path, capsys):
    pruned, sparse, back, text = (
        str(tmp_path / name) for name in ("p.pt", "s.sparse", "b.pt", "text")
    )

    def said(*words):
        assert cli.main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = said("prune", teacher, "--sparsity", 0.5, "-o", pruned)
    zeros = sum(matrix["zeros"] or 0 for matrix in found["matrices"])
    assert (
        found["params"] - found["nonzero_params"] == pytest.approx(zeros, abs=100)
        and zeros > found["params"] / 3
    )
    assert Path(found["output"]).is_file() and "output" not in said(
        "prune", teacher, "--sparsity", 0.5, "--dry-run"
    )
    found = said("compress", pruned, "-o", sparse)
    assert (
        found["bytes"] == Path(sparse).stat().st_size
        and found["share"] == found["bytes"] / Path(pruned).stat().st_size
    )
    assert said("restore", sparse, "-o", back) == {
        "output": back,
        "bytes": Path(back).stat().st_size,
    }
    found = said("text", distilled, "-o", text)
    assert found["lines"] == len(Path(found["files"][0]).read_text().splitlines()) > 100
    assert said("inspect", distilled)["complete"] and said("doctor")["findings"]
    found = said(
        "export",
        teacher,
        "--data",
        tiny,
        "--no-subwords",
        "--check-sentences",
        9,
        "-o",
        tmp_path / "ct2",
    )
    assert found["sentences"] == 9 and found["same"] <= 9 and found["quantization"] == "float32"


@pytest.mark.parametrize(
    "words,options",
    [
        (
            [
                "evaluate",
                "a=a.pt",
                "b=b.pt",
                "--seed",
                "-1",
                "--max-len-b",
                "-3",
                "-o",
                "/absent/x",
            ],
            ["--name", "--seed", "/absent", "--max-len-b"],
        ),
        (
            ["bench", "a=a.pt", "a=b.pt", "--beams", "0", "--rounds", "0", "--engines", "marian"],
            ["--beams", "--rounds", "two models", "--engines"],
        ),
    ],
)
def test_all_wrong_options_are_reported_at_once(words, options):
    with pytest.raises(Refusal) as refused:
        cli.main([*words, "--data", "bin"])
    for option in options:
        assert [s for s in refused.value.sentences if option in s], (option, refused.value)
    assert len(refused.value.sentences) == len(options)


def test_all_checkpoints_that_cannot_be_measured_are_reported_at_once(tmp_path):
    with pytest.raises(Refusal) as refused:
        cli.main(["evaluate", "a=/absent/a.pt", "b=/absent/b.pt", "--data", str(tmp_path)])
    assert [s.split()[2] for s in refused.value.sentences] == ["/absent/a.pt", "/absent/b.pt"]
