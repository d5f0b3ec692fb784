"""What commands print, and what happens when it cannot be printed."""

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_seqkd.commands import console

TEXT, JSON = argparse.Namespace(json=False), argparse.Namespace(json=True)


def test_a_result_is_text_lines_or_json(capsys):
    console.print_result(TEXT, {"a": 1}, "a is 1")
    console.print_result(TEXT, {"a": 1}, (line for line in ("a", "b")))
    assert capsys.readouterr().out == "a is 1\na\nb\n"
    console.print_result(JSON, {"language": "中文"}, "unused")
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"language": "中文"} and "中文" in printed


def test_characters_that_a_terminal_lacks_are_question_marks(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert console.print_text("ŷ = ä", end="|")
    assert terminal.buffer.getvalue() == "? = ä|".encode("latin-1")


def printing(statement, output):
    code = (
        "from fairseq_seqkd.commands import console\n"
        f"import sys; print(console.{statement}, file=sys.stderr)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("statement", ["print_text('x')", "print_bytes(b'x')"])
def test_a_full_disk_is_one_sentence_and_a_lost_reader_is_none(statement):
    with Path("/dev/full").open("wb") as full:
        ended = printing(statement, full)
    sentence = "fairseq_seqkd: standard output cannot be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, sentence)
    reader, writer = os.pipe()
    os.close(reader)
    ended = printing(statement, writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "False\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_bars_pass_their_items_on_and_count_on_a_terminal(monkeypatch):
    assert list(console.ProgressBar("parts")(range(3))) == [0, 1, 2]
    batches = [[1, 2], [3]]
    assert list(console.BatchProgressBar("A")(batches, "greedy")) == batches
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(console.ProgressBar("parts", "reading")(range(3))) == [0, 1, 2]
    list(console.BatchProgressBar("A")(batches, "greedy"))
    drawn = sys.stderr.getvalue()
    assert "reading" in drawn and " parts/s" in drawn and "A: greedy" in drawn and "/3" in drawn


def test_no_bar_is_drawn_elsewhere(capsys):
    list(console.ProgressBar("parts", "reading")(range(3)))
    list(console.BatchProgressBar("A")([[1]], "greedy"))
    assert capsys.readouterr().err == ""
