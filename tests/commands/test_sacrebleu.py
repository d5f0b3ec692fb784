"""P-values are those of sacrebleu's command."""

import json
import random
import re
import subprocess
import sys

import pytest

from fairseq_seqkd.evaluation import significance
from fairseq_seqkd.evaluation.records import Identity

WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(scope="module")
def texts():
    """Texts of 60 sentences by name: gold, a nearly right one, two less so and alike."""
    random.seed(1)
    gold = [" ".join(random.choices(WORDS, k=random.randint(4, 12))) for _ in range(60)]

    def spoilt(share):
        return [
            " ".join(w if random.random() > share else random.choice(WORDS) for w in line.split())
            for line in gold
        ]

    bad = spoilt(0.45)
    return {"gold": gold, "good": spoilt(0.1), "bad": bad, "worse": [gold[0], "x x x", *bad[2:]]}


def systems_of(texts, *named):
    return [
        significance.Outputs(
            Identity(name, seed), f"{name}{seed}", {"greedy": texts[greedy], "beam5": texts[beam]}
        )
        for name, seed, greedy, beam in named
    ]


def test_p_values_are_those_of_sacrebleus_command(texts, tmp_path):
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    order = ["bad", "good", "worse"]
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "gold",
        "-i",
        *order,
        "-m",
        "bleu",
        "--paired-bs",
        "-f",
        "json",
        "--force",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = {
        row["system"].split()[-1].removeprefix("Baseline: "): row["BLEU"]
        for row in json.loads(done.stdout)
    }
    comparisons = significance.compare(
        systems_of(
            texts,
            ("bad", None, "bad", "bad"),
            ("good", None, "good", "good"),
            ("worse", None, "worse", "worse"),
        ),
        texts["gold"],
        "13a",
    )
    tests = {p.a: p for p in comparisons if p.b == "bad" and p.search_a == p.search_b == "greedy"}
    assert tests.keys() == {"good", "worse"}
    for name, pair in tests.items():
        assert pair.p_value == pytest.approx(expected[name]["p_value"], abs=1e-4)
        assert pair.difference == pytest.approx(
            expected[name]["score"] - expected["bad"]["score"], abs=0.06
        )
    assert tests["good"].p_value < 0.01 < 0.05 < tests["worse"].p_value
    assert re.fullmatch(r"nrefs:1\|bs:1000\|seed:12345\|.*tok:13a.*", tests["good"].signature)
