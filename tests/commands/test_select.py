"""`seqkd select`: what it writes against a decode with the same options, byte for byte, and what it
refuses.
"""

import json
import shutil

import folders
import manifests
import pytest
import toys

from fairseq_seqkd import cli
from fairseq_seqkd.corpus.settings import differences
from fairseq_seqkd.errors import Refusal


def select(*args):
    return cli.main(["select", *map(str, args)])


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "chrf"},
        {"similarity": "ter", "nbest": 2},
        {"nbest": 1},
        {"select": "mbr", "nbest": 3, "similarity-workers": 1},
        {"filter-length-ratio": 2.3, "filter-empty": True, "post-process": "none"},
    ],
    ids=lambda options: "-".join(options),
)
def test_it_is_what_decoding_with_these_options_leaves(
    options, tiny, teacher, distilled, tmp_path, capsys
):
    before = folders.tree(distilled)
    toys.decode(tiny, teacher, tmp_path / "decoded", **options)
    assert select(distilled, "--data", tiny, "-o", tmp_path / "selected", *toys.flags(options)) == 0
    content = manifests.read(tmp_path / "decoded")
    assert capsys.readouterr().out.rstrip().endswith(content["signature"])
    assert folders.tree(tmp_path / "selected") == folders.tree(tmp_path / "decoded")
    assert folders.tree(distilled) == before
    changed = differences(manifests.read(distilled)["settings"], content["settings"])
    assert changed  # else the options would have made no difference


def test_the_fast_engine_ranks_the_same_however_many_are_kept(tiny, teacher, tmp_path):
    toys.decode(tiny, teacher, tmp_path / "four", engine="ctranslate2")
    toys.decode(tiny, teacher, tmp_path / "two", engine="ctranslate2", nbest=2)
    assert select(tmp_path / "four", "--data", tiny, "-o", tmp_path / "selected", "--nbest", 2) == 0
    assert folders.tree(tmp_path / "selected") == folders.tree(tmp_path / "two")


def test_it_continues_where_it_was_interrupted(tiny, distilled, tmp_path, monkeypatch, capsys):
    from fairseq_seqkd.corpus.distilled import Distilled

    commit, committed = Distilled.commit, []

    def interrupted(self, part, block):
        if len(committed) == 3:
            raise KeyboardInterrupt
        commit(self, part, block)
        committed.append(part)

    monkeypatch.setattr(Distilled, "commit", interrupted)
    words = [distilled, "--data", tiny, "-o", tmp_path / "new", "--similarity", "chrf", "--json"]
    assert select(*words) == 130 and not manifests.read(tmp_path / "new")["complete"]
    monkeypatch.setattr(
        Distilled,
        "commit",
        lambda self, part, block: (commit(self, part, block), committed.append(part)),
    )
    assert select(*words) == 0 and sorted(committed) == list(range(8))  # no part twice
    assert json.loads(capsys.readouterr().out)["views"] == ["seq_inter", "seq_kd"]
    select(distilled, "--data", tiny, "-o", tmp_path / "undisturbed", "--similarity", "chrf")
    assert folders.tree(tmp_path / "new") == folders.tree(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--beam", "7"], "--beam cannot be changed after decoding"),
        (["--engine", "ctranslate2"], "--engine cannot be changed after decoding"),
        (["--part-size", "500"], "--part-size cannot be changed after decoding"),
        (["--topk", "4"], "--topk cannot be changed after decoding"),
        (["--score-reference"], "--score-reference cannot be changed after decoding"),
        (["--distill-dir", "elsewhere"], "--distill-dir cannot be changed after decoding"),
        (["--source-lang", "en", "--target-lang", "de"], "-lang cannot be changed after decoding"),
        (["--left-pad-source"], "--left-pad-source cannot be changed after decoding"),
        (["--nbest", "5"], "--nbest is 5, it must be between 1 and 4"),
        (["--nbest", "0"], "--nbest is 0"),
        (["--nbest", "1", "--select", "mbr"], "--nbest must be at least 2"),
        (["--bpe", "characters"], "fairseq cannot be set up with these options"),
        (["--filter-copy", "2"], "--filter-copy is 2.0, it must be a share"),
        (["--similarity", "chrf", "--similarity-tokenizer", "char"], "chrf takes none"),
    ],
)
def test_refusals(options, sentence, tiny, distilled, tmp_path):
    with pytest.raises(Refusal, match=sentence):
        select(distilled, "--data", tiny, "-o", tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


def test_other_data_and_unfinished_directories_are_refused(tiny, distilled, tmp_path):
    with pytest.raises(Refusal, match="are the same directory"):
        select(distilled, "--data", tiny, "-o", distilled)
    with pytest.raises(Refusal, match="holds no finished n-best lists"):
        select(distilled / "seq_kd", "--data", tiny, "-o", tmp_path / "new")
    with pytest.raises(Refusal, match="is not the data-bin that"):
        select(distilled, "--data", distilled / "seq_kd", "-o", tmp_path / "new")
    shutil.copytree(distilled, tmp_path / "other")
    with pytest.raises(Refusal, match="was begun with other settings"):
        select(distilled, "--data", tiny, "-o", tmp_path / "other", "--similarity", "chrf")
    content = manifests.read(tmp_path / "other")
    content["settings"]["similarity"]["tokenizer_undone"] = "moses"
    content.pop("format")
    manifests.write(tmp_path / "other", content)
    with pytest.raises(Refusal, match="were decoded with --tokenizer moses"):
        select(tmp_path / "other", "--data", tiny, "-o", tmp_path / "new")
