"""What a folder of experiments holds, found by content: results, speeds, logs of trainings, distilled directories, data."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import results
from fairseq_seqkd.evaluation.results import COMPARABLE, first_difference, identity, why_no_seed
from fairseq_seqkd.report import training_logs

DEPTH = 5  # folders below the one that is named
LOGS = (".log", ".txt", ".out")
LARGEST_JSON = 1 << 26
NOT_OURS = ("venv", ".venv", "node_modules", "__pycache__", "parts", "packages")


@dataclass
class Run:
    """What was found. Paths are as they were named."""

    results: list = field(default_factory=list)
    pairs: list = field(default_factory=list)
    speeds: list = field(default_factory=list)
    trainings: list = field(default_factory=list)
    distilled: list = field(default_factory=list)  # (folder, manifest), finished
    bins: list = field(default_factory=list)
    remarks: list = field(default_factory=list)  # what was left out, and why


def look(paths):
    """The Run of files, which are taken as they are, and of folders, of which the largest comparable set is taken; where
    files hold results, those in the folders are not added to them.

    Raises Refusal for a path that is absent or no file of ours, and for folders without anything to report.
    """
    run, sets, seen = Run(), {}, set()
    for path in map(Path, paths):
        if path.is_dir():
            sets |= {file.resolve(): (content, file) for content, file in walk(path, run)}
        elif path.resolve() not in seen:
            seen.add(path.resolve())
            add(run, results.read_json(path), path, named=True)
    sets = [found for file, found in sets.items() if file not in seen]
    if sets:
        choose(run, sets)
    run.pairs = results.pairs_among(run.pairs, run.results)
    if not (run.results or run.speeds):
        raise Refusal(
            f"{', '.join(map(str, paths))}: there is nothing to report; `seqkd evaluate` and `seqkd bench` measure with -o"
        )
    return run


def add(run, content, path, named=False):
    """Adds the content of a file of `seqkd evaluate` or `seqkd bench`; of two results of one name and seed, the first stays.

    Raises Refusal where these are of different checkpoints, or no seeds of one system, and the user named the file.
    """
    if "speeds" in content:
        run.speeds.append(results.speeds(content, path))
        return
    known = {identity(result): result.get("checkpoint_sha256") for result in run.results}
    for result in results.of(content, path):
        if identity(result) not in known:
            odd = why_no_seed(result, run.results)
            if odd and not named:
                run.remarks.append(
                    f"{path} has another {result['name']} ({odd}), which is left out"
                )
            else:  # a table refuses it
                run.results.append(result)
        elif result.get("checkpoint_sha256") != known[identity(result)]:
            name, seed = identity(result)
            what = f"{path} has another checkpoint named {name}{'' if seed is None else f', seed {seed}'}"
            if named:
                raise Refusal(
                    f"{what}, than the file before it; give every checkpoint a name of its own, NAME@SEED=PATH"
                )
            run.remarks.append(f"{what}, which is left out")
    run.pairs += results.pairs_of(content, path)


def choose(run, sets):
    """Adds what may stand in one table: of the test split rather than another, and of as many systems as possible."""

    def comparable(content):
        first = content["results"][0] if content.get("results") else content
        return first.get("data_sha256"), first.get("settings", {}).get("split")

    groups = {}
    for content, path in sets:
        groups.setdefault(comparable(content), []).append((content, path))

    def size(group):
        return group[0][1] == "test", sum(
            len(content.get("results", ())) for content, _ in group[1]
        )

    if run.results or run.speeds:  # files that were named decide
        chosen = comparable({"results": run.results} if run.results else run.speeds[0])
    else:
        chosen = max(groups.items(), key=size)[0]
    for key, found in groups.items():
        if key != chosen:
            run.remarks += [
                f"{path} is of other data or another split, and left out" for _, path in found
            ]
            continue
        # Those of the most systems first: of results of the same name and seed, the first stays.
        found.sort(key=lambda item: len(item[0].get("results", ())), reverse=True)
        named = bool(run.results)
        first = (
            run.results[0]
            if named
            else next(
                (content["results"][0] for content, _ in found if content.get("results")), None
            )
        )
        for content, path in found:
            if named and "results" in content:
                continue
            if first and measured_otherwise(content, first):
                run.remarks.append(f"{path} was measured with other settings, and is left out")
            else:
                add(run, content, path)


def measured_otherwise(content, first):
    """Whether the results or speeds of a file may not stand beside a first result."""
    if "speeds" in content:
        settings = first.get("settings")
        return (
            bool(settings) and first_difference(content.get("settings", {}), settings) is not None
        )
    return any(
        result.get(key) != first.get(key)
        for result in content.get("results", ())
        for key in COMPARABLE
    )


def walk(folder, run):
    """Yields (content, path) of results and speeds below a folder, and adds the rest that it finds to the Run."""
    root = Path(folder)
    for where, folders, names in os.walk(root):
        place = Path(where)
        folders[:] = sorted(
            name for name in folders if name not in NOT_OURS and not name.startswith(".")
        )
        if place != root and is_example(place):
            folders[:], names = [], []
        if (
            len(place.relative_to(root).parts) >= DEPTH
            or is_environment(place)
            or look_at_data(place, names, run)
        ):
            folders[:] = []
        for path in (place / name for name in sorted(names)):
            try:
                content = look_at_file(path, run)
            except OSError as error:
                run.remarks.append(f"{path} cannot be read: {error.strerror or error}")
                continue
            if content:
                yield content, path


def look_at_file(path, run):
    """The content of a file of results or speeds; a log of a training is added to the Run. None for any other file."""
    if not path.is_file():  # such as a link to nowhere
        return None
    if (
        path.suffix == ".json"
        and path.name != manifest.NAME
        and path.stat().st_size <= LARGEST_JSON
    ):
        return json_of_ours(path)
    if training_logs.is_tensorboard(path):
        add_tensorboard(path, run)
    elif path.suffix in LOGS and training_logs.is_log(path):
        run.trainings += training_logs.read(path)
    return None


def is_environment(folder):
    return (folder / "pyvenv.cfg").is_file()


def is_example(folder):
    """Whether a folder holds the measurements that come with this package, where a clone of it lies among the experiments."""
    return folder.name == "examples" and (folder.parent / "fairseq_seqkd" / "version.py").is_file()


def look_at_data(place, names, run):
    """Adds a finished distilled directory or a gold data-bin; whether it was anything of the kind, whose inside is known."""
    if manifest.NAME in names:
        try:
            found = manifest.read(place)
        except Refusal as refusal:  # somebody else's, or damaged
            run.remarks.append(refusal.sentence)
            return False
        if isinstance(found, manifest.DecodeManifest) and found.complete:
            run.distilled.append((place, found))
        return found is not None
    if any(name.startswith("dict.") for name in names) and any(
        name.endswith(".idx") for name in names
    ):
        run.bins.append(place)
        return True
    return False


def json_of_ours(path):
    """The content of a JSON file if it is one of `seqkd evaluate` or `seqkd bench`; None for any other file."""
    try:
        content = results.read_json(path)
        if "speeds" in content:
            return results.speeds(content, path)
        found = results.of(content, path)
    except Refusal:
        return None  # somebody else's
    return content if found and "bleu_greedy" in found[0] else None


def add_tensorboard(path, run):
    if path.parent.name != training_logs.VALID:
        return
    try:
        run.trainings.append(training_logs.read_tensorboard(path))
    except ImportError:
        run.remarks.append(
            f"{path} is not read, because tensorboard is not installed: pip install tensorboard"
        )


def training_of(run, result):
    """The Training that made a result's checkpoint, told by its folder; None where nobody knows.

    A folder that has moved since is told by its name, if that is one training's and one folder of results'. Logs and
    TensorBoard's files of one folder are one training.
    """
    path = Path(result.get("checkpoint", "")).absolute()
    if not path.name.startswith("checkpoint"):
        return None  # made of a checkpoint, by pruning for instance
    folders = {t.folder for t in run.trainings if t.folder}
    folder = path.parent
    if folder not in folders:
        mine = {f for f in folders if f.name == folder.name}
        theirs = {Path(r.get("checkpoint", "")).absolute().parent for r in run.results}
        if len(mine) != 1 or len({f for f in theirs if f.name == folder.name}) != 1:
            return None
        (folder,) = mine
    found = [t for t in run.trainings if t.folder == folder]
    best = max(found, key=lambda t: len(t.settings))
    curve = {updates: ppl for training in found for updates, ppl in training.curve.items()}
    return training_logs.Training(best.path, best.settings, curve)


def gold_of(run, content):
    """The Split that a distilled directory was decoded from, told by the hashes of its files; None where it is not there."""
    data = content.settings.data
    named = [Path(t.settings["data"]) for t in run.trainings if "data" in t.settings]
    for folder in dict.fromkeys([*run.bins, *(path for path in named if path.is_dir())]):
        try:
            split = Split(folder, data.split, data.languages)
        except Refusal:
            continue  # other languages, or a view
        if split.has_hashes(data.hashes):
            return split
    return None
