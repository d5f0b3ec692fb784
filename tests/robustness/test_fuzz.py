"""Fuzzing of every reader of our own formats: whatever the bytes, it reads them or ends with a
Refusal, and nothing else.

A valid file is damaged in ways that files are damaged, and in ways that an attacker would choose:
bits, lengths, cuts, pieces moved, numbers replaced by others. Eighty inputs a reader, and five
thousand among the slow tests.
"""

import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measurements import result

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.commands import inspect
from fairseq_seqkd.compression import compressed
from fairseq_seqkd.corpus import array_files, inspection, manifest, progress, views
from fairseq_seqkd.corpus.distribution_store import (
    PER_TOKEN,
    DistributionBlock,
    DistributionStore,
)
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.deployment import config as deployed
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records
from fairseq_seqkd.report import run_folder, sections
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.selection import choose

INPUTS, MANY = 80, 5000  # for each reader
NUMBERS = (0, 1, 7, 255, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    1 << 70,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": None},
    "../../x",
    "/etc/passwd",
    [".."],
)

where = st.floats(0, 1, exclude_max=True)
byte_damage = st.one_of(
    st.tuples(st.just("flip"), where, st.integers(0, 7)),
    st.tuples(st.just("cut"), where, st.none()),
    st.tuples(st.just("number"), where, st.sampled_from(NUMBERS)),
    st.tuples(st.just("drop"), where, st.integers(1, 64)),
    st.tuples(st.just("insert"), where, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("head"), st.integers(0, 200), st.integers(0, 255)),
)
value_damage = st.tuples(st.just("value"), where, st.sampled_from(VALUES))


def damage(content, how):
    """The bytes of a file, damaged once."""
    kind, place, what = how
    at = place if kind == "head" else int(place * len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << what]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "number":
        at -= at % 8
        return content[:at] + what.to_bytes(8, "little") + content[at + 8 :]
    if kind == "drop":
        return content[:at] + content[at + what :]
    if kind == "insert":
        return content[:at] + what + content[at:]
    if kind == "head":  # where formats keep their lengths
        return content[:at] + bytes([what]) + content[at + 1 :]
    return with_value(content, place, what)


def with_value(content, place, what):
    """JSON in which one value, of all that there are, is another; also behind a length, as
    safetensors has it.
    """
    start = 0 if content[:1] in b"{[" else 8
    end = len(content) if not start else 8 + int.from_bytes(content[:8], "little")
    tree = json.loads(content[start:end])
    slots = []

    def walk(node):
        for key, value in (
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        ):
            slots.append((node, key))
            walk(value)

    walk(tree)
    node, key = slots[int(place * len(slots))]
    node[key] = what
    text = json.dumps(tree).encode()
    return text if not start else len(text).to_bytes(8, "little") + text + content[end:]


# What is read: a folder is made once, and one file in it damaged; reading looks at everything.


def read_hypotheses(folder):
    store = NBestStore(folder)
    for _, block in store.blocks():
        views.targets(block, choose.mode(block), 2)
    return [store[i] for i in (0, len(store) - 1) if 0 <= i < len(store)]


def read_distributions(folder):
    store = DistributionStore(folder)
    return store.tokens(store.first, store.lengths)


def with_the_right_checksum(read, module):
    """A reader of files whose checksum fits whatever is in them: damage has another one, an
    attacker's file the right one.
    """

    def reads(folder):
        with mock.patch.object(module, "checksum", return_value=mock.ANY):
            return read(folder)

    return reads


def read_compressed(folder):
    compressed.restore(folder / "student.compressed", folder / "restored.pt")


def read_part(folder):
    return Block.read(folder / "1.part")


def read_part_of_distributions(folder):
    return DistributionBlock.read(folder / "2.part")


def read_for_people(folder):
    """As `seqkd inspect` and `seqkd report` do."""
    said = list(inspect.in_words(inspection.examine(folder)))
    return said, sections.pipeline([run_folder.Distilled(folder, manifest.read(folder))])


def read_results(folder):
    content = records.read_evaluation(folder / "file")
    return table.make_report(content.results, pairs=content.pairs)


READERS = {
    "part": ("1.part", read_part),
    "part, by an attacker": ("1.part", with_the_right_checksum(read_part, array_files)),
    "part of distributions": (
        "2.part",
        with_the_right_checksum(read_part_of_distributions, array_files),
    ),
    "hypotheses": (
        "distilled/hypotheses.safetensors",
        lambda folder: read_hypotheses(folder / "distilled"),
    ),
    "distributions": (
        "stored/distributions.safetensors",
        lambda folder: read_distributions(folder / "stored"),
    ),
    "manifest": ("distilled/manifest.json", lambda folder: progress.read(folder / "distilled")),
    "manifest, examined": (
        "distilled/manifest.json",
        lambda folder: read_for_people(folder / "distilled"),
    ),
    "manifest of a view": (
        "distilled/seq_kd/manifest.json",
        lambda folder: views.find(folder / "distilled" / "seq_kd"),
    ),
    "compressed": ("student.compressed", read_compressed),
    "results": ("file", read_results),
    "deployed": ("seqkd.json", lambda folder: deployed.read(folder)),
}


@pytest.fixture(scope="module")
def files(distilled, whole, teacher, tmp_path_factory):
    """A folder with a valid file of every format."""
    out = tmp_path_factory.mktemp("files")
    shutil.copytree(distilled, out / "distilled")
    shutil.copytree(whole, out / "stored")
    NBestStore(distilled).block(0).write(out / "1.part")
    store = DistributionStore(whole)
    order = store.first.argsort()
    arrays = {"keys": store.keys[order], "lengths": store.lengths[order]}
    arrays.update((key, array[:]) for key, array in zip(PER_TOKEN, store.per_token))
    DistributionBlock.of(arrays).write(out / "2.part")
    state = Checkpoint(teacher).state
    for tensor in state["model"].values():
        tensor[torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
    compressed.compress(state, out / "student.compressed")
    (out / "file").write_text(
        json.dumps({"results": [result("Student", 1), result("Seq-KD")], "pairs": []})
    )
    deployed.DeployedConfig(
        "de", "en", "int8", 100, 1.2, 10, 99, "sentencepiece", deployed.SUBWORD_FILE
    ).write(out)
    return out


def fuzz(files, name, inputs):
    """Damages one file so many times; returns how many of the inputs were refused."""
    file, read = READERS[name]
    valid, refused = (files / file).read_bytes(), 0
    read(files)  # as it is, it is read
    has_values = valid[:1] in b"{[" or valid[8:9] == b"{"
    kinds = st.one_of(byte_damage, value_damage) if has_values else byte_damage

    @settings(
        max_examples=inputs,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(kinds, min_size=1, max_size=3))
    def try_it(damages):
        nonlocal refused
        content = valid
        for how in damages:
            try:
                content = damage(content, how) or b"\0"
            except ValueError:  # no JSON any more
                continue
        (files / file).write_bytes(content)
        try:
            read(files)
        except Refusal:
            refused += 1

    try:
        try_it()
    finally:
        (files / file).write_bytes(valid)
    return refused


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(files, name):
    assert fuzz(files, name, INPUTS) > INPUTS / 8


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_read_or_refused(files, name):
    assert fuzz(files, name, MANY) > MANY / 8


def test_a_manifest_cannot_name_a_file_elsewhere(files, tmp_path):
    """A view's manifest that names files outside of it: only names in the folder are looked at."""
    shutil.copytree(files / "distilled", tmp_path / "distilled")
    secret = Path(tempfile.mkstemp(dir=tmp_path)[1])
    found = manifest.read(tmp_path / "distilled" / "seq_kd")
    found.files = {f"../../{secret.name}": manifest.FileFacts(0, "")}
    manifest.write(tmp_path / "distilled" / "seq_kd", found)
    with pytest.raises(
        Refusal, match=f"seq_kd/{secret.name} is not the file that belongs to this view"
    ):
        views.find(tmp_path / "distilled" / "seq_kd")
