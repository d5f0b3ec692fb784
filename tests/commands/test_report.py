"""`seqkd report` leaves its inputs alone, and prints on any terminal."""

import pytest
from commands import run_python
from measurements import result

from fairseq_seqkd import cli
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import results


def test_a_report_does_not_take_the_place_of_what_it_is_made_from(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(results.to_json({"results": [result("A")]}))
    before = path.read_text()
    for option in ("-o", "--json", "--plot"):
        with pytest.raises(Refusal, match="is what the report is made from"):
            cli.main(["report", str(path), option, f"{tmp_path}/../{tmp_path.name}/results.json"])
    assert path.read_text() == before


def test_a_terminal_without_the_letters_of_a_report_shows_the_rest(tmp_path):
    (tmp_path / "results.json").write_text(results.to_json({"results": [result("A")]}))
    words = ["-m", "fairseq_seqkd", "report", tmp_path / "results.json"]
    done = run_python(*words, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0 and "p(t = ?)" in done.stdout and not done.stderr
