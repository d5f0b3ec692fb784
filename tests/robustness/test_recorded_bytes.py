"""Compare what the commands store for the toy data with recorded hashes.

Words may change from version to version: help, errors, lines of a log. Stored bytes may not: a
directory that one version has begun is continued by another, and results are reproduced by hash.
The hashes are in recorded_bytes.json, beside this file, in two sets:

everywhere: integer content, which is the same on every machine. Token arrays and headers of the
    stores, the files of the views, text, checkpoints pruned by exact comparisons, reports that
    are made from recorded numbers, and the structure of other JSON: its keys, integers and words,
    without the fractions and without what `general` takes out.
here: whole files and arrays that hold fractions, whose last bits depend on the processor and on
    the versions of the libraries. They are compared only on the platform that they were recorded
    on; elsewhere these comparisons are skipped. The sampled translations belong to this set too:
    torch's random numbers may be others in another version.

In both sets this package's own version is replaced, so that a release changes no hash. Of what
`seqkd evaluate` writes, the values of MEASURED_HERE are replaced as well, because they differ
from run to run; in a report of a folder, the folder's path.

Not covered: `seqkd compress`, `seqkd bench`, `seqkd export`, `seqkd prune --exclude`, the
Markdown and the pages of `seqkd report`, and logs of trainings.

The data are those of the `tiny` fixture. Their teacher is not trained here, because a trained
teacher differs between processors: tests/data/teacher.pt was made by
`python tests/data/make_teacher.py tests/data/teacher.pt`. tests/data/results.json and speeds.json
are invented measurements for `seqkd report`.

To record all hashes again on purpose, after a change of a format:

    SEQKD_RECORD=1 python -m pytest tests/robustness/test_recorded_bytes.py
"""

import argparse
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import struct
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple

import folders
import pytest
import torch
import toys
from commands import run_here
from safetensors.numpy import load_file

DATA = next(
    folder / "data"
    for folder in Path(__file__).resolve().parents
    if (folder / "data" / "teacher.pt").exists()
)
TEACHER = DATA / "teacher.pt"
RECORDED = Path(__file__).with_name("recorded_bytes.json")
MUST_RECORD = "SEQKD_RECORD"
PACKAGE = "fairseq_seqkd"

# Values in the JSON of `seqkd evaluate` that differ between two runs of the same work.
MEASURED_HERE = (
    "checkpoint",  # a path
    "date",
    "machine",
    "versions",
    "sentences_per_second_greedy",
    "sentences_per_second_beam5",
)
# Values that follow from the platform, which the set `everywhere` must not depend on.
OF_PLATFORM = ("sacrebleu", "torch", "fairseq", "ctranslate2", "checkpoint_sha256")
OF_PLATFORM += ("checkpoint_a", "checkpoint_b")


class Hashes(NamedTuple):
    """The hashes of an artefact, {name of a file or of a part of it: hash}, in the two sets."""

    everywhere: Dict[str, str]
    here: Dict[str, str]


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def canonical(value: Any) -> str:
    """Return the hash of a tree of plain values, whose order counts."""
    return digest(json.dumps(value, ensure_ascii=False).encode())


def general(value: Any, replaced: tuple = OF_PLATFORM) -> Any:
    """Return a tree of JSON without fractions, versions and the values of the named keys."""
    if isinstance(value, dict):
        return {
            key: type(inner).__name__ if key in replaced else general(inner, replaced)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [general(inner, replaced) for inner in value]
    if isinstance(value, str):
        value = re.sub(r"((?:engine:|^)(?:fairseq|ctranslate2)-)[^/|]+", r"\1*", value)
        return re.sub(r"version:[^|]+", "version:*", value)
    return "float" if isinstance(value, float) else value


def without_own_version(text: str) -> str:
    """Replace the version of this package in the text of a manifest or a report."""
    version = re.escape(metadata.version(PACKAGE))
    return re.sub(rf'("version": "|\|version:){version}"', r'\1*"', text)


def of_array(array: Any) -> str:
    """Return the hash of a NumPy array: its type, its shape and its bytes."""
    return digest(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())


def of_store(path: Path) -> Hashes:
    """Hash the header and every array of a safetensors file, and the whole file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    everywhere = {f"{path.name} header": digest(content[: 8 + size])}
    here = {path.name: digest(content)}
    for name, array in load_file(path).items():
        (here if array.dtype.kind == "f" else everywhere)[f"{path.name} {name}"] = of_array(array)
    return Hashes(everywhere, here)


def of_manifest(path: Path) -> Hashes:
    """Hash the settings and the rest of a manifest, and the whole file."""
    text = without_own_version(path.read_text(encoding="utf-8"))
    content = json.loads(text)
    if "store" in content:
        content["store"]["sha256"] = "of the store"  # which holds fractions
    content = general_manifest(content)
    everywhere = {f"{path.name} settings": canonical(content.pop("settings", None))}
    everywhere[path.name] = canonical(content)
    return Hashes(everywhere, {path.name: digest(text.encode())})


def general_manifest(content: dict) -> dict:
    """Return a manifest's content without the platform, but with the fractions of its settings."""
    as_written = json.loads(json.dumps(content), parse_float=str)  # such as --lenpen
    if "mass" in as_written:
        as_written["mass"] = "float"
    return general(as_written)


def of_directory(folder: Path) -> Hashes:
    """Hash every file of a directory that a command has left."""
    everywhere, here = {}, {}
    for name, content in folders.tree(folder).items():
        path = folder / name
        within = str(Path(name).parent / "_")[:-1] if "/" in name else ""
        if path.suffix == ".safetensors":
            parts = of_store(path)
        elif path.name == "manifest.json":
            parts = of_manifest(path)
        else:
            parts = Hashes({path.name: digest(content)}, {})
        everywhere.update({within + part: value for part, value in parts.everywhere.items()})
        here.update({within + part: value for part, value in parts.here.items()})
    return Hashes(everywhere, here)


def of_sampled(folder: Path) -> Hashes:
    """Hash a directory of sampled translations, of which only settings and gold are exact."""
    everywhere, here = of_directory(folder)
    is_gold = re.compile(r"manifest.json settings$|.*/(dict\..*|.*\.de\.\w+|test\..*)$")
    exact = {name: value for name, value in everywhere.items() if is_gold.match(name)}
    others = {name: value for name, value in everywhere.items() if name not in exact}
    return Hashes(exact, {**here, **others})


def of_json(path: Path, replaced: tuple = (), folder: str = "") -> Hashes:
    """Hash the keys of a JSON file and every entry, without the replaced values.

    Args:
        replaced: keys whose values are replaced by the names of their types.
        folder: a path that is replaced by RUN wherever it stands.
    """
    text = without_own_version(path.read_text(encoding="utf-8"))
    text = text.replace(folder, "RUN") if folder else text
    content = json.loads(text)
    assert text == json.dumps(content, ensure_ascii=False, indent=1) + "\n"  # so it is written
    structure = general(content, (*OF_PLATFORM, *replaced))
    everywhere = {f"{path.name} {key}": canonical(value) for key, value in structure.items()}
    everywhere[f"{path.name} keys"] = canonical(list(content))
    whole = blanked(content, replaced)
    here = {f"{path.name} {key}": canonical(value) for key, value in whole.items()}
    return Hashes(everywhere, here)


def blanked(value: Any, replaced: tuple) -> Any:
    """Return a tree of JSON in which the values of the replaced keys are their types' names."""
    if isinstance(value, dict):
        return {
            key: type(inner).__name__ if key in replaced else blanked(inner, replaced)
            for key, inner in value.items()
        }
    return [blanked(inner, replaced) for inner in value] if isinstance(value, list) else value


def load_state(path: Path) -> dict:
    """Return the state of a checkpoint of fairseq."""
    # Not for a block only: its end would take the type away from the other tests as well.
    torch.serialization.add_safe_globals([argparse.Namespace])
    return torch.load(path, weights_only=True)


def of_checkpoint(path: Path, exact: bool) -> Hashes:
    """Hash the tensors of a checkpoint by name and the structure of the rest.

    A tensor that shares its memory with one before it is hashed as such, so that tied weights
    stay tied. The zip file is not hashed: its bytes depend on which equal words are one object.

    Args:
        exact: whether the tensors are the same on every processor.
    """
    tensors, owners = {}, {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            owner = owners.setdefault(value.data_ptr(), name)
            facts = f"{value.dtype} {tuple(value.shape)} {owner}".encode()
            tensors[name] = digest(facts + value.contiguous().numpy().tobytes())
            return f"tensor {value.dtype} {tuple(value.shape)} {owner}"
        if isinstance(value, argparse.Namespace):
            return ["Namespace", plain(vars(value), name)]
        if isinstance(value, dict):
            entries = [[repr(key), plain(inner, f"{name}/{key}")] for key, inner in value.items()]
            return [type(value).__name__, entries]
        if isinstance(value, (list, tuple)):
            entries = [plain(inner, f"{name}/{i}") for i, inner in enumerate(value)]
            return [type(value).__name__, entries]
        return repr(value)

    structure = {"structure": canonical(plain(load_state(path), ""))}
    together = canonical(list(tensors.items()))
    model = {name: value for name, value in tensors.items() if name.startswith("/model/")}
    hashed = {"tensors": together, **{f"tensor {name}": value for name, value in model.items()}}
    return Hashes({**structure, **hashed}, {}) if exact else Hashes(structure, hashed)


class Workspace:
    """What the commands write, made when it is first asked for.

    Args:
        folder: an empty folder to write in; tiny: the data-bin of the toy language.
    """

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.folder, self.tiny = folder, tiny

    def decode(self, name: str, data: Path, **options: Any) -> Path:
        """Decode with the recorded teacher into a folder of that name."""
        toys.decode(data, TEACHER, self.folder / name, **options)
        return self.folder / name

    def seqkd(self, *words: Any) -> None:
        """Run a command of this package."""
        run_here("seqkd", *words)

    @functools.cached_property
    def fairseq(self) -> Path:
        """Decode the training split with fairseq's own search, in eight parts."""
        return self.decode("fairseq", self.tiny)

    @functools.cached_property
    def student(self) -> Path:
        """Write a worse teacher, with a tied matrix, averages and an optimizer's state."""
        state = load_state(TEACHER)
        weights, attention = state["model"], "encoder.layers.0.self_attn.{}_proj.weight"
        weights["decoder.layers.0.fc2.weight"] = weights["decoder.layers.0.fc2.weight"] / 4
        weights[attention.format("q")] = weights[attention.format("k")]
        average = {name: tensor.float() / 2 for name, tensor in weights.items()}
        state["extra_state"]["ema"] = average
        state["last_optimizer_state"] = {"momentum": torch.ones(3)}
        path = self.folder / "student.pt"
        with path.open("wb") as file:
            torch.save(state, file)
        return path

    def prune(self, scheme: str) -> Path:
        """Prune the student by a scheme."""
        path = self.folder / f"{scheme}.pt"
        options = ["--scheme", scheme, "--sparsity", 0.6]
        self.seqkd("prune", self.student, *options, "-o", path)
        return path


def data(work: Workspace) -> Hashes:
    """Hash the data-bin, so that a change of the input is not taken for one of the commands."""
    paths = [path for path in sorted(work.tiny.iterdir()) if path.suffix != ".log"]
    return Hashes({path.name: digest(path.read_bytes()) for path in paths}, {})


def decode_fairseq(work: Workspace) -> Hashes:
    """Record a decode by fairseq's search."""
    return of_directory(work.fairseq)


def decode_ctranslate2(work: Workspace) -> Hashes:
    """Record a decode by CTranslate2's search."""
    return of_directory(work.decode("ctranslate2", work.tiny, engine="ctranslate2"))


def decode_filtered(work: Workspace) -> Hashes:
    """Record a decode with filters, the MBR choice, and sources that are too long."""
    options = {"gen_subset": "valid", "part_size": 16, "select": "mbr", "max_source_positions": 12}
    filters = {"filter_length_ratio": 2.3, "filter_score": -0.3, "filter_empty": True}
    folder = work.decode("filtered", work.tiny, filter_repeats=2, **options, **filters)
    return of_directory(folder)


def decode_monolingual(work: Workspace) -> Hashes:
    """Record a decode of a split without targets, in which the length limit cuts some outputs."""
    ignore = shutil.ignore_patterns("valid.de-en.en.*")
    gold = shutil.copytree(work.tiny, work.folder / "monolingual-bin", ignore=ignore)
    options = {"gen_subset": "valid", "part_size": 16, "max_len_b": 14}
    return of_directory(work.decode("monolingual", gold, **options))


def decode_sampled(work: Workspace) -> Hashes:
    """Record a decode that samples with a fixed seed."""
    options = {"gen_subset": "valid", "part_size": 16, "sampling": True, "seed": 3}
    return of_sampled(work.decode("sampled", work.tiny, beam=2, nbest=2, **options))


def distributions(work: Workspace) -> Hashes:
    """Record the teacher's eight most probable symbols on the targets of a split."""
    folder = work.folder / "distributions"
    options = {"gen_subset": "valid", "part_size": 16, "topk": 8}
    toys.score(work.tiny, TEACHER, folder, **options)
    return of_directory(folder)


def select_chrf(work: Workspace) -> Hashes:
    """Record another choice from the decoded lists: by chrF, from two of each, filtered."""
    options = {"similarity": "chrf", "nbest": 2, "filter-length-ratio": 2.3}
    out = work.folder / "select-chrf"
    work.seqkd("select", work.fairseq, "--data", work.tiny, "-o", out, *toys.flags(options))
    return of_directory(out)


def select_mbr(work: Workspace) -> Hashes:
    """Record another choice from the decoded lists: the MBR choice on tokens as they are."""
    options = {"select": "mbr", "nbest": 3, "post-process": "none"}
    out = work.folder / "select-mbr"
    work.seqkd("select", work.fairseq, "--data", work.tiny, "-o", out, *toys.flags(options))
    return of_directory(out)


def prune_class_blind(work: Workspace) -> Hashes:
    """Record a checkpoint pruned over all matrices."""
    return of_checkpoint(work.prune("class-blind"), exact=True)


def prune_class_uniform(work: Workspace) -> Hashes:
    """Record a checkpoint pruned matrix by matrix."""
    return of_checkpoint(work.prune("class-uniform"), exact=True)


def prune_class_distribution(work: Workspace) -> Hashes:
    """Record a checkpoint pruned by standard deviations, whose last bits are the processor's."""
    return of_checkpoint(work.prune("class-distribution"), exact=False)


def evaluate(work: Workspace) -> Hashes:
    """Record the measurements of two checkpoints and their comparison."""
    path = work.folder / "evaluated.json"
    systems = [f"Teacher={TEACHER}", f"Student@1={work.student}"]
    options = ["--data", work.tiny, "--cpu", "--cache", work.folder / "cache", "-o", path]
    work.seqkd("evaluate", *systems, *options)
    return of_json(path, MEASURED_HERE)


def report(work: Workspace) -> Hashes:
    """Record the numbers of a report on recorded measurements, written and printed."""
    paths = [work.folder / "report.json", work.folder / "report-of-json"]
    measured = [DATA / "results.json", DATA / "speeds.json"]
    done = run_here("seqkd", "report", *measured, "-o", paths[0], "--json", "--title", "Toy")
    paths[1].write_text(done.stdout, encoding="utf-8")
    everywhere = {path.name: digest(path.read_bytes()) for path in paths}
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    entries = {f"{paths[0].name} {key}": canonical(value) for key, value in content.items()}
    return Hashes({**everywhere, **entries}, {})


def report_folder(work: Workspace) -> Hashes:
    """Record the numbers of a report on a folder with a data-bin, a decode and measurements."""
    run = work.folder / "run"
    shutil.copytree(work.tiny, run / "data-bin")
    shutil.copytree(work.fairseq, run / "distilled")
    for name in ("results.json", "speeds.json"):
        shutil.copyfile(DATA / name, run / name)
    index = {"results": ["results.json"], "speeds": ["speeds.json"], "data": ["data-bin"]}
    (run / "run.json").write_text(json.dumps({**index, "distilled": ["distilled"]}))
    path = work.folder / "report-folder.json"
    work.seqkd("report", run, "-o", path)
    return of_json(path, folder=str(run))


def text(work: Workspace) -> Hashes:
    """Record views and a gold split as text."""
    options = {
        "kd": ["--view", "seq_kd"],
        "inter": ["--view", "seq_inter", "--post-process", "none"],
        "gold": ["--split", "test"],
    }
    for name, words in options.items():
        work.seqkd("text", work.fairseq, *words, "-o", work.folder / f"text-{name}")
    paths = [work.folder / f"text-{name}.{lang}" for name in options for lang in ("de", "en")]
    return Hashes({path.name: digest(path.read_bytes()) for path in paths}, {})


ARTEFACTS: Dict[str, Callable[[Workspace], Hashes]] = {
    function.__name__: function
    for function in (
        data,
        decode_fairseq,
        decode_ctranslate2,
        decode_filtered,
        decode_monolingual,
        decode_sampled,
        distributions,
        select_chrf,
        select_mbr,
        prune_class_blind,
        prune_class_uniform,
        prune_class_distribution,
        evaluate,
        report,
        report_folder,
        text,
    )
}


def current_platform() -> Dict[str, str]:
    """Return what the last bits of fractions depend on."""
    versions = {}
    for name in ("torch", "ctranslate2", "numpy", "sacrebleu", "ve-fairseq"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        **versions,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor_model(),
    }


def processor_model() -> str:
    """Return the name of the processor with the numbers of its family and model."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    facts = {}
    for key, _, value in (line.partition(":") for line in lines):
        facts.setdefault(key.strip(), value.strip())
    if "model name" not in facts:
        return platform.processor()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


@pytest.fixture(scope="module")
def workspace(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give the folder that all commands of this module write in."""
    return Workspace(tmp_path_factory.mktemp("recorded"), tiny)


@pytest.fixture(scope="module")
def hashed(workspace: Workspace) -> Callable[[str], Hashes]:
    """Give a function that returns the present hashes of an artefact, made once."""
    return functools.lru_cache(maxsize=None)(lambda name: ARTEFACTS[name](workspace))


@pytest.fixture(scope="module")
def recorded(hashed: Callable[[str], Hashes]) -> dict:
    """Give the content of recorded_bytes.json, which is written first where that is asked for."""
    if os.environ.get(MUST_RECORD):
        hashes = {name: hashed(name)._asdict() for name in ARTEFACTS}
        content = {"platform": current_platform(), "artefacts": hashes}
        RECORDED.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def skip_without_ctranslate2(artefact: str) -> None:
    """Skip an artefact whose engine is not installed."""
    if artefact == decode_ctranslate2.__name__:
        pytest.importorskip("ctranslate2")


def test_every_artefact_is_recorded(recorded: dict) -> None:
    """Compare the names, so that no artefact goes untested."""
    assert set(recorded["artefacts"]) == set(ARTEFACTS)


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_integer_content_is_as_recorded(
    artefact: str, recorded: dict, hashed: Callable[[str], Hashes]
) -> None:
    """Compare what is the same on every machine."""
    skip_without_ctranslate2(artefact)
    assert hashed(artefact).everywhere == recorded["artefacts"][artefact]["everywhere"]


EXACT = ("data", "report", "text", "prune_class_blind", "prune_class_uniform")
HOLDING_FRACTIONS = [name for name in ARTEFACTS if name not in EXACT]


@pytest.mark.parametrize("artefact", HOLDING_FRACTIONS)
def test_whole_files_are_as_recorded(
    artefact: str, recorded: dict, hashed: Callable[[str], Hashes]
) -> None:
    """Compare what holds fractions, on the platform of the record alone."""
    skip_without_ctranslate2(artefact)
    then, now = recorded["platform"], current_platform()
    differing = [key for key in now if now[key] != then.get(key)]
    if differing:
        changes = "; ".join(f"{key} is {now[key]}, was {then.get(key)}" for key in differing)
        pytest.skip(f"fractions were recorded on another platform: {changes}")
    assert hashed(artefact).here == recorded["artefacts"][artefact]["here"]


def test_no_path_is_stored(workspace: Workspace, hashed: Callable[[str], Hashes]) -> None:
    """Look for the folder of this run in the files of decodes, of `select` and of `prune`."""
    for name in ("decode_fairseq", "distributions", "select_chrf", "prune_class_blind"):
        hashed(name)
    paths = [workspace.folder / name for name in ("fairseq", "distributions", "select-chrf")]
    files = {"class-blind.pt": (workspace.folder / "class-blind.pt").read_bytes()}
    for path in paths:
        files.update({f"{path}/{name}": stored for name, stored in folders.tree(path).items()})
    base = str(workspace.folder.parent).encode()
    assert [name for name, content in files.items() if base in content] == []
