"""`seqkd evaluate` measures text as the options make it."""

import argparse
import json

from commands import refusal, run_here

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.commands.text_options import TextOptions
from fairseq_seqkd.evaluation import systems


def test_both_sides_are_post_processed_and_detokenised(tiny, teacher, tmp_path):
    """fairseq's `characters` takes spaces away, so a sentence is one word; its settings tell such
    results from others.
    """
    told = {}
    for name, words in (
        ("plain", []),
        ("letters", ["--bpe", "characters"]),
        ("moses", ["--tokenizer", "moses"]),
    ):
        out = tmp_path / f"{name}.json"
        common = [
            "--data",
            tiny,
            "--split",
            "valid",
            "--cpu",
            "--cache",
            tmp_path / "cache",
            "-o",
            out,
        ]
        printed = run_here("seqkd", "evaluate", f"A={teacher}", *common, *words).stdout
        told[name] = json.loads(out.read_text())["results"][0]
        assert "BLEU" in printed
    assert (
        "undone" not in told["plain"]["settings"]
        and told["plain"]["settings"]["post_process"] == "@@ "
    )
    assert told["letters"]["settings"] == {
        **told["plain"]["settings"],
        "undone": "--bpe characters",
        "post_process": None,
    }
    assert told["moses"]["settings"] == {**told["plain"]["settings"], "undone": "--tokenizer moses"}
    letters = TextOptions(argparse.Namespace(**LETTERS), "evaluate")
    options = systems.Options("valid", post_process="none", decoders=letters)
    sources, references = systems.prepare(Checkpoint(teacher), tiny, options).texts()
    assert (
        all(" " not in line for line in (*sources, *references))
        and told["letters"]["bleu_beam5"] < 100
    )
    assert told["letters"]["length_ratio_greedy"] != told["plain"]["length_ratio_greedy"]
    done = run_here("seqkd", "evaluate", teacher, "--data", tiny, "--moses-no-escape", check=False)
    assert "unknown options: --moses-no-escape; see `seqkd evaluate --help`" in refusal(done)


LETTERS = {"bpe": "characters", "tokenizer": None, "fairseq_options": []}


def test_post_process_is_of_both_sides(tiny, teacher):
    """COMET reads the sources as the option says: `letter` joins them, and nothing else does."""
    sources, _ = systems.prepare(Checkpoint(teacher), tiny, systems.Options("valid")).texts()
    assert any(" " in line for line in sources)
    options = systems.Options("valid", post_process="letter")
    system = systems.prepare(Checkpoint(teacher), tiny, options)
    assert system.settings.post_process == "letter"
    assert not any(" " in line for lines in system.texts() for line in lines)
