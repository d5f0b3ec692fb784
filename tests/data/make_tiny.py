#!/usr/bin/env python3
"""Makes the tiny parallel corpus of the tests: a toy language that a small teacher learns in
seconds.

A source sentence is a row of noun phrases (adjective noun). Its translation puts the noun first,
translates word by word, cuts words into "@@" subwords, and now and then takes a synonym, so that a
teacher has something to be unsure of. The sizes are no multiples of 8 on purpose.

    python make_tiny.py OUTPUT_DIR
"""

import random
import sys
from pathlib import Path

SIZES = {"train": 509, "valid": 53, "test": 45}
ADJECTIVES = {
    "rot": ["re@@ d"],
    "alt": ["ol@@ d", "age@@ d"],
    "klein": ["sma@@ ll", "tin@@ y"],
    "neu": ["ne@@ w"],
}
NOUNS = {
    "Haus": ["hou@@ se"],
    "Hund": ["do@@ g"],
    "Baum": ["tree"],
    "Buch": ["boo@@ k"],
    "Ball": ["ba@@ ll"],
}


def sentence(rng):
    """(source, target) of one to six phrases."""
    source, target = [], []
    for _ in range(rng.randint(1, 6)):
        adjective, noun = rng.choice(sorted(ADJECTIVES)), rng.choice(sorted(NOUNS))
        source += [adjective, noun]
        target += [rng.choice(NOUNS[noun]), rng.choice(ADJECTIVES[adjective])]
    return " ".join(source), " ".join(target) + " ."


def main(out):
    rng = random.Random(2016)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        pairs = [sentence(rng) for _ in range(size)]
        (out / f"{split}.de").write_text(
            "".join(source + "\n" for source, _ in pairs), encoding="utf-8"
        )
        (out / f"{split}.en").write_text(
            "".join(target + "\n" for _, target in pairs), encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1])
