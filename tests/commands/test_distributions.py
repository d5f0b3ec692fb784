"""Stored distributions: what is in them, who may use them, and that they teach what the teacher
itself would.
"""

import json
import shutil
import tracemalloc

import folders
import manifests
import numpy as np
import pytest
import torch
import toys
from commands import refusal, run_here, start_process
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.distribution_store import (
    PER_TOKEN,
    DistributionBlock,
    DistributionStore,
    keys_of,
)
from fairseq_seqkd.corpus.mmap_format import Writer
from fairseq_seqkd.errors import Refusal


@pytest.fixture(scope="module")
def scored(tiny, teacher, shared):
    """The 8 most probable symbols for every token of the toy training set."""
    return shared("top8", lambda folder: toys.score(tiny, teacher, folder / "D", topk=8)) / "D"


@pytest.fixture(scope="module")
def halves(tiny, teacher, shared):
    """The whole distributions in 16 bits."""

    def make(folder):
        toys.score(tiny, teacher, folder / "D", topk=toys.EVERYTHING)

    return shared("halves", make) / "D"


def training_batch(task, ids):
    if "train" not in task.datasets:
        task.load_dataset("train", combine=True)
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in ids])


def learn(built, sample):
    """(loss, log, {name: gradient}) of a training step, dropout off."""
    _, model, criterion = built
    model.train()
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
        if isinstance(getattr(module, "p", None), float):
            module.p = 0.0
    model.zero_grad()
    loss, _, log = criterion(model, sample)
    loss.backward()
    return (
        loss.item(),
        log,
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
    )


def assert_alike(found, expected, tolerance):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[2].keys() == expected[2].keys()
    scale = max(gradient.abs().max().item() for gradient in expected[2].values())
    for name, gradient in expected[2].items():
        assert (found[2][name] - gradient).abs().max().item() <= tolerance * scale, name


# What is stored.


def test_what_is_stored_is_what_the_teacher_says(tiny, teacher, scored):
    """Sentence by sentence without a batch: ids, probabilities, the rest, and the target's
    log-probability.
    """
    task, _, criterion = toys.build(tiny, criterion="word_kd", teacher_path=teacher)
    model, store = criterion.teacher.models[0], DistributionStore(scored)
    pad = (task.source_dictionary.pad(), task.target_dictionary.pad())
    task.load_dataset("train")
    for i in (0, 1, 250, 508):
        sample = training_batch(task, [i])
        target = sample["target"]
        with torch.no_grad():
            q = torch.softmax(model(**sample["net_input"])[0][0], -1)
        lengths = np.array([target.size(1)])
        first = store.find(
            keys_of(sample["net_input"]["src_tokens"].numpy(), target.numpy(), pad), lengths
        )
        found = store.tokens(first, lengths)
        top, ids = q.topk(8, dim=-1)
        assert np.array_equal(found.ids[:, :3], ids[:, :3].numpy())
        assert found.probabilities == pytest.approx(top.numpy(), abs=6e-4)
        assert found.tail == pytest.approx((1 - top.sum(-1)).numpy(), abs=1e-3)
        of_target = q.gather(-1, target[0].unsqueeze(-1))[:, 0].log()
        assert found.target_log_probs == pytest.approx(of_target.numpy(), rel=2e-3, abs=2e-3)


def test_the_store_is_small_and_says_what_it_covers(tiny, scored):
    store, content = DistributionStore(scored), manifests.read(scored)
    gold = Split(tiny, "train", LanguagePair("de", "en")).read("en")
    tokens = int(gold.sizes.sum())
    assert len(store) == len(gold) == content["sentences"] and content["counts"] == {
        "tokens": tokens,
        "too_long": 0,
    }
    assert store.per_token.ids.shape == (tokens, 8) and store.per_token.ids.dtype == np.uint16
    assert store.path.stat().st_size / tokens <= 40
    assert 0.5 < content["mass"] <= 1
    assert "topk:8|store:float16" in content["signature"]


def test_the_same_bytes_whoever_scores(tiny, teacher, scored, tmp_path):
    """Killed and continued; two workers of one directory; and a third that finds nothing to do."""
    worker = toys.decode_until(2, tiny, teacher, tmp_path / "killed", **toys.SCORING, topk=8)
    worker.kill()
    worker.communicate()
    assert manifests.read(tmp_path / "killed")["complete"] is False
    toys.score(tiny, teacher, tmp_path / "killed", topk=8)
    options = {**toys.SCORING, "topk": 8, "distributed_world_size": 2}
    commands = [
        toys.decode_command(tiny, teacher, tmp_path / "two", distributed_rank=rank, **options)
        for rank in range(2)
    ]
    workers = [start_process("fairseq-generate", *command) for command in commands]
    assert [worker.wait() for worker in workers if worker.communicate()] == [0, 0]
    expected = folders.tree(scored)
    assert folders.tree(tmp_path / "killed") == expected
    assert folders.tree(tmp_path / "two") == expected
    assert "nothing is left" in toys.score(tiny, teacher, tmp_path / "two", topk=8).stdout
    assert folders.tree(tmp_path / "two") == expected


def test_memory_of_joining_parts_does_not_grow_but_for_a_few_bytes_a_sentence(tmp_path):
    def peak(parts, sentences=1000, tokens=8, k=2):
        rng, paths = np.random.default_rng(1), []
        for part in range(parts):
            paths.append(tmp_path / f"{parts}.{part}.part")
            lengths = np.full(sentences, tokens, np.int32)
            arrays = {
                "keys": rng.integers(0, 1 << 60, sentences).astype(np.uint64),
                "lengths": lengths,
            }
            arrays["ids"] = rng.integers(4, 99, (sentences * tokens, k)).astype(np.uint16)
            arrays["probabilities"] = np.full((sentences * tokens, k), 0.3, np.float16)
            arrays |= {
                name: np.full(sentences * tokens, -0.5, np.float16)
                for name in ("rest", "target_log_probs")
            }
            DistributionBlock.of(arrays).write(paths[-1])
        tracemalloc.start()
        DistributionStore.merge(paths, tmp_path / f"{parts}.safetensors")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert (peak(40) - peak(5)) / 35_000 < 50  # a sentence's tokens take 96 bytes here


@pytest.mark.slow
def test_several_workers_through_the_command(tiny, teacher, scored, tmp_path):
    options = {**toys.SCORING, "topk": 8, "user_dir": None, "task": None}
    rest = toys.decode_command(tiny, teacher, tmp_path / "out", **options)
    run_here("seqkd", "decode", "--workers", 2, *rest)
    assert folders.tree(tmp_path / "out") == folders.tree(scored)


def test_an_ensemble_is_averaged_before_its_top_k_are_taken(
    tiny, teacher, second_teacher, tmp_path
):
    both = f"{teacher}:{second_teacher}"
    toys.score(tiny, both, tmp_path / "both", topk=toys.EVERYTHING, store_dtype="float32")
    live = toys.build(tiny, criterion="word_kd", teacher_path=both)
    stored = toys.build(tiny, criterion="word_kd", teacher_distributions=tmp_path / "both")
    sample = training_batch(live[0], range(6))
    assert_alike(learn(stored, sample), learn(live, sample), 1e-5)


# The hash by which a sentence is found.

SENTENCE = st.lists(st.integers(4, 90), min_size=1, max_size=9)


@given(source=SENTENCE, target=SENTENCE, left=st.integers(0, 5), right=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_padding_does_not_change_the_key(source, target, left, right):
    padded = keys_of(np.array([[1] * left + source]), np.array([target + [1] * right]), (1, 1))
    assert padded == keys_of(np.array([source]), np.array([target]), (1, 1))


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=2, max_size=2, unique_by=str))
@settings(max_examples=300, deadline=None)
def test_other_sentences_have_other_keys(pairs):
    """Another order, another length, or tokens that moved from one side to the other among them."""
    keys = [keys_of(np.array([source]), np.array([target]), (1, 1))[0] for source, target in pairs]
    assert keys[0] != keys[1]


def test_order_and_side_count():
    pairs = [
        ([5, 6], [7]),
        ([6, 5], [7]),
        ([5], [6, 7]),
        ([7], [5, 6]),
        ([5, 6, 6], [7]),
        ([5, 6], [7, 7]),
    ]
    assert len({int(keys_of(np.array([s]), np.array([t]), (1, 1))[0]) for s, t in pairs}) == len(
        pairs
    )


def test_a_store_finds_what_is_there_and_nothing_else(tmp_path):
    """Three parts, one of them empty, two equal sentences, and a key of the right value but another
    length.
    """
    dtype, k = np.float16, 2
    parts, keys = [], [[30, 10], [], [20, 10, 40]]
    for i, mine in enumerate(keys):
        lengths = np.array([key // 10 for key in mine], np.int32)
        tokens = int(lengths.sum())
        arrays = {
            "keys": np.array(mine, np.uint64),
            "lengths": lengths,
            "ids": np.repeat(np.array(mine, np.uint16), lengths)[:, None]
            + np.arange(k, dtype=np.uint16),
            "probabilities": np.full((tokens, k), 0.25, dtype),
            "rest": np.full(tokens, 0.5, dtype),
            "target_log_probs": np.full(tokens, -1.5, dtype),
        }
        parts.append(tmp_path / f"{i}.part")
        DistributionBlock.of(arrays).write(parts[-1])
    DistributionStore.merge(parts, tmp_path / DistributionStore.NAME)
    store = DistributionStore(tmp_path)
    assert len(store) == 5 and store.k == k
    lengths = np.array([4, 1, 3, 2, 2, 9])
    first = store.find(np.array([40, 10, 30, 20, 25, 40], np.uint64), lengths)
    assert (first[:4] >= 0).all() and (first[4:] == -1).all()
    found = store.tokens(first[:4], lengths[:4])
    assert found.ids[:, 0].tolist() == [40] * 4 + [10] + [30] * 3 + [20] * 2
    assert found.ids[:, 1].tolist() == [41] * 4 + [11] + [31] * 3 + [21] * 2


# What a student learns from it.


@pytest.mark.parametrize("dtype,tolerance", [("float32", 1e-5), ("float16", 1e-3)])
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 2.0, "label_smoothing": 0.1, "alpha": 0.7}, {"sentence_avg": True}],
)
def test_the_whole_distribution_teaches_what_the_live_teacher_does(
    tiny, teacher, whole, halves, dtype, tolerance, options
):
    folder = whole if dtype == "float32" else halves
    live = toys.build(tiny, criterion="word_kd", teacher_path=teacher, **options)
    stored = toys.build(tiny, criterion="word_kd", teacher_distributions=folder, **options)
    sample = training_batch(live[0], [3, 500, 17, 42, 8, 100, 101])
    found, expected = learn(stored, sample), learn(live, sample)
    assert_alike(found, expected, tolerance)
    for key in ("kd_loss", "nll_loss", "teacher_nll_loss"):
        assert found[1][key].item() == pytest.approx(expected[1][key].item(), rel=2 * tolerance), (
            key
        )


@pytest.mark.parametrize("tail", ["spread", "ignore"])
def test_eight_symbols_are_the_flat_tailed_distribution(tiny, teacher, scored, tail):
    """Against a loop by hand over the teacher's own probabilities."""
    live = toys.build(tiny, criterion="word_kd", teacher_path=teacher, alpha=1.0)
    stored = toys.build(
        tiny, criterion="word_kd", teacher_distributions=scored, alpha=1.0, tail=tail
    )
    sample = training_batch(live[0], [5, 6])
    kd = learn(stored, sample)[1]["kd_loss"].item()
    model, expected = stored[1], 0.0
    with torch.no_grad():
        p = torch.log_softmax(model(**sample["net_input"])[0], -1)
        q = torch.softmax(live[2].teacher.models[0](**sample["net_input"])[0], -1)
    for i, sentence in enumerate(sample["target"].tolist()):
        for j, token in enumerate(sentence):
            if token != live[0].target_dictionary.pad():
                top, ids = q[i, j].topk(8)
                rest = 0.0 if tail == "ignore" else (1 - top.sum()).item()
                others = (p[i, j].sum() - p[i, j][ids].sum()).item() / (len(p[i, j]) - 8)
                expected -= ((top * p[i, j][ids]).sum().item() + rest * others) / (
                    top.sum().item() + rest
                )
    assert kd == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("view", ["seq_kd", "seq_inter"])
def test_pseudo_targets_are_scored_like_gold(teacher, distilled, view, tmp_path):
    toys.score(
        distilled / view, teacher, tmp_path / "D", topk=toys.EVERYTHING, store_dtype="float32"
    )
    live = toys.build(distilled / view, criterion=view, teacher_path=teacher)
    stored = toys.build(distilled / view, criterion=view, teacher_distributions=tmp_path / "D")
    assert stored[2].objective.alpha == 0.5
    sample = training_batch(live[0], range(9))
    assert_alike(learn(stored, sample), learn(live, sample), 1e-5)


@pytest.mark.trap(25)
def test_concatenated_and_repeated_data(tiny, teacher, whole, tmp_path):
    """train and train1, each with a store of its own, the first twice in every epoch: ids count
    anew or on, keys do not.
    """
    data = tmp_path / "bin"
    shutil.copytree(tiny, data)
    for lang in ("de", "en"):
        valid = Split(tiny, "valid", LanguagePair("de", "en")).read(lang)
        with Writer(data / f"train1.de-en.{lang}", np.uint16) as writer:
            for i in range(len(valid)):
                writer.add(valid[i].numpy(), [len(valid[i])])
    with pytest.raises(Refusal, match="also holds 'train1'.*pass --upsample-primary 1"):
        toys.build(data, criterion="word_kd", teacher_distributions=whole)
    with pytest.raises(ValueError, match="negative dimensions"):  # fairseq's own, and its default
        toys.build(data, criterion="cross_entropy")[0].load_dataset("train", combine=True)
    with pytest.raises(Refusal, match="split 'train1' .*other sources and targets"):
        toys.build(data, criterion="word_kd", teacher_distributions=whole, upsample_primary=1)
    toys.score(
        data,
        teacher,
        tmp_path / "D1",
        topk=toys.EVERYTHING,
        store_dtype="float32",
        gen_subset="train1",
    )
    both = f"{whole}:{tmp_path / 'D1'}"
    live = toys.build(data, criterion="word_kd", teacher_path=teacher, upsample_primary=2)
    stored = toys.build(data, criterion="word_kd", teacher_distributions=both, upsample_primary=2)
    live[0].load_dataset("train", combine=True)
    sentences = len(live[0].dataset("train"))
    assert sentences == 2 * 509 + len(Split(tiny, "valid", LanguagePair("de", "en")).read("en"))
    sample = training_batch(live[0], [0, 508, 509, 1017, 1018, sentences - 1])
    assert_alike(learn(stored, sample), learn(live, sample), 1e-5)


@pytest.mark.trap(6, 25)
def test_a_batch_that_does_not_count_may_come_from_the_validation_split(tiny, scored):
    """fairseq gives it to a worker that has none left, and multiplies its loss by 0: it must be
    finite, and no error.
    """
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_distributions=scored)
    model.train()
    loss, _, log = criterion(model, toys.batch(task))
    loss.backward()
    assert torch.isfinite(loss) and set(log) >= {"kd_loss", "teacher_nll_loss"}
    assert all(
        torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None
    )  # times 0 it is 0, and no NaN


def test_a_sentence_of_the_validation_split_among_those_of_training_is_refused(tiny, scored):
    """Only a whole batch of validation is the one that does not count."""
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_distributions=scored)
    task.load_dataset("train")
    dataset = task.dataset("train")
    mixed = dataset.collater([dataset[0], task.dataset("valid")[0]])
    model.train()
    with pytest.raises(Refusal, match="sentences of a training batch are not among"):
        criterion(model, mixed)


def test_sentences_that_nobody_scored_are_no_guess(tiny, scored):
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_distributions=scored)
    sample = training_batch(task, [1, 2, 3])
    sample["net_input"]["src_tokens"][0, -2] += 1
    model.train()
    with pytest.raises(Refusal, match="sentences of a training batch are not among"):
        criterion(model, sample)


# What is refused, before the work begins.


def other_data(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "other")
    target = tmp_path / "other" / "train.de-en.en.bin"
    content = bytearray(target.read_bytes())
    content[0], content[2] = content[2], content[0]
    target.write_bytes(content)
    return tmp_path / "other"


def test_other_targets_are_refused(tiny, scored, tmp_path):
    with pytest.raises(Refusal, match="is not what the distributions .*other targets"):
        toys.build(other_data(tiny, tmp_path), criterion="word_kd", teacher_distributions=scored)


def test_gold_is_not_a_view_of_it(scored, distilled):
    with pytest.raises(Refusal, match="other targets"):
        toys.build(distilled / "seq_kd", criterion="seq_kd", teacher_distributions=scored)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"divergence": "js"}, "complete distributions"),
        ({"truncate_source": True}, "--truncate-source"),
        ({"teacher_path": "teacher.pt"}, "exclude each other"),
        ({"task": "translation_lev"}, "TranslationLevenshteinTask use --teacher-path"),
    ],
)
def test_options_that_stored_distributions_cannot_serve_are_refused(
    tiny, scored, options, sentence
):
    with pytest.raises(Refusal, match=sentence):
        toys.build(tiny, criterion="word_kd", teacher_distributions=scored, **options)


def test_an_option_without_what_it_is_for_is_refused(tiny, teacher, distilled):
    with pytest.raises(Refusal, match="--tail ignore is for --teacher-distributions"):
        toys.build(tiny, criterion="word_kd", teacher_path=teacher, tail="ignore")
    with pytest.raises(Refusal, match="--divergence js compares with a teacher"):
        toys.build(distilled / "seq_kd", criterion="seq_kd", divergence="js")


def test_directories_that_do_not_belong_together_are_refused(
    tiny, teacher, scored, whole, tmp_path
):
    """Separated by colons they look like an ensemble, and are none."""
    shutil.copytree(scored, tmp_path / "again")
    with pytest.raises(Refusal, match="are both of split 'train'"):
        toys.build(
            tiny, criterion="word_kd", teacher_distributions=f"{scored}:{tmp_path / 'again'}"
        )
    with pytest.raises(Refusal, match="differ in their number of symbols"):
        toys.build(tiny, criterion="word_kd", teacher_distributions=f"{scored}:{whole}")
    toys.score(tiny, teacher, tmp_path / "valid", topk=8, gen_subset="valid")
    with pytest.raises(Refusal, match="valid is of no split that the student is trained on"):
        toys.build(
            tiny, criterion="word_kd", teacher_distributions=f"{scored}:{tmp_path / 'valid'}"
        )
    text = (tmp_path / "valid" / "manifest.json").read_text()
    digest = manifests.read(scored)["settings"]["teacher"]["sha256"][0]
    (tmp_path / "valid" / "manifest.json").write_text(text.replace(digest, "0" * 64))
    with pytest.raises(Refusal, match="differ in their teacher"):
        toys.build(
            tiny, criterion="word_kd", teacher_distributions=f"{scored}:{tmp_path / 'valid'}"
        )


def another_store(folder):
    """As a copy that was interrupted leaves it: the manifest of one, the numbers of another."""
    store = DistributionStore(folder)
    arrays = {key: np.array(array) for key, array in zip(PER_TOKEN, store.per_token)}
    arrays = {**arrays, "keys": np.array(store.keys), "lengths": np.array(store.lengths)}
    arrays["ids"], arrays["probabilities"] = arrays["ids"][:, :7], arrays["probabilities"][:, :7]
    DistributionBlock.of(arrays).write(folder / "part")
    DistributionStore.merge([folder / "part"], folder / DistributionStore.NAME)


def index_out_of_range(folder):
    path = folder / DistributionStore.NAME
    store = DistributionStore(folder)
    content, first = bytearray(path.read_bytes()), np.array(store.first)
    at = bytes(content).index(first.tobytes())
    first[3] = -1
    content[at : at + first.nbytes] = first.tobytes()
    path.write_bytes(content)


def unfinished(folder):
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"complete": true', '"complete": false')
    )


def uncounted(folder, key=None):
    content = json.loads((folder / "manifest.json").read_text())
    content["counts"].pop(key) if key else content.pop("counts")
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage,sentence",
    [
        (unfinished, "is not finished"),
        (uncounted, "is not finished"),
        (
            lambda folder: uncounted(folder, "tokens"),
            "missing required field `tokens` - at `.\\.counts`",
        ),
        (another_store, "is not the file that its manifest describes"),
        (index_out_of_range, "do not fit together"),
        (lambda folder: (folder / "manifest.json").unlink(), "holds no distributions"),
        (
            lambda folder: (folder / DistributionStore.NAME).unlink(),
            "there is no .*distributions.safetensors",
        ),
        (lambda folder: (folder / DistributionStore.NAME).write_bytes(b"short"), "is damaged"),
        (
            lambda folder: (folder / DistributionStore.NAME).write_bytes(
                (folder / DistributionStore.NAME).read_bytes()[:-100]
            ),
            "is damaged",
        ),
    ],
)
def test_what_is_no_finished_store_is_refused(tiny, scored, tmp_path, damage, sentence):
    shutil.copytree(scored, tmp_path / "D")
    damage(tmp_path / "D")
    with pytest.raises(Refusal, match=sentence):
        toys.build(tiny, criterion="word_kd", teacher_distributions=tmp_path / "D")


def test_a_decode_is_no_store_of_distributions(tiny, distilled):
    with pytest.raises(Refusal, match="holds no distributions"):
        toys.build(tiny, criterion="word_kd", teacher_distributions=distilled)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"topk": 0}, "--topk is 0"),
        ({"engine": "ctranslate2"}, "--engine is for a search"),
        ({"select": "mbr"}, "--select is for a search"),
        ({"filter_empty": True}, "--filter-empty is for a search"),
        ({"prefix_size": 1}, "--prefix-size is for a search"),
        ({"retain_dropout": True}, "--retain-dropout is for a search"),
        ({"beam": 7}, "--beam is for a search"),
    ],
)
def test_what_scoring_has_no_use_for_is_refused(tiny, teacher, tmp_path, options, sentence):
    assert sentence in refusal(toys.score(tiny, teacher, tmp_path / "D", check=False, **options))
    assert not (tmp_path / "D").exists()


def test_a_teacher_whose_distributions_are_no_numbers_stops(tiny, teacher, tmp_path):
    """The first sentences, which are looked at before the work, are fine: a source symbol that only
    later ones have is not.
    """
    from fairseq_seqkd import compat

    data, gold = tmp_path / "bin", Split(tiny, "train", LanguagePair("de", "en"))
    shutil.copytree(tiny, data)
    rows = {lang: gold.read(lang) for lang in ("de", "en")}
    sources = [rows["de"][i].tolist() for i in range(len(rows["de"]))]
    symbols = sorted({token for source in sources for token in source})
    symbol = min(symbols, key=lambda token: sum(token in source for source in sources))
    order = sorted(range(len(sources)), key=lambda i: symbol in sources[i])
    assert not any(symbol in sources[i] for i in order[:64])
    for lang in rows:
        with Writer(data / f"train.de-en.{lang}", np.uint16) as writer:
            for i in order:
                writer.add(rows[lang][i].numpy(), [len(rows[lang][i])])
    state = compat.read_checkpoint(teacher)
    weight = state["model"]["encoder.embed_tokens.weight"].clone()
    weight[symbol] = float("nan")
    state["model"]["encoder.embed_tokens.weight"] = weight
    torch.save(state, tmp_path / "nan.pt")
    done = toys.score(data, tmp_path / "nan.pt", tmp_path / "D", topk=8, check=False)
    assert "are NaN" in refusal(done)
    assert manifests.read(tmp_path / "D")["complete"] is False


def test_a_search_has_no_use_for_topk(tiny, teacher, tmp_path):
    done = toys.decode(tiny, teacher, tmp_path / "D", check=False, topk=8)
    assert "--topk is for --score-reference" in refusal(done)


def test_a_directory_continues_with_the_same_settings_only(
    tiny, teacher, scored, distilled, tmp_path
):
    shutil.copytree(scored, tmp_path / "D")
    done = toys.score(tiny, teacher, tmp_path / "D", check=False, topk=4)
    assert "scoring.topk was 8, now 4" in refusal(done)
    done = toys.score(tiny, teacher, tmp_path / "D", check=False, left_pad_target=True)
    assert "scoring.left_pad_target was false, now true" in refusal(done)
    done = toys.score(tiny, teacher, distilled, check=False, topk=4)
    assert "holds something else (distilled)" in refusal(done)


@pytest.mark.trap(9)
def test_sentences_that_the_teacher_cannot_read_are_listed(tiny, teacher, tmp_path):
    """And whoever would train on them is told the limits that leave them out."""
    done = toys.score(
        tiny, teacher, tmp_path / "D", topk=2, max_source_positions=6, max_target_positions=60
    )
    content = manifests.read(tmp_path / "D")
    rows = Split(tiny, "train", LanguagePair("de", "en")).read("de")
    sizes = rows.sizes  # unmapped with the rows
    expected = np.flatnonzero(sizes > 6).tolist()
    assert 0 < len(expected) < len(sizes)
    assert content["listed"]["too_long"] == expected and content["counts"]["too_long"] == len(
        expected
    )
    assert len(DistributionStore(tmp_path / "D")) == len(sizes) - len(expected)
    assert "more tokens than the teacher has positions" in done.stdout
    with pytest.raises(Refusal, match="--max-source-positions 6"):
        toys.build(tiny, criterion="word_kd", teacher_distributions=tmp_path / "D")
    toys.build(
        tiny, criterion="word_kd", teacher_distributions=tmp_path / "D", max_source_positions=6
    )
