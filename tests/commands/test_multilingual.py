"""Multilingual teachers: against fairseq's own task for them, and what a student's data must not
hold.
"""

import argparse
import re
from pathlib import Path
from types import SimpleNamespace

import folders
import manifests
import numpy as np
import pytest
import sacrebleu
import torch
import toys
from commands import PLUGIN, refusal, run_here, start_process
from fairseq import checkpoint_utils, tasks
from fairseq.data import Dictionary, data_utils
from fairseq.tasks.translation import load_langpair_dataset

from fairseq_seqkd import compat
from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair
from fairseq_seqkd.corpus.detokenise import Detokeniser
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.decoding.multilingual import language_tokens, teacher_languages
from fairseq_seqkd.errors import Refusal

TASK = "translation_multi_simple_epoch"
PAIRS = {"task": TASK, "langs": "de,en,fr", "lang-pairs": "de-en,en-de"}
TOKENS = {**PAIRS, "encoder-langtok": "src", "decoder-langtok": True}
REPLACING = {
    **PAIRS,
    "encoder-langtok": "tgt",
    "decoder-langtok": True,
    "lang-tok-style": "mbart",
    "lang-tok-replacing-bos-eos": True,
}
VALID = 53  # sentences
SYMBOLS = 32  # of the data's dictionary


def tokens_of(paths, *more):
    return language_tokens([Checkpoint(path, "teacher") for path in paths], *more)


@pytest.fixture(scope="module")
def both(tiny, shared):
    """The toy corpus with one dictionary for both languages."""
    text = tiny.parent / "text"

    def make(folder):
        toys.binarise(text, folder / "bin", joined_dictionary=True)

    return shared("joined-dictionary", make) / "bin"


def train(data, folder, settings, epochs):
    more = {
        "criterion": "cross_entropy",
        "max-epoch": epochs,
        "dropout": 0.1,
        "disable-validation": True,
    }
    toys.train(data, folder, settings, more)


@pytest.fixture(scope="module")
def multi(both, shared):
    """A teacher that translates in both directions, and has a token for a language that it never
    saw.
    """
    folder = shared("multilingual", lambda folder: train(both, folder, TOKENS, 20))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def replacing(both, shared):
    folder = shared("multilingual-replacing", lambda folder: train(both, folder, REPLACING, 8))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def decoded(both, multi, shared):
    def make(folder):
        toys.decode(both, multi, folder / "distilled", **DECODE)

    return shared("multilingual-decode", make) / "distilled"


DECODE = {"gen_subset": "valid", "part_size": 16, "source_lang": "de", "target_lang": "en"}


def side(folder, lang, split="valid"):
    dataset = data_utils.load_indexed_dataset(str(folder / f"{split}.de-en.{lang}"), None, "mmap")
    return [dataset[i].tolist() for i in range(len(dataset))]


def stock(data, teacher, settings, pair):
    """{sentence id: best hypothesis} as the stock task prints it."""
    options = {
        "user-dir": PLUGIN,
        "path": teacher,
        "source-lang": pair[0],
        "target-lang": pair[1],
        "gen-subset": "valid",
        "beam": 4,
        "max-len-b": 30,
        "cpu": True,
        "required-batch-size-multiple": 1,
    }
    printed = run_here("fairseq-generate", data, *toys.flags(options, settings)).stdout
    return {int(i): text for i, text in re.findall(r"^H-(\d+)\t\S+\t(.*)$", printed, re.MULTILINE)}


def modes(store, dictionary):
    return {i: " ".join(dictionary[t] for t in store[i][0].tokens) for i in range(len(store))}


# Against the stock task.


def test_the_mode_is_what_the_stock_task_prints(decoded, both, multi):
    theirs = stock(both, multi, TOKENS, ("de", "en"))
    assert len(theirs) == VALID
    assert modes(NBestStore(decoded), Dictionary.load(str(both / "dict.en.txt"))) == theirs


@pytest.mark.parametrize("case", ["the other direction", "tokens in place of eos"])
def test_other_directions_and_other_tokens_too(both, multi, replacing, tmp_path, case):
    settings, teacher, pair = (
        (TOKENS, multi, ("en", "de"))
        if "direction" in case
        else (REPLACING, replacing, ("de", "en"))
    )
    theirs = stock(both, teacher, settings, pair)
    more = {**DECODE, "source_lang": pair[0], "target_lang": pair[1]}
    toys.decode(both, teacher, tmp_path / "out", **more)
    assert len(theirs) == VALID
    assert modes(NBestStore(tmp_path / "out"), Dictionary.load(str(both / "dict.en.txt"))) == theirs


def test_scores_are_those_of_the_search_with_the_forced_token(decoded, both, multi):
    """Forced decoding by hand, the tokens written out."""
    overrides = {"data": str(both), "source_lang": "de", "target_lang": "en"}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(multi)], arg_overrides=overrides
    )
    model.eval()
    dictionary, store, sources = task.target_dictionary, NBestStore(decoded), side(both, "de")
    de, en, eos = dictionary.index("__de__"), dictionary.index("__en__"), dictionary.eos()
    for i in (0, 20, 52):
        source = torch.tensor([[de, *sources[i]]])
        for h in store[i]:
            tokens = [en, *h.tokens.tolist(), eos]
            with torch.no_grad():
                out = model(
                    source, torch.tensor([source.size(1)]), torch.tensor([[eos, *tokens[:-1]]])
                )
            lprobs = model.get_normalized_probs(out, log_probs=True)[0]
            assert h.log_prob == pytest.approx(
                sum(lprobs[j, t].item() for j, t in enumerate(tokens)), abs=1e-3
            )
            assert h.score == pytest.approx(h.log_prob / (len(h.tokens) + 2), abs=1e-5)


def task_settings(data, **more):
    """A stock task's settings as the command line gives them, for decoding de-en."""
    parser = argparse.ArgumentParser()
    tasks.TASK_REGISTRY[TASK].add_args(parser)
    flags = toys.flags(
        {**PAIRS, "task": None, **{key.replace("_", "-"): value for key, value in more.items()}}
    )
    args = parser.parse_args([str(data), *flags])
    args.__dict__.update(_name=TASK, task=TASK, seed=1, dataset_impl=None, train_subset="train")
    return args


def saved(path, **changes):
    """A checkpoint without weights, which says how a teacher was trained."""
    torch.save({"model": {}, "cfg": {"task": argparse.Namespace(**changes)}, "args": None}, path)
    return path


def files(data):
    return [str(data / f"dict.{lang}.txt") for lang in ("de", "en")]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"encoder_langtok": "src"},
        {"decoder_langtok": True},
        {"encoder_langtok": "src", "decoder_langtok": True},
        {"encoder_langtok": "tgt", "decoder_langtok": True, "lang_tok_style": "mbart"},
        {"encoder_langtok": "src", "decoder_langtok": True, "langtoks_specs": "main,mono_dae"},
        {"encoder_langtok": "src", "decoder_langtok": True, "enable_lang_ids": True},
        {"encoder_langtok": "tgt", "lang_tok_replacing_bos_eos": True},
        {"decoder_langtok": True, "lang_tok_replacing_bos_eos": True},
        {
            "encoder_langtok": "src",
            "decoder_langtok": True,
            "lang_tok_replacing_bos_eos": True,
            "langs": None,
        },
    ],
)
def test_dictionaries_batches_and_beginnings_are_the_stock_tasks(both, tmp_path, settings):
    """Every way to place the tokens, without a model: what the stock task makes for inference,
    against ours.
    """
    found = tokens_of(
        [saved(tmp_path / "t.pt", **vars(task_settings(both, **settings)))],
        LanguagePair("de", "en"),
        files(both),
    )
    args = task_settings(both, **settings)
    args.source_lang, args.target_lang = "de", "en"
    task = tasks.setup_task(args)
    task.load_dataset("valid")
    source_dictionary, target_dictionary = found.dictionaries
    assert source_dictionary.symbols == task.source_dictionary.symbols
    assert target_dictionary.symbols == task.target_dictionary.symbols

    gold = load_langpair_dataset(
        str(both),
        "valid",
        "de",
        source_dictionary,
        "en",
        target_dictionary,
        False,
        None,
        1,
        task.args.left_pad_source,
        False,
        1024,
        1024,
    )
    searched = found.for_search(gold)
    ours, theirs = found.as_trained(searched), task.dataset("valid")
    rows = list(range(9))
    sample, expected = (d.collater([d[i] for i in rows]) for d in (ours, theirs))
    assert sample["target"].equal(expected["target"])
    assert sample["net_input"].keys() == expected["net_input"].keys()
    for name, value in expected["net_input"].items():
        assert sample["net_input"][name].equal(value), name

    sample = searched.collater([searched[i] for i in rows])
    assert sample["net_input"]["src_tokens"].equal(expected["net_input"]["src_tokens"])
    assert sample["net_input"]["src_lengths"].tolist() == searched.src_sizes[sample["id"]].tolist()
    assert all(searched.tgt[i].equal(gold.tgt[i]) for i in rows)  # similarity reads these

    class Generator:
        def generate(self, models, sample, **options):
            return {name: value for name, value in options.items() if value is not None}

    expected = task.inference_step(Generator(), [], sample)
    prefix = found.prefix_tokens(sample)
    assert (prefix is None) == ("prefix_tokens" not in expected)
    assert prefix is None or prefix.equal(expected["prefix_tokens"])
    eos = found.dictionaries[1].eos()  # fairseq names EOS where the engine takes its default
    assert (found.first_token or eos) == expected.get("bos_token", eos)


# What a student trains on.


def test_views_have_no_language_tokens(decoded, both):
    store, dictionary = NBestStore(decoded), Dictionary.load(str(both / "dict.en.txt"))
    assert len(dictionary) == SYMBOLS
    text, gold = Detokeniser(dictionary, "@@ "), side(both, "en")
    for view in ("seq_kd", "seq_inter"):
        assert side(decoded / view, "de") == side(both, "de")
        assert max(token for sentence in side(decoded / view, "en") for token in sentence) < SYMBOLS
        for lang in ("de", "en"):
            assert (decoded / view / f"dict.{lang}.txt").read_bytes() == (
                both / f"dict.{lang}.txt"
            ).read_bytes()
    for i, (seq_kd, seq_inter) in enumerate(
        zip(side(decoded / "seq_kd", "en"), side(decoded / "seq_inter", "en"))
    ):
        nbest = store[i]
        bleu = [
            sacrebleu.sentence_bleu(text(h.tokens), [text(gold[i])], use_effective_order=True).score
            for h in nbest
        ]
        assert [h.similarity for h in nbest] == pytest.approx(bleu, abs=1e-3)
        assert seq_kd == [*nbest[0].tokens.tolist(), dictionary.eos()]
        assert seq_inter == [
            *nbest[int(np.argmax(np.float32(bleu)))].tokens.tolist(),
            dictionary.eos(),
        ]


def test_a_token_that_the_teacher_prefers_inside_is_never_stored(both, multi, tmp_path):
    """A teacher that would write another language's token wherever it writes "tree"."""
    state, dictionary = compat.read_checkpoint(multi), Dictionary.load(str(both / "dict.en.txt"))
    rows = state["model"]["decoder.output_projection.weight"]
    assert len(rows) == SYMBOLS + 3
    rows[SYMBOLS + 2] = rows[dictionary.index("tree")] * 1.2
    torch.save(state, tmp_path / "teacher.pt")
    toys.decode(both, tmp_path / "teacher.pt", tmp_path / "out", **DECODE)
    store = NBestStore(tmp_path / "out")
    used = {token for i in range(len(store)) for h in store[i] for token in h.tokens.tolist()}
    assert max(used) < SYMBOLS and dictionary.index("tree") in used
    assert all(len(store[i]) == 4 for i in range(len(store)))


def test_a_student_trains_on_the_view(decoded, tmp_path):
    toys.train(
        decoded / "seq_kd",
        tmp_path,
        criterion="seq_kd",
        max_update=3,
        train_subset="valid",
        disable_validation=True,
    )
    state = compat.read_checkpoint(tmp_path / "checkpoint_last.pt")
    assert (
        len(state["model"]["encoder.embed_tokens.weight"])
        == len(state["model"]["decoder.embed_tokens.weight"])
        == SYMBOLS
    )


# The same bytes, and the manifest.


@pytest.mark.slow
def test_two_shards_write_the_same_bytes(decoded, both, multi, tmp_path):
    workers = [
        start_process(
            "fairseq-generate",
            *toys.decode_command(
                both,
                multi,
                tmp_path / "out",
                distributed_world_size=2,
                distributed_rank=rank,
                **DECODE,
            ),
        )
        for rank in range(2)
    ]
    printed = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    assert folders.tree(tmp_path / "out") == folders.tree(decoded)


def test_the_manifest_names_the_tokens_and_a_change_is_refused(decoded, both, multi):
    assert manifests.read(decoded)["settings"]["teacher"]["languages"] == {
        "encoder": "__de__",
        "encoder_id": SYMBOLS,
        "decoder": "__en__",
        "decoder_id": SYMBOLS + 1,
        "replacing_bos_eos": False,
    }
    before = folders.tree(decoded)
    done = toys.decode(both, multi, decoded, check=False, **DECODE, teacher_target_lang="fr")
    assert 'teacher.languages.decoder was "__en__", now "__fr__"' in refusal(done)
    assert folders.tree(decoded) == before


# Wrong input.


def refused(match, *args):
    with pytest.raises(Refusal) as found:
        tokens_of(*args)
    assert re.search(match, found.value.sentence), found.value.sentence


def test_wrong_languages_and_dictionaries_are_refused(both, tiny, multi, teacher, tmp_path):
    pair, data = LanguagePair("de", "en"), files(both)
    assert tokens_of([teacher], pair, files(tiny)) is None
    refused(
        "does not know the language zh; it knows de, en, fr: .*--teacher-source-lang",
        [multi],
        ("zh", "en"),
        data,
    )
    refused(
        "35 source symbols, .* 2 languages has 34",
        [multi],
        pair,
        data,
        "{'langs': 'de,en'}",
    )
    refused("symbol 4 is", [multi], pair, [reordered(data[0], tmp_path), data[1]])
    refused("different language tokens", [multi, teacher], pair, data)
    refused("no Python dictionary", [multi], pair, data, "langs=de,en")

    lost = saved(tmp_path / "lost.pt", _name=TASK, lang_dict="/no/such/langs.txt")
    refused("/no/such/langs.txt, which is not there", [lost], pair, data)
    (tmp_path / "langs.txt").write_text("fr\nen\nde\n")
    found = tokens_of(
        [lost], pair, data, f"{{'lang_dict': '{tmp_path / 'langs.txt'}', 'decoder_langtok': True}}"
    )
    assert (
        found.target_token == SYMBOLS + 1
        and found.dictionaries[1][SYMBOLS] == "__fr__"
        and found.source_token is None
    )
    refused("does not say which languages", [saved(tmp_path / "silent.pt", _name=TASK)], pair, data)


def reordered(file, folder):
    lines = Path(file).read_text().splitlines(keepends=True)
    (folder / "dict.de.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    return str(folder / "dict.de.txt")


def fixed(file):
    return str({"fixed_dictionary": str(file)})


def test_a_fixed_dictionary_may_have_symbols_after_the_tokens(both, multi, tmp_path):
    """M2M-100's own has made-up words at its end, so that its size is a multiple of eight."""
    state, data = compat.read_checkpoint(multi), files(both)
    for name in (
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "decoder.output_projection.weight",
    ):
        state["model"][name] = torch.cat([state["model"][name], torch.zeros(5, 32)])
    torch.save(state, tmp_path / "m2m.pt")
    tail = [f"__{lang}__ 1\n" for lang in ("de", "en", "fr")] + [
        f"madeupword{i} 0\n" for i in range(5)
    ]
    (tmp_path / "model_dict.txt").write_text(Path(data[0]).read_text() + "".join(tail))
    refused(
        "40 source symbols.*fixed_dictionary",
        [tmp_path / "m2m.pt"],
        LanguagePair("de", "en"),
        data,
    )
    overrides = fixed(tmp_path / "model_dict.txt")
    found = tokens_of([tmp_path / "m2m.pt"], LanguagePair("de", "en"), data, overrides)
    assert len(found.dictionaries[1]) == 40 and found.target_token == SYMBOLS + 1
    assert [found.dictionaries[1].index(symbol) for symbol in found.foreign] == list(
        range(SYMBOLS, 40)
    )
    wrong = fixed(reordered(tmp_path / "model_dict.txt", tmp_path))
    refused(
        "does not begin with the data's: symbol 4",
        [tmp_path / "m2m.pt"],
        LanguagePair("de", "en"),
        data,
        wrong,
    )
    gone = fixed("/no/such/file")
    refused(
        "/no/such/file, which is not there",
        [tmp_path / "m2m.pt"],
        LanguagePair("de", "en"),
        data,
        gone,
    )


@pytest.mark.parametrize(
    "which,options,sentence",
    [
        ("multi", {"prefix_size": 1}, "--prefix-size"),
        ("teacher", {"teacher_source_lang": "deu"}, "are for multilingual teachers"),
    ],
)
def test_options_that_do_not_go_with_the_teacher_are_refused(
    request, both, which, options, sentence
):
    cfg = SimpleNamespace(
        data=str(both),
        source_lang="de",
        target_lang="en",
        teacher_source_lang=options.get("teacher_source_lang"),
        teacher_target_lang=None,
        common_eval=SimpleNamespace(path=str(request.getfixturevalue(which)), model_overrides="{}"),
        generation=SimpleNamespace(prefix_size=options.get("prefix_size", 0)),
    )
    with pytest.raises(Refusal, match=sentence):
        teacher_languages(cfg, [Checkpoint(cfg.common_eval.path, "teacher")])


def test_it_is_no_teacher_for_word_kd(both, multi):
    with pytest.raises(Refusal, match="is multilingual.*teacher_decoding.*seqkd text"):
        toys.build(both, criterion="word_kd", teacher_path=multi)


# The other engine.


def test_ctranslate2_begins_with_the_token_too(decoded, both, multi, tmp_path):
    pytest.importorskip("ctranslate2")
    toys.decode(both, multi, tmp_path / "out", **DECODE, engine="ctranslate2")
    ours, theirs = NBestStore(tmp_path / "out"), NBestStore(decoded)
    assert (
        sum(ours[i][0].tokens.tolist() == theirs[i][0].tokens.tolist() for i in range(VALID))
        >= VALID - 1
    )
    for i in range(VALID):
        known = {tuple(h.tokens.tolist()): h for h in theirs[i]}
        for h in ours[i]:
            twin = known.get(tuple(h.tokens.tolist()))
            if twin:
                assert (h.log_prob, h.score) == pytest.approx((twin.log_prob, twin.score), abs=1e-4)
        assert max(max(h.tokens, default=0) for h in ours[i]) < SYMBOLS
