"""Engines: CTranslate2's search against fairseq's, fairseq's own without its wastes, and what is
refused by name.
"""

import copy
import math
from types import SimpleNamespace

import folders
import manifests
import numpy as np
import pytest
import torch
import toys
from commands import refusal, run_process
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import GenerationConfig

from fairseq_seqkd import compat, engines
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.decoding.nbest_recorder import NBestRecorder
from fairseq_seqkd.decoding.run import DecodeRun
from fairseq_seqkd.engines import int8_support
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal

ctranslate2 = pytest.importorskip("ctranslate2")
from fairseq_seqkd.engines import ctranslate2_engine  # noqa: E402
from fairseq_seqkd.engines.ctranslate2_engine import Computation, CTranslate2Engine  # noqa: E402


@pytest.fixture(scope="module")
def loaded(tiny, teacher):
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(teacher)], arg_overrides={"data": str(tiny)}
    )
    models[0].eval()
    task.load_dataset("train")
    return models, task


def search_options(**more):
    return GenerationConfig(**{"beam": 4, "nbest": 4, "max_len_b": 30, **more})


def engine(name, models, task, **more):
    how = search_options(**more)
    own = [copy.deepcopy(model) for model in models]  # the engine changes how its attention caches
    fairseqs = FairseqEngine(
        task.build_generator(own, how), own, how.nbest, task.target_dictionary.eos()
    )
    if name == "fairseq":
        return fairseqs
    dictionaries = (task.source_dictionary, task.target_dictionary)
    fast = CTranslate2Engine(fairseqs, dictionaries, how, Computation())
    fast.open(seed=1)
    return fast


def sample(task, ids):
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in ids])


def plain(nbest):
    return [(h.tokens.tolist(), h.hit_limit) for h in nbest]


# CTranslate2 against fairseq.


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"beam": 1, "nbest": 1},
        {"lenpen": 0.4},
        {"unnormalized": True},
        {"max_len_a": 0.8, "max_len_b": 1},
        {"min_len": 0},
        {"nbest": 2},
    ],
    ids=str,
)
def test_ctranslate2_finds_what_fairseq_finds(loaded, more):
    models, task = loaded
    batch = sample(task, range(40))
    theirs, ours = (engine(name, models, task, **more).search(batch) for name in engines.NAMES)
    assert all(
        len(a) == len(b) or any(h.hit_limit for h in a) for a, b in zip(ours, theirs)
    )  # cut ones may become equal
    assert (
        sum(plain(a)[0] == plain(b)[0] for a, b in zip(ours, theirs)) >= 39
    )  # equal scores may change places
    same = 0
    for a, b in zip(ours, theirs):
        known = {tuple(h.tokens.tolist()): h for h in b}
        for h in a:
            twin = known.get(tuple(h.tokens.tolist()))
            if twin:
                same += 1
                assert h.log_prob == pytest.approx(twin.log_prob, abs=1e-4)
                assert h.score == pytest.approx(twin.score, abs=1e-4)
                assert h.hit_limit == twin.hit_limit
    assert same > 0.7 * sum(map(len, ours))  # the lowest ranks differ


@pytest.mark.parametrize("rows", [(0, 5, 1), (5,), (5, 5, 2)], ids=str)
def test_an_empty_source_is_searched_too(loaded, rows):
    """CTranslate2 itself answers it with nothing, at probability 1. Row 5 stands for it here."""
    models, task = loaded
    dataset = task.dataset("train")
    items = [
        {**dataset[i], "source": dataset[i]["source"][-1:]} if i == 5 else dataset[i] for i in rows
    ]
    batch = dataset.collater(items)
    theirs, ours = (engine(name, models, task).search(batch) for name in engines.NAMES)
    assert [plain(row)[0] for row in ours] == [plain(row)[0] for row in theirs]
    empty = [
        i for i, length in enumerate(batch["net_input"]["src_lengths"].tolist()) if length == 1
    ]
    assert len(empty) == rows.count(5)
    for i in empty:
        assert plain(ours[i]) == plain(theirs[i]) and len(ours[i]) == 4
        assert [h.log_prob for h in ours[i]] == pytest.approx(
            [h.log_prob for h in theirs[i]], abs=1e-4
        )


def test_no_hypothesis_stands_twice_in_a_list_that_was_cut(loaded):
    """One ends where another one, of the same tokens so far, is cut."""
    models, task = loaded
    rows = engine("ctranslate2", models, task, max_len_b=4, beam=8, nbest=8).search(
        sample(task, range(60))
    )
    assert any(h.hit_limit for row in rows for h in row)
    assert all(len({tuple(h.tokens.tolist()) for h in row}) == len(row) for row in rows)


def test_numbers_that_are_none_end_a_search_with_a_sentence(loaded):
    models, task = loaded
    broken, batch = copy.deepcopy(models[0]), sample(task, range(4, 9))
    with torch.no_grad():
        broken.encoder.embed_tokens.weight[batch["net_input"]["src_tokens"][2, -2]] = math.nan
    with pytest.raises(Refusal, match="does not end .* on one of 5 sentences, 4 to 8: "):
        engine("fairseq", [broken], task).search(batch)


def test_where_the_empty_hypothesis_is_likely_it_is_forbidden_as_in_fairseq(loaded):
    """A teacher that closes its sentences too early: fairseq takes away the empty one after the
    softmax.
    """
    models, task = loaded
    eager = copy.deepcopy(models[0])
    eos, batch = task.target_dictionary.eos(), sample(task, range(30))
    with torch.no_grad():
        eager.decoder.output_projection.weight[eos] *= 2.5
    theirs, free = (engine("fairseq", [eager], task, min_len=n).search(batch) for n in (1, 0))
    ours = engine("ctranslate2", [eager], task, min_len=1).search(batch)
    assert any(len(h.tokens) == 0 for row in free for h in row)  # or the test would test nothing
    assert all(len(h.tokens) for row in ours for h in row)
    assert [plain(row)[0] for row in ours] == [plain(row)[0] for row in theirs]
    for a, b in zip(ours, theirs):
        assert a[0].log_prob == pytest.approx(b[0].log_prob, abs=1e-4)


@pytest.mark.parametrize("more", [{"min_len": 12}, {"unkpen": math.inf}], ids=str)
def test_constraints_hold_and_scores_stay_the_models_own(loaded, more):
    models, task = loaded
    batch = sample(task, range(12))
    unk = task.target_dictionary.unk()
    theirs, ours = (engine(name, models, task, **more).search(batch) for name in engines.NAMES)
    assert (
        sum(plain(a)[0] == plain(b)[0] for a, b in zip(ours, theirs)) >= 9
    )  # the search itself differs a little
    known = {(i, tuple(h.tokens.tolist())): h.log_prob for i, row in enumerate(theirs) for h in row}
    compared = 0
    for i, row in enumerate(ours):
        assert [h.score for h in row] == sorted((h.score for h in row), reverse=True)
        for h in row:
            tokens = h.tokens.tolist()
            if "min_len" in more:
                assert len(tokens) >= 12
            if "unkpen" in more:
                assert unk not in tokens
            if (i, tuple(tokens)) in known:
                compared += 1
                assert h.log_prob == pytest.approx(known[i, tuple(tokens)], abs=1e-3)
    assert compared >= 9


def test_samples_are_the_models_and_depend_on_the_seed(loaded):
    models, task = loaded
    batch = sample(task, range(12))
    found = []
    for seed in (1, 1, 2):
        made = engine("ctranslate2", models, task, sampling=True, sampling_topk=5)
        made.begin_part(seed)
        found.append(made.search(batch))
    first, again, other = ([[h.tokens.tolist() for h in row] for row in rows] for rows in found)
    assert first == again != other
    made = engine("ctranslate2", models, task, sampling=True, sampling_topk=2, temperature=0.3)
    made.begin_part(1)
    rows = [[tuple(h.tokens) for h in row] for row in made.search(batch)]
    assert [len(row) for row in rows] == [4] * 12 and min(
        len(set(row)) for row in rows
    ) < 4  # drawn twice counts twice
    assert (
        made.differences(batch)[0] < 1e-3
    )  # log-probabilities at temperature 1, by fairseq's forward pass


def test_a_model_that_is_not_the_teachers_stops_the_run(loaded):
    models, task = loaded
    other = engine("ctranslate2", models, task)
    with torch.no_grad():
        other.model.decoder.layers[0].fc1.weight *= 1.01  # after the conversion
    with pytest.raises(Refusal, match="does not compute what this teacher computes"):
        other.verify(sample(task, range(8)))
    assert engine("ctranslate2", models, task).verify(sample(task, range(8))) is None


# Refused by name.


def test_lstms_and_ensembles_are_told_to_use_fairseq(loaded, tiny):
    models, task = loaded
    _, lstm, _ = toys.build(tiny, toys.LSTM, criterion="cross_entropy")
    with pytest.raises(
        Refusal, match="Transformers only, this teacher is a LSTMModel; use --engine fairseq"
    ):
        engine("ctranslate2", [lstm], task)
    with pytest.raises(Refusal, match="not with an ensemble of 2; use --engine fairseq"):
        engine("ctranslate2", models * 2, task)


def test_transformers_that_it_cannot_hold_are_told_so(loaded, tiny):
    _, task = loaded
    _, model, _ = toys.build(tiny, criterion="cross_entropy", decoder_normalize_before=True)
    with pytest.raises(
        Refusal, match="differ in the order of layer norms.*translate with fairseq instead"
    ):
        engine("ctranslate2", [model], task)
    _, model, _ = toys.build(tiny, criterion="cross_entropy", activation_fn="tanh")
    with pytest.raises(Refusal, match="tanh.*translate with fairseq instead"):
        engine("ctranslate2", [model], task)


# Through fairseq-generate.


@pytest.fixture(scope="module")
def by_ctranslate2(tiny, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct2") / "distilled"
    printed = toys.decode(tiny, teacher, folder, engine="ctranslate2").stdout
    return folder, printed


def test_it_decodes_the_split_as_fairseq_does(by_ctranslate2, distilled):
    folder, printed = by_ctranslate2
    ours, theirs = NBestStore(folder), NBestStore(distilled)
    same = sum(
        ours[i][0].tokens.tolist() == theirs[i][0].tokens.tolist() for i in range(len(theirs))
    )
    assert len(ours) == len(theirs) and same >= 0.999 * len(theirs) - 1
    assert "agree with fairseq's to" in printed
    version = compat.versions("ctranslate2")["ctranslate2"]
    assert f"engine:ctranslate2-{version}/float32" in manifests.read(folder)["signature"]
    assert np.mean([ours[i][0].similarity for i in range(len(ours))]) == pytest.approx(
        np.mean([theirs[i][0].similarity for i in range(len(theirs))]), abs=0.2
    )


def test_two_workers(by_ctranslate2, tiny, teacher, tmp_path):
    more = {"engine": "ctranslate2", "distributed_world_size": 2}
    worker = toys.decode_until(1, tiny, teacher, tmp_path / "out", distributed_rank=1, **more)
    worker.kill()
    worker.communicate()
    toys.decode(tiny, teacher, tmp_path / "out", distributed_rank=0, **more)
    assert folders.tree(tmp_path / "out") == folders.tree(by_ctranslate2[0])


INT8 = {"gen_subset": "valid", "engine": "ctranslate2", "compute_type": "int8"}


def test_int8_translates_nearly_as_float32(tiny, teacher, tmp_path):
    # CTranslate2 reads the variable once a process. With MKL int8 is right on every x86.
    command = toys.decode_command(tiny, teacher, tmp_path / "int8", **INT8)
    run_process("fairseq-generate", *command, **{int8_support.USE_MKL: "1"})
    assert manifests.read(tmp_path / "int8")["settings"]["engine"]["precision"] == "int8"
    toys.decode(tiny, teacher, tmp_path / "float32", **{**INT8, "compute_type": None})
    ours, theirs = (NBestStore(tmp_path / name) for name in ("int8", "float32"))
    same = sum(
        ours[i][0].tokens.tolist() == theirs[i][0].tokens.tolist() for i in range(len(theirs))
    )
    assert same >= 0.9 * len(theirs) > 45
    scores = [[h.score for nbest in store for h in nbest[:1]] for store in (ours, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=0.1) and scores[0] != scores[1]


def test_a_smaller_type_that_changes_the_teacher_is_refused(tiny, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv(int8_support.USE_MKL, "1")

    monkeypatch.setattr(ctranslate2_engine, "TOLERANCE_QUANTISED", 0.0)
    refused = toys.decode(tiny, teacher, tmp_path / "out", check=False, **INT8)
    sentence = refusal(refused)
    assert "--compute-type int8 changes this teacher too much" in sentence
    assert "use float32" in sentence
    assert not list(tmp_path.glob("out/parts/*.part"))


@pytest.mark.parametrize(
    "more,sentence",
    [
        ({"prefix_size": 1}, "does not support --prefix-size"),
        (
            {"compute_type": "int8", "engine": "fairseq"},
            "--compute-type is for --engine ctranslate2",
        ),
        ({"fp16": True}, "--compute-type float16"),
    ],
)
def test_wrong_options_stop_at_the_start(tiny, teacher, tmp_path, more, sentence):
    done = toys.decode(
        tiny,
        teacher,
        tmp_path / "out",
        check=False,
        gen_subset="valid",
        **{"engine": "ctranslate2", **more},
    )
    assert sentence in refusal(done)
    assert not (tmp_path / "out").exists()


# fairseq's own engine.


@pytest.mark.parametrize("architecture", [{}, toys.LSTM], ids=["transformer", "lstm"])
def test_without_its_wastes_fairseq_finds_the_very_same(tiny, architecture):
    """fairseq's generator as it is, and the engine: every token and every bit of the scores."""
    task, model, _ = toys.build(tiny, architecture, criterion="cross_entropy", seed=3)
    model.eval()
    batch = toys.batch(task, 9)
    how = search_options()
    stock = task.build_generator([model], how).generate([model], batch)
    mine = [copy.deepcopy(model)]
    rows = FairseqEngine(
        task.build_generator(mine, how), mine, how.nbest, task.target_dictionary.eos()
    ).search(batch)
    for row, theirs in zip(rows, stock):
        assert [h.tokens.tolist() for h in row] == [h["tokens"].tolist()[:-1] for h in theirs]
        assert [h.score for h in row] == pytest.approx(
            [float(h["score"]) for h in theirs], abs=1e-6
        )


def test_a_target_shorter_than_the_prefix_leaves_the_rest_free(loaded):
    """Of an empty one nothing is left, and its sentence is searched as without a prefix."""
    models, task = loaded
    mine = engine("fairseq", models, task)
    recorder = NBestRecorder.__new__(NBestRecorder)
    recorder.engine, recorder.dataset = mine, task.dataset("train")
    recorder.nbests, recorder.scorer = {}, None
    batch, eos = sample(task, range(3)), task.target_dictionary.eos()
    prefix = batch["target"][:, :2].clone()
    prefix[0, :], prefix[1, 1] = eos, eos
    recorder.record(batch, prefix)
    rows = dict(zip(batch["id"].tolist(), (recorder.nbests[i] for i in batch["id"].tolist())))
    free = dict(zip(batch["id"].tolist(), recorder.engine.search(batch)))
    empty, short, whole = batch["id"].tolist()
    assert plain(rows[empty]) == plain(free[empty])
    assert len({tuple(h.tokens.tolist()) for h in rows[short]}) == 4 and {
        h.tokens[0] for h in rows[short]
    } == {int(prefix[1, 0])}
    assert {tuple(h.tokens[:2].tolist()) for h in rows[whole]} == {tuple(prefix[2].tolist())}


def test_after_a_search_the_model_is_as_it_was(loaded):
    """In an ordinary forward pass a row is a sentence again, and no beam of one."""
    models, task = loaded
    model, batch = copy.deepcopy(models[0]), sample(task, range(8))
    how = search_options()
    with torch.no_grad():
        before = model(**batch["net_input"])[0]
        FairseqEngine(
            task.build_generator([model], how), [model], 1, task.target_dictionary.eos()
        ).search(batch)
        assert torch.equal(model(**batch["net_input"])[0], before)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA failed: out of memory")],
)
def test_too_little_memory_is_said_in_a_sentence(error):
    def record(*_, **__):
        raise error

    closed = []
    run = DecodeRun.__new__(DecodeRun)
    run.recorder = SimpleNamespace(record=record, close=lambda: closed.append(True))
    with pytest.raises(
        Refusal, match="too little memory for a batch of 3,000 tokens .* smaller --max-tokens"
    ):
        run.record({"ntokens": 3000})
    assert closed == [True]
