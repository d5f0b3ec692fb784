"""`seqkd report` leaves its inputs alone, prints on any terminal, and prints JSON alone."""

import json

import pytest
from commands import run_python
from measurements import result

from fairseq_seqkd import cli
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records


def test_a_report_does_not_take_the_place_of_what_it_is_made_from(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(records.to_json({"results": [result("A")]}))
    before = path.read_text()
    for option in ("-o", "--plot"):
        with pytest.raises(Refusal, match="is an input of the report; write to another file"):
            cli.main(["report", str(path), option, f"{tmp_path}/../{tmp_path.name}/results.json"])
    assert path.read_text() == before


def test_a_terminal_without_the_letters_of_a_report_shows_the_rest(tmp_path):
    (tmp_path / "results.json").write_text(records.to_json({"results": [result("A")]}))
    words = ["-m", "fairseq_seqkd", "report", tmp_path / "results.json"]
    done = run_python(*words, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0 and "p(t = ?)" in done.stdout and not done.stderr


def test_json_is_a_flag_and_standard_output_is_json_alone(tmp_path):
    """Also where something is left out, and where a file is written."""
    (tmp_path / "results.json").write_text(records.to_json({"results": [result("A")]}))
    index = {"results": ["results.json"], "trainings": {"Typo": "a.log"}}
    (tmp_path / "run.json").write_text(json.dumps(index))
    words = ["-m", "fairseq_seqkd", "report", tmp_path, "-o", tmp_path / "x.json", "--json"]
    done = run_python(*words)
    content = json.loads(done.stdout)
    assert content["rows"][0]["name"] == "A"
    assert content["remarks"] == ["no result is named Typo, so its log is not used"]
    assert done.stdout == (tmp_path / "x.json").read_text() and "left out: " in done.stderr
