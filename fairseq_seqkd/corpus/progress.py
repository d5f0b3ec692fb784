"""Reads the progress of a directory of a teacher's work from its files (`seqkd decode`)."""

from pathlib import Path
from typing import NamedTuple, Optional, Union

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.manifest import ViewManifest


class Progress(NamedTuple):
    """The progress of a directory."""

    sentences: int  # of the split
    done: int  # sentences whose part is committed
    complete: bool  # the store and the views are there, too
    signature: str


def read(folder: Union[str, Path]) -> Optional[Progress]:
    """Reads the progress of a directory; None if none was begun. Takes no lock."""
    work = manifest.read(folder)
    if work is None or isinstance(work, ViewManifest):
        return None
    plan = work.settings.batch_plan()
    directory = Distilled(folder, work.settings, plan.parts)
    directory.complete = work.complete
    bounds = [plan.bounds(part) for part in directory.done() if part < plan.parts]
    done = sum(last - first for first, last in bounds)
    return Progress(plan.sentences, done, work.complete, work.signature)
