"""Measuring a checkpoint, against numbers worked out another way: sentence by sentence, without
batches or a search engine.
"""

import argparse
import json
import math
import shutil

import folders
import manifests
import msgspec
import numpy as np
import pytest
import sacrebleu
import torch
import toys

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus import detokenise as text
from fairseq_seqkd.corpus import mmap_format
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import cache, provenance, records, systems
from fairseq_seqkd.evaluation import measure as measuring
from fairseq_seqkd.evaluation.records import Evaluation

CPU = torch.device("cpu")
WORDS = [f"w{i}" for i in range(12)]
SENTENCES = 13  # no multiple of 8: fairseq's own batching would measure 8 of them
LIMIT = 9  # shorter than the longest sentence, so that some outputs are cut


def make_databin(folder, split="test", seed=0, words=WORDS, with_target=True):
    """A data-bin de-en whose target is the source in reverse, some words of it unknown.

    Returns its folder.
    """
    from fairseq.data import Dictionary

    folder.mkdir(exist_ok=True)
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    random = np.random.default_rng(seed)
    sentences = [
        random.integers(dictionary.nspecial, len(dictionary), 1 + i) for i in range(SENTENCES)
    ]
    sentences = [sentences[i] for i in random.permutation(SENTENCES)]
    for side, lang in enumerate(("de", "en")[: 1 + with_target]):
        dictionary.save(str(folder / f"dict.{lang}.txt"))
        with mmap_format.Writer(folder / f"{split}.de-en.{lang}", np.uint16) as writer:
            for i, sentence in enumerate(sentences):
                tokens = sentence[::-1].copy() if side else sentence.copy()
                if i % 4 == 0:
                    tokens[0] = dictionary.unk()
                writer.add([*tokens, dictionary.eos()], [len(tokens) + 1])
    return folder


def save_checkpoint(path, cfg, model):
    """A checkpoint in the format of fairseq-train."""
    from omegaconf import OmegaConf

    history = {
        "criterion_name": "CrossEntropyCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {},
    }
    torch.save(
        {
            "args": None,
            "cfg": OmegaConf.to_container(cfg, resolve=True),
            "model": model.state_dict(),
            "optimizer_history": [{**history, "num_updates": 3}],
            "extra_state": {"epoch": 1, "train_iterator": {}},
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """{"bin", "checkpoint", "task", "model", "dataset"}: a small model that has learnt a little of
    its test set.
    """
    folder = tmp_path_factory.mktemp("evaluation")
    make_databin(folder / "bin", "valid", seed=1)
    make_databin(folder / "bin")
    options = {
        "criterion": "cross_entropy",
        "share-decoder-input-output-embed": True,
        "dropout": 0.0,
    }
    cfg = toys.configure(folder / "bin", options)
    task, model, criterion = toys.build(folder / "bin", options)
    task.load_dataset("test")
    dataset = task.dataset("test")
    optimizer, sample = (
        torch.optim.Adam(model.parameters(), 0.01),
        toys.batch(task, SENTENCES, "test"),
    )
    for _ in range(40):
        loss, size, _ = criterion(model, sample)
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    path = save_checkpoint(folder / "checkpoint_last.pt", cfg, model)
    model.eval()
    return {
        "bin": folder / "bin",
        "checkpoint": path,
        "cfg": cfg,
        "task": task,
        "model": model,
        "dataset": dataset,
        "criterion": criterion,
    }


def prepare(world, data=None, path=None, **options):
    checkpoint = Checkpoint(path or world["checkpoint"])
    return systems.prepare(checkpoint, data or world["bin"], systems.Options(**options))


@pytest.fixture(scope="module")
def measured(world):
    """The measurement and the outputs of the small model."""
    return measuring.measure(prepare(world, max_len_a=0, max_len_b=LIMIT), CPU)


@pytest.fixture(scope="module")
def measurement(measured):
    return measured.measurement


@torch.no_grad()
def greedy_by_hand(model, dataset, limit):
    """[(tokens without EOS, probability with EOS)], a full forward pass for every token of every
    sentence.
    """
    dictionary, found = dataset.tgt_dict, []
    for i in range(len(dataset)):
        source = dataset.src[i].unsqueeze(0)
        prefix, log_prob = [dictionary.eos()], 0.0
        while True:
            net_output = model(source, torch.tensor([source.size(1)]), torch.tensor([prefix]))
            lprobs = model.get_normalized_probs(net_output, log_probs=True)[0, -1].double()
            allowed = lprobs.clone()
            allowed[dictionary.pad()] = -math.inf
            if len(prefix) == 1:
                allowed[dictionary.eos()] = -math.inf  # fairseq's --min-len 1
            best = dictionary.eos() if len(prefix) > limit else int(allowed.argmax())
            log_prob += float(lprobs[best])
            if best == dictionary.eos():
                break
            prefix.append(best)
        found.append((prefix[1:], math.exp(log_prob)))
    return found


def without_speeds(measured):
    speeds = {f"sentences_per_second_{name}": None for name in records.SEARCHES}
    return msgspec.structs.replace(measured.measurement, **speeds), measured.outputs


def text_by_hand(tokens, dictionary, unknown):
    return " ".join(
        unknown if i == dictionary.unk() else dictionary[i]
        for i in map(int, tokens)
        if i != dictionary.eos()
    )


def references(dataset):
    return [
        text_by_hand(dataset.tgt[i], dataset.tgt_dict, "UNKNOWN-THERE") for i in range(len(dataset))
    ]


def test_greedy_numbers_are_those_of_a_search_by_hand(world, measurement):
    dataset = world["dataset"]
    outputs = greedy_by_hand(world["model"], dataset, LIMIT)
    texts = [text_by_hand(tokens, dataset.tgt_dict, "UNKNOWN-HERE") for tokens, _ in outputs]
    score = sacrebleu.corpus_bleu(texts, [references(dataset)], force=True)
    assert 0 < score.score < 100
    assert measurement.bleu_greedy == pytest.approx(score.score, abs=1e-9)
    assert measurement.length_ratio_greedy == pytest.approx(score.sys_len / score.ref_len)
    assert measurement.mode_probability == pytest.approx(
        np.mean([probability for _, probability in outputs]), rel=1e-4
    )
    assert measurement.hit_limit_greedy == sum(len(tokens) == LIMIT for tokens, _ in outputs) > 0


def test_beam_numbers_are_those_of_fairseqs_search_one_sentence_at_a_time(world, measurement):
    from fairseq.dataclass.configs import GenerationConfig

    task, model, dataset = world["task"], world["model"], world["dataset"]
    generator = task.build_generator(
        [model], GenerationConfig(beam=5, max_len_a=0, max_len_b=LIMIT)
    )
    tokens = [
        task.inference_step(generator, [model], dataset.collater([dataset[i]]))[0][0][
            "tokens"
        ].tolist()
        for i in range(len(dataset))
    ]
    texts = [text_by_hand(line, dataset.tgt_dict, "UNKNOWN-HERE") for line in tokens]
    score = sacrebleu.corpus_bleu(texts, [references(dataset)], force=True)
    greedy = [line for line, _ in greedy_by_hand(model, dataset, LIMIT)]
    assert measurement.bleu_beam5 == pytest.approx(score.score, abs=1e-9)
    assert measurement.length_ratio_beam5 == pytest.approx(score.sys_len / score.ref_len)
    assert measurement.hit_limit_beam5 == sum(len(line) - 1 == LIMIT for line in tokens)
    assert measurement.greedy_equals_beam5 == np.mean(
        [line[:-1] == other for line, other in zip(tokens, greedy)]
    )


def test_perplexity_is_that_of_fairseqs_criterion_over_every_sentence(world, measurement):
    dataset, nll, tokens = world["dataset"], 0.0, 0
    for i in range(len(dataset)):
        with torch.no_grad():
            loss, size, _ = world["criterion"](world["model"], dataset.collater([dataset[i]]))
        nll, tokens = nll + loss.item(), tokens + size
    assert tokens == sum(range(2, SENTENCES + 2))  # 1 to 13 words, and EOS
    assert measurement.ppl == pytest.approx(math.exp(nll / tokens), rel=1e-5)


@pytest.mark.trap(1)
def test_every_sentence_counts_and_tied_weights_count_once(world, measurement):
    tensors = {parameter.data_ptr(): parameter.numel() for parameter in world["model"].parameters()}
    assert measurement.sentences == SENTENCES
    assert measurement.params == sum(tensors.values())
    names = world["model"].state_dict()
    assert "decoder.output_projection.weight" in names and measurement.params < sum(
        t.numel() for t in names.values()
    )


def test_signatures_and_speeds_are_there(measurement):
    assert measurement.sacrebleu_signature.startswith(
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    )
    assert (
        measurement.sentences_per_second_greedy > 0 and measurement.sentences_per_second_beam5 > 0
    )
    assert measurement.distillation_signature is None
    content = json.loads(records.to_json(Evaluation([measurement])))
    assert records.decode(content) == Evaluation([measurement])


def test_chrf_is_sacrebleus_of_the_outputs_that_are_kept(world, measured, measurement):
    dataset = world["dataset"]
    for name in ("greedy", "beam5"):
        texts = [
            line.replace(text.UNKNOWN_IN_OUTPUT, "UNKNOWN-HERE") for line in measured.outputs[name]
        ]
        assert (
            getattr(measurement, f"bleu_{name}")
            == sacrebleu.corpus_bleu(texts, [references(dataset)], force=True).score
        )
        gold = [
            line.replace("UNKNOWN-THERE", text.UNKNOWN_IN_REFERENCE) for line in references(dataset)
        ]
        assert (
            getattr(measurement, f"chrf_{name}")
            == sacrebleu.corpus_chrf(measured.outputs[name], [gold]).score
            > 0
        )
    assert measurement.chrf_signature.startswith(
        "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:"
    )
    same = [a == b for a, b in zip(measured.outputs["greedy"], measured.outputs["beam5"])]
    assert measurement.greedy_equals_beam5 == np.mean(same)


def test_measuring_again_gives_the_same_numbers_and_leaves_the_threads_alone(world, measured):
    before = torch.get_num_threads()
    again = measuring.measure(prepare(world, max_len_a=0, max_len_b=LIMIT), CPU)
    assert torch.get_num_threads() == before
    assert without_speeds(again) == without_speeds(measured)


def test_the_length_limit_is_obeyed(world, measurement):
    short, _ = measuring.measure(prepare(world, max_len_a=0, max_len_b=2), CPU)
    assert short.hit_limit_greedy >= SENTENCES - 2 > measurement.hit_limit_greedy
    assert short.length_ratio_greedy < measurement.length_ratio_greedy


def test_the_columns_are_those_of_the_paper(world):
    assert measuring.beams(prepare(world).settings) == (("greedy", 1), ("beam5", 5))


def test_small_batches_hold_every_sentence_once(world):
    batches = measuring.plan_batches(world["dataset"].src_sizes, 20)
    assert len(batches) > 3
    assert sorted(int(i) for batch in batches for i in batch) == list(range(SENTENCES))


def test_unknown_words_match_nothing(world):
    dictionary = world["dataset"].tgt_dict
    output = text.Detokeniser(dictionary, unknown=text.UNKNOWN_IN_OUTPUT)
    reference = text.Detokeniser(dictionary, unknown=text.UNKNOWN_IN_REFERENCE)
    tokens = [
        dictionary.index("w1"),
        dictionary.unk(),
        dictionary.index("w2"),
        dictionary.index("w3"),
        dictionary.eos(),
    ]
    for tokenizer in ("13a", "char", "zh", "none"):
        score, _ = measuring.bleu([output(tokens)], [reference(tokens)], tokenizer)
        assert score.counts[0] == score.totals[0] - 1 and score.sys_len == score.ref_len


def test_subwords_are_joined_as_the_dictionary_shows_or_the_user_says(tmp_path, world):
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    tokens = [dictionary.add_symbol(symbol) for symbol in ("▁a", "▁hou", "se")]
    assert (
        text.resolve_post_process(None, dictionary) == "sentencepiece"
        and text.resolve_post_process("none", dictionary) is None
    )
    assert text.resolve_post_process("subword_nmt", dictionary) == "subword_nmt"
    assert text.Detokeniser(dictionary, "sentencepiece")(tokens) == "a house"


# What is refused, and that it is refused before anything is measured.


def test_a_missing_split_is_refused(world):
    with pytest.raises(Refusal, match="no split 'dev' for de-en.*test, valid"):
        prepare(world, split="dev")


def test_a_missing_data_directory_is_refused(world, tmp_path):
    with pytest.raises(Refusal, match="does not exist"):
        prepare(world, tmp_path / "nowhere")
    with pytest.raises(Refusal, match="no binarised text"):
        prepare(world, tmp_path)


def test_a_split_without_targets_is_refused(world, tmp_path):
    data = make_databin(tmp_path / "bin")
    for ending in ("bin", "idx"):
        (data / f"test.de-en.en.{ending}").unlink()
    with pytest.raises(Refusal, match="no en side"):
        prepare(world, data)


def test_other_dictionaries_are_refused(world, tmp_path):
    with pytest.raises(Refusal, match="16 source symbols.*has 17"):
        prepare(world, make_databin(tmp_path / "longer", words=[*WORDS, "more"]))
    with pytest.raises(Refusal, match="symbol 4 is 'w0' there and 'w1' here"):
        prepare(world, make_databin(tmp_path / "swapped", words=["w1", "w0", *WORDS[2:]]))


def test_another_language_is_refused(world, tmp_path):
    data = make_databin(tmp_path / "bin")
    for file in list(data.iterdir()):
        file.rename(data / file.name.replace("en", "fr"))
    with pytest.raises(Refusal, match="translates de-en, but .* is de-fr"):
        prepare(world, data)


@pytest.mark.parametrize("a, b", [(-1, 10), (1, -1), (0, 0), (0.5, 0), (math.nan, 5)])
def test_a_limit_without_room_is_refused(world, a, b):
    with pytest.raises(Refusal, match="no room"):
        prepare(world, max_len_a=a, max_len_b=b)


def test_files_that_are_no_checkpoint_are_refused(world, tmp_path):
    for content, sentence in ((b"rubbish", "damaged or no checkpoint"), (None, "does not exist")):
        if content:
            (tmp_path / "file.pt").write_bytes(content)
        else:
            (tmp_path / "file.pt").unlink()
        with pytest.raises(Refusal, match=sentence):
            prepare(world, path=tmp_path / "file.pt")
    torch.save({"weights": 1}, tmp_path / "file.pt")
    with pytest.raises(Refusal, match="not a fairseq checkpoint"):
        prepare(world, path=tmp_path / "file.pt")


def changed(world, path, change):
    return folders.changed(world["checkpoint"], path, change)


def test_sentences_that_the_model_cannot_read_are_refused(world, tmp_path, monkeypatch):
    def shorten(state):
        state["cfg"]["model"].max_source_positions = state["cfg"]["task"][
            "max_source_positions"
        ] = 10

    path = changed(world, tmp_path / "short.pt", shorten)
    with pytest.raises(
        Refusal, match="4 sentences .* source tokens .*10"
    ):  # those of 10 to 13 words, and EOS
        prepare(world, path=path)  # before anything is measured
    monkeypatch.setattr(systems.System, "check_lengths", lambda *args: None)
    system = prepare(world, path=path)
    monkeypatch.undo()
    with pytest.raises(
        Refusal, match="4 sentences .* source tokens .*10"
    ):  # where its settings do not say it
        measuring.measure(system, CPU)


def test_weights_that_are_no_numbers_are_refused(world, tmp_path):
    def ruin(state):
        state["model"]["decoder.embed_tokens.weight"].fill_(math.nan)

    system = prepare(world, path=changed(world, tmp_path / "nan.pt", ruin))
    with pytest.raises(Refusal, match="is not finite"):
        measuring.measure(system, CPU)


def test_a_checkpoint_of_another_architecture_than_it_says_is_refused(world, tmp_path):
    def grow(state):
        state["cfg"]["model"].decoder_ffn_embed_dim = 128

    system = prepare(world, path=changed(world, tmp_path / "other.pt", grow))
    with pytest.raises(Refusal, match="cannot be loaded"):
        measuring.measure(system, CPU)


def test_the_criterion_of_a_student_is_not_needed(world, tmp_path):
    def teach(state):
        state["cfg"]["criterion"] = {
            "_name": "seq_kd",
            "teacher_path": "/gone/teacher.pt",
            "alpha": 0.5,
            "temperature": 1.0,
        }

    system = prepare(
        world, path=changed(world, tmp_path / "student.pt", teach), max_len_a=0, max_len_b=LIMIT
    )
    measurement, _ = measuring.measure(system, CPU)
    assert measurement.distillation_signature.startswith("criterion:seq_kd|word_teacher:unknown")


# The distillation provenance of a student.


def config(data="/gone", finetune_from=None, **criterion):
    return {
        "cfg": {
            "criterion": criterion,
            "task": {"data": str(data)},
            "checkpoint": {"finetune_from_model": finetune_from},
        }
    }


@pytest.fixture
def signature(tmp_path):
    """The distillation signature of a checkpoint with some settings."""

    def of(state):
        torch.save({"model": {}, **state}, tmp_path / "student.pt")
        return provenance.distillation_signature(Checkpoint(tmp_path / "student.pt"))

    return of


@pytest.fixture
def view(tmp_path):
    folder = tmp_path / "seq_kd"
    folder.mkdir()
    facts = {"split": "train", "source_lang": "de", "target_lang": "en", "rows": 1, "left_out": 0}
    manifests.write(
        folder, {"kind": "view", "view": "seq_kd", "signature": "teacher:abc|beam:5", **facts}
    )
    return folder


def test_training_on_gold_has_no_distillation_signature(signature, tmp_path):
    assert (
        signature(config(tmp_path, _name="label_smoothed_cross_entropy", label_smoothing=0.1))
        is None
    )
    assert signature(config(_name="cross_entropy")) is None
    assert signature({"cfg": None, "args": None}) is None


def test_the_signature_names_view_and_teacher(signature, view, tmp_path):
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"teacher")
    short = sha256(teacher)[:12]
    plain = config(
        view, _name="seq_kd", label_smoothing=0.0, teacher_path=None, alpha=None, temperature=1.0
    )
    assert signature(plain) == "criterion:seq_kd|view:seq_kd|teacher:abc|beam:5"
    smoothed = config(view, _name="label_smoothed_cross_entropy", label_smoothing=0.1)
    assert signature(smoothed) == (
        "criterion:label_smoothed_cross_entropy|label_smoothing:0.1|view:seq_kd|teacher:abc|beam:5"
    )
    both = config(
        view, _name="seq_kd", teacher_path=f"{teacher}:/gone.pt", alpha=0.3, temperature=2.0
    )
    assert signature(both) == (
        f"criterion:seq_kd|word_teacher:{short}+unknown|alpha:0.3|temperature:2.0|view:seq_kd|teacher:abc|beam:5"
    )
    old = {
        "args": argparse.Namespace(task="translation", criterion="seq_kd", data=str(view)),
        "cfg": None,
    }
    assert signature(old) == "criterion:seq_kd|view:seq_kd|teacher:abc|beam:5"
    word = config(tmp_path, _name="word_kd", teacher_path=str(teacher), alpha=None, temperature=1.0)
    assert signature(word) == f"criterion:word_kd|word_teacher:{short}|alpha:0.5|temperature:1.0"
    stored = {
        "teacher": {"sha256": ["3f2a5c0b9d11" + "0" * 52]},
        "engine": manifests.ENGINE,
        "scoring": {"topk": 8, "vocabulary": 9, "too_long": 0, "dtype": "float16"},
    }
    stored["scoring"].update(left_pad_source=True, left_pad_target=False)
    stored["scoring"]["positions"], stored["plan"] = (
        [9, 9],
        {"part_size": 1, "max_tokens": 9, "max_sentences": None},
    )
    stored["data"] = manifests.data_settings(1)
    facts = {
        "kind": "distributions",
        "complete": True,
        "signature": "x",
        "sentences": 1,
        "settings": stored,
    }
    (tmp_path / "stored").mkdir()
    manifests.write(tmp_path / "stored", facts)
    by_stored = {
        "_name": "word_kd",
        "teacher_distributions": f"{tmp_path / 'stored'}:/gone",
        "temperature": 1.0,
        "tail": "spread",
    }
    assert signature(config(tmp_path, **by_stored)) == (
        "criterion:word_kd|word_teacher:3f2a5c0b9d11/top8+unknown|alpha:0.5|temperature:1.0"
    )
    otherwise = signature(config(tmp_path, **{**by_stored, "tail": "ignore", "divergence": "js"}))
    assert "divergence:js" in otherwise and "tail:ignore" in otherwise
    unused = config(
        tmp_path, _name="word_kd", teacher_path=str(teacher), alpha=0.0, temperature=1.0
    )
    assert signature(unused) is None
    tuned = config(view, str(teacher), _name="seq_inter")
    assert signature(tuned) == f"criterion:seq_inter|init:{short}|view:seq_kd|teacher:abc|beam:5"


def test_data_that_are_gone_are_unknown(signature, tmp_path):
    assert (
        signature(config(_name="seq_inter")) == "criterion:seq_inter|view:seq_inter|teacher:unknown"
    )
    (tmp_path / "manifest.json").write_text("{")
    assert (
        signature(config(tmp_path, _name="seq_kd"))
        == "criterion:seq_kd|view:seq_kd|teacher:unknown"
    )


# The cache.


def test_a_checkpoint_that_changes_meanwhile_is_not_kept_under_its_old_name(
    world, tmp_path, monkeypatch
):
    path = shutil.copy(world["checkpoint"], tmp_path / "growing.pt")
    system, kept = prepare(world, path=path), cache.Cache(tmp_path / "cache")

    def further(system, device, progress):
        changed(world, path, lambda state: state.update(extra_state={"epoch": 9}))
        return measuring.Measured(system.describe(device), {})

    monkeypatch.setattr(measuring, "measure", further)
    with pytest.raises(Refusal, match="growing.pt was written anew while it was measured"):
        measuring.measure_or_reuse(system, CPU, kept)
    assert not [*(tmp_path / "cache").iterdir()]


def test_a_cached_measurement_is_the_measured_one_and_a_damaged_one_is_made_again(
    world, measured, tmp_path, monkeypatch
):
    calls = []
    monkeypatch.setattr(measuring, "measure", lambda *more: calls.append(1) or measured)
    system, kept = prepare(world, max_len_a=0, max_len_b=LIMIT), cache.Cache(tmp_path)
    first = measuring.measure_or_reuse(system, CPU, kept)
    assert measuring.measure_or_reuse(system, CPU, kept) == first and len(calls) == 1
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    assert "name" not in content and "settings" not in content  # it may have another name by then
    for damage in ({"params": -1}, {"outputs": None}):
        file.write_text(json.dumps({**content, **damage}))
        assert measuring.measure_or_reuse(system, CPU, kept) == first
    assert len(calls) == 3


def test_how_a_checkpoint_read_its_training_data_says_nothing_about_others(world, tmp_path):
    """Cut or padded sources, buckets and text data: a split is measured as it lies there."""

    def settings_of_its_training(state):
        told = {
            "truncate_source": True,
            "max_source_positions": 20,
            "required_seq_len_multiple": 8,
            "num_batch_buckets": 4,
        }
        state["cfg"]["task"].update(told, dataset_impl="raw", load_alignments=True)

    facts = [
        measuring.measure(prepare(world, path=path), CPU)
        for path in (
            world["checkpoint"],
            changed(world, tmp_path / "odd.pt", settings_of_its_training),
        )
    ]
    one, other = map(without_speeds, facts)
    same = {"name": "A", "checkpoint": None, "checkpoint_sha256": None}
    assert msgspec.structs.replace(one[0], **same) == msgspec.structs.replace(other[0], **same)
    assert one[1] == other[1]


def test_a_machine_has_more_of_a_name_than_what_it_is_sold_as(monkeypatch):
    def machine(*lines):
        monkeypatch.setattr(systems.Path, "read_text", lambda *args, **more: "\n".join(lines))
        return systems.machine(CPU)

    first, second = (
        [f"cpu family\t: {n}", "model\t\t: 1", "model name\t: AMD EPYC", "flags\t\t: a:b"]
        for n in (25, 26)
    )
    assert (
        machine(*first, "", *second)
        == "AMD EPYC (family 25, model 1), one thread"
        != machine(*second)
    )
    assert machine("Processor : rev 4").endswith(", one thread")
