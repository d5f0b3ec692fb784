"""run.json, the index of a run folder: which results, logs and data `seqkd report` puts together.

The recipes write it. It can be written by hand; paths are relative to its folder::

    {
      "results": ["results.json"],
      "speeds": ["speed.json"],
      "trainings": {"Student@1": "logs/student-1.log", "Teacher": "logs/teacher.log"},
      "distilled": ["distilled"],
      "data": ["data-bin"]
    }
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import msgspec
from msgspec import Struct

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.manifest import DecodeManifest
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records
from fairseq_seqkd.evaluation.records import Bench, Comparison, Evaluation, Measurement

NAME = "run.json"
Logs = Union[str, List[str]]  # several for a training that was resumed with another log


class RunIndex(Struct, forbid_unknown_fields=True):
    """The content of run.json.

    Attributes:
        results: files of `seqkd evaluate -o`.
        speeds: files of `seqkd bench -o`.
        trainings: the log of fairseq-train by NAME or NAME@SEED, as in `seqkd evaluate`.
        distilled: finished distilled directories.
        data: data-bins that were decoded.
    """

    results: List[str] = []
    speeds: List[str] = []
    trainings: Dict[str, Logs] = {}
    distilled: List[str] = []
    data: List[str] = []


@dataclass
class Distilled:
    """A finished distilled directory, and the split that was decoded if the index names it."""

    folder: Path
    manifest: DecodeManifest
    gold: Optional[Split] = None


@dataclass
class Run:
    """What a report is made from."""

    measurements: List[Measurement] = field(default_factory=list)
    comparisons: List[Comparison] = field(default_factory=list)
    benches: List[Bench] = field(default_factory=list)
    trainings: Dict[str, List[Path]] = field(default_factory=dict)  # logs by NAME or NAME@SEED
    distilled: List[Distilled] = field(default_factory=list)
    data: List[Path] = field(default_factory=list)


def read(paths: Sequence[Union[str, Path]]) -> Run:
    """Reads files of `seqkd evaluate` and `seqkd bench`, and run folders.

    Raises:
        Refusal: a path does not exist, is something else or damaged, a folder has no run.json, or
            there is nothing to report.
    """
    run, files = Run(), []
    for path in map(Path, paths):
        files += _read_folder(run, path) if path.is_dir() else [path]
    for file in {file.resolve(): file for file in files}.values():
        content = records.read(file)
        if isinstance(content, Bench):
            run.benches.append(content)
        else:
            _add_results(run, content, file)
    if not (run.measurements or run.benches):
        raise Refusal(
            f"{', '.join(map(str, paths))}: there is nothing to report; measure with "
            "`seqkd evaluate -o` and `seqkd bench -o`"
        )
    run.comparisons = records.still_valid(run.comparisons, run.measurements)
    for distilled in run.distilled:
        distilled.gold = find_gold(run.data, distilled.manifest)
    return run


def read_index(folder: Path) -> RunIndex:
    """Reads the index of a run folder.

    Raises:
        Refusal: the folder has none, or it is damaged.
    """
    path = folder / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunIndex)
    except FileNotFoundError:
        raise Refusal(
            f"{folder} has no {NAME}, which names the results, logs and data of a run; write it "
            "(docs/evaluate-prune-deploy.md), or name files of `seqkd evaluate` and `seqkd bench`"
        ) from None
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror or error}") from None
    except msgspec.MsgspecError as error:
        raise Refusal(f"{path} is not an index of a run ({error}); correct it") from None


def _read_folder(run: Run, folder: Path) -> List[Path]:
    """Adds what the index of a folder names; returns the files of results and speeds."""
    index = read_index(folder)
    for label, logs in index.trainings.items():
        names = [logs] if isinstance(logs, str) else logs
        run.trainings.setdefault(label, []).extend(folder / name for name in names)
    for name in index.distilled:
        content = manifest.read(folder / name)
        if not isinstance(content, DecodeManifest) or not content.complete:
            raise Refusal(
                f"{folder / NAME} names {name}, which is not a finished distilled directory; "
                "finish the decode, or remove it from the index"
            )
        run.distilled.append(Distilled(folder / name, content))
    run.data += [folder / name for name in index.data]
    return [folder / name for name in (*index.results, *index.speeds)]


def _add_results(run: Run, content: Evaluation, file: Path) -> None:
    """Adds the results of a file. A result that another file has, too, is taken once."""
    known = {one.identity: one.checkpoint_sha256 for one in run.measurements}
    for measurement in content.results:
        identity = measurement.identity
        if identity not in known:
            run.measurements.append(measurement)
        elif measurement.checkpoint_sha256 != known[identity]:
            raise Refusal(
                f"{file} has another checkpoint named {identity} than the file before it; give "
                "every checkpoint a name of its own, NAME@SEED=PATH"
            )
    run.comparisons += content.pairs


def find_gold(data: Sequence[Path], decode: DecodeManifest) -> Optional[Split]:
    """Finds the split that was decoded, by the hashes of its files; None if it is not in `data`."""
    facts = decode.settings.data
    for folder in data:
        try:
            split = Split(folder, facts.split, facts.languages)
        except Refusal:
            continue  # other languages, or no such split
        if split.has_hashes(facts.hashes):
            return split
    return None
