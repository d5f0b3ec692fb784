"""How far a directory of a teacher's work is, from its files alone: for whoever waits for it and knows no settings."""

from dataclasses import dataclass

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.distilled import STORES, Distilled
from fairseq_seqkd.corpus.plan import plan_of


@dataclass(frozen=True)
class Progress:
    sentences: int  # of the split
    done: int  # of them, those whose part is committed
    complete: bool  # everything that is made of the parts is there too
    signature: str


def read(folder):
    """The Progress of a directory, or None where none was begun. Changes nothing, takes no lock."""
    found = manifest.read(folder)
    if not found or found.get("kind") not in STORES:
        return None
    plan = plan_of(found["settings"])
    directory = Distilled(folder, found["settings"], plan.parts, found["kind"])
    directory.complete = bool(found.get("complete"))
    bounds = [plan.bounds(part) for part in directory.done() if part < plan.parts]
    return Progress(
        plan.sentences,
        sum(last - first for first, last in bounds),
        directory.complete,
        found["signature"],
    )
