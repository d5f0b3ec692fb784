"""teacher_decoding through the real fairseq-generate: complete, the same bytes however it is run,
and wrong inputs.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter

import folders
import manifests
import numpy as np
import processes
import pytest
import sacrebleu
import torch
import toys
from commands import PLUGIN, refusal, run_here, start_process
from fairseq.data import Dictionary, data_utils
from similarity import sentence_bleu

from fairseq_seqkd import compat
from fairseq_seqkd.corpus.detokenise import Detokeniser
from fairseq_seqkd.corpus.nbest_store import NBestStore

TRAIN = 509  # sentences of the tiny training split: no multiple of 8


def targets(folder, split="train", lang="en"):
    """The sentences of one side of a data-bin, as lists of ids."""
    dataset = data_utils.load_indexed_dataset(str(folder / f"{split}.de-en.{lang}"), None, "mmap")
    return [dataset[i].tolist() for i in range(len(dataset))]


# What it leaves.


def test_every_sentence_is_there_once(distilled):
    store = NBestStore(distilled)
    assert len(store) == TRAIN
    assert all(len(store[i]) == 4 for i in range(TRAIN))
    content = manifests.read(distilled)
    assert content["complete"] and not any(content["counts"].values())
    assert set(content["counts"]) == {
        "empty",
        "hit_limit",
        "seq_inter_empty",
        "seq_inter_hit_limit",
        "source_too_long",
    }
    assert not (distilled / "parts").exists()


def test_lists_are_ranked_and_scores_are_normalised_log_probabilities(distilled):
    store = NBestStore(distilled)
    for i in range(0, TRAIN, 17):
        scores = [h.score for h in store[i]]
        assert scores == sorted(scores, reverse=True)
        for h in store[i]:
            assert h.score == pytest.approx(
                h.log_prob / (len(h.tokens) + 1), abs=1e-5
            )  # EOS counts


@pytest.mark.trap(8)
def test_log_probabilities_are_the_teachers(distilled, tiny, teacher):
    """Forced decoding by hand of the stored ids gives the stored sums."""
    task, _, criterion = toys.build(tiny, criterion="word_kd", teacher_path=teacher)
    task.load_dataset("train")
    model, eos, store = (
        criterion.teacher.models[0],
        task.target_dictionary.eos(),
        NBestStore(distilled),
    )
    for i in (0, 100, 508):
        source = task.dataset("train")[i]["source"].unsqueeze(0)
        for h in store[i][:2]:
            tokens = [*h.tokens.tolist(), eos]
            with torch.no_grad():
                out = model(
                    source, torch.tensor([source.size(1)]), torch.tensor([[eos, *tokens[:-1]]])
                )
            lprobs = model.get_normalized_probs(out, log_probs=True)[0]
            assert h.log_prob == pytest.approx(
                sum(lprobs[j, t].item() for j, t in enumerate(tokens)), abs=1e-3
            )


@pytest.mark.trap(8)
def test_the_mode_is_what_fairseq_generate_prints(distilled, tiny, teacher):
    """The stock task, its own batches and its printed text, against our ids."""
    options = {
        "user-dir": PLUGIN,
        "path": teacher,
        "gen-subset": "train",
        "beam": 4,
        "max-len-b": 30,
        "cpu": True,
    }
    printed = run_here(
        "fairseq-generate", tiny, *toys.flags(options, required_batch_size_multiple=1)
    ).stdout
    theirs = {
        int(i): text for i, text in re.findall(r"^H-(\d+)\t\S+\t(.*)$", printed, re.MULTILINE)
    }
    dictionary, store = Dictionary.load(str(tiny / "dict.en.txt")), NBestStore(distilled)
    assert len(theirs) == TRAIN
    ours = {i: " ".join(dictionary[t] for t in store[i][0].tokens) for i in range(TRAIN)}
    assert ours == theirs


def test_views_hold_the_mode_and_the_closest(distilled, tiny):
    dictionary, store = Dictionary.load(str(tiny / "dict.en.txt")), NBestStore(distilled)
    text, gold = Detokeniser(dictionary, "@@ "), targets(tiny)
    seq_kd, seq_inter = targets(distilled / "seq_kd"), targets(distilled / "seq_inter")
    assert len(seq_kd) == len(seq_inter) == TRAIN
    moved = 0
    for i in range(TRAIN):
        nbest = store[i]
        bleu = [
            sacrebleu.sentence_bleu(text(h.tokens), [text(gold[i])], use_effective_order=True).score
            for h in nbest
        ]
        assert [h.similarity for h in nbest] == pytest.approx(bleu, abs=1e-3)
        assert seq_kd[i] == [*nbest[0].tokens.tolist(), dictionary.eos()]
        best = int(np.argmax(np.float32(bleu)))
        assert seq_inter[i] == [*nbest[best].tokens.tolist(), dictionary.eos()]
        moved += best > 0
    assert moved > 20  # otherwise the corpus would be too easy to test anything


@pytest.mark.trap(22)
@pytest.mark.parametrize("view", ["seq_kd", "seq_inter"])
def test_everything_else_in_a_view_is_gold(distilled, tiny, view):
    ours = folders.tree(distilled / view)
    replaced = {"train.de-en.en.bin", "train.de-en.en.idx", "manifest.json"}
    gold = {
        name: content
        for name, content in folders.tree(tiny).items()
        if not name.endswith((".log", ".txt"))
    }
    gold.update({name: (tiny / name).read_bytes() for name in ("dict.de.txt", "dict.en.txt")})
    assert {n: c for n, c in ours.items() if n not in replaced} == {
        n: c for n, c in gold.items() if n not in replaced
    }
    assert not any(
        file.is_symlink() or file.stat().st_nlink > 1 for file in (distilled / view).iterdir()
    )


# The same bytes.


@pytest.mark.trap(7, 13)
@pytest.mark.parametrize("shards", [2, 3])
def test_shards_write_the_same_bytes(distilled, tiny, teacher, tmp_path, shards):
    """Workers at the same time on one directory, and no matter which of them ends last."""
    workers = [
        start_process(
            "fairseq-generate",
            *toys.decode_command(
                tiny,
                teacher,
                tmp_path / "out",
                distributed_world_size=shards,
                distributed_rank=rank,
            ),
        )
        for rank in range(shards)
    ]
    printed = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * shards, printed
    assert folders.tree(tmp_path / "out") == folders.tree(distilled)
    done = [
        int(max(re.findall(r"this worker: (\d+) sentences", text), key=int, default=0))
        for text in printed
    ]
    assert sum(done) == TRAIN  # nobody did another's work again


@pytest.mark.trap(8, 14)
def test_what_a_dead_worker_left_half_written_is_never_read(distilled, tiny, teacher, tmp_path):
    """Killed after its first part and continued; test_faults.py kills at random moments."""
    out = tmp_path / "out"
    worker = toys.decode_until(1, tiny, teacher, out)
    worker.kill()
    worker.communicate()
    (out / "parts" / ".000007.part.dead.partial").write_bytes(b"half a part of a dead worker")
    (out / ".hypotheses.safetensors.dead.partial").write_bytes(b"half of all parts")
    (out / ".seq_kd.dead.partial").mkdir()
    (out / ".seq_kd.dead.partial" / "rows.npy").write_bytes(b"half a view")
    toys.decode(tiny, teacher, out)
    assert folders.tree(out) == folders.tree(distilled)
    again = toys.decode(tiny, teacher, out)
    assert "nothing is left to decode" in again.stdout
    assert folders.tree(out) == folders.tree(distilled)


def test_ctrl_c_is_one_sentence_and_nothing_is_lost(distilled, tiny, teacher, tmp_path):
    out = tmp_path / "out"
    worker = toys.decode_until(1, tiny, teacher, out)
    seen = processes.resume(worker, signal.SIGINT)
    assert worker.returncode == 130 and "interrupted" in seen and "Traceback" not in seen
    assert len(list((out / "parts").glob("*.part"))) >= 1
    toys.decode(tiny, teacher, out)
    assert folders.tree(out) == folders.tree(distilled)


@pytest.mark.parametrize("engine", ["fairseq", "ctranslate2"])
def test_sampling_depends_on_the_seed_alone(tiny, teacher, tmp_path, engine):
    """Four parts, decoded in another order by the second run: what was sampled before does not
    matter.
    """
    if engine == "ctranslate2":
        pytest.importorskip("ctranslate2")
    more = {
        "gen_subset": "valid",
        "sampling": True,
        "beam": 2,
        "nbest": 2,
        "seed": 3,
        "part_size": 16,
        "engine": engine,
    }
    toys.decode(tiny, teacher, tmp_path / "a", **more)
    toys.decode(tiny, teacher, tmp_path / "b", distributed_world_size=2, distributed_rank=1, **more)
    assert folders.tree(tmp_path / "a") == folders.tree(tmp_path / "b")
    toys.decode(tiny, teacher, tmp_path / "c", **{**more, "seed": 4})
    found = [
        [[h.tokens.tolist() for h in nbest] for nbest in NBestStore(tmp_path / name)]
        for name in "ac"
    ]
    assert len(found[0]) == len(found[1]) == 53
    assert sum(mine == other for mine, other in zip(*found)) < 50


def test_a_split_that_training_would_take_along_is_named(tiny, teacher, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "bin")
    for file in tiny.glob("valid.*"):
        shutil.copy(file, data / file.name.replace("valid", "train1"))
    printed = toys.decode(data, teacher, tmp_path / "out", beam=1, nbest=1).stdout
    assert (
        "bin also holds train1, which fairseq-train joins with train, but only train is decoded"
        in printed
    )
    assert "seq_inter gets the targets of seq_kd; for Seq-Inter pass --nbest 2" in printed
    printed = toys.decode(tiny, teacher, tmp_path / "alone", beam=2, nbest=2).stdout
    assert "which fairseq-train joins" not in printed and "pass --nbest" not in printed


# Sentences that other systems lose.


@pytest.mark.trap(1)
def test_fairseqs_batch_multiple_drops_nothing(tiny, teacher, tmp_path):
    """With its default of 8 the stock task drops the longest sentences; 53 in, 53 out here."""
    toys.decode(
        tiny,
        teacher,
        tmp_path / "out",
        gen_subset="valid",
        required_batch_size_multiple=8,
        batch_size=10,
    )
    assert len(NBestStore(tmp_path / "out")) == 53
    assert len(targets(tmp_path / "out" / "seq_kd", "valid")) == 53


@pytest.mark.trap(9)
def test_over_long_sources_are_left_out_counted_and_listed(tiny, teacher, tmp_path):
    out, longest = tmp_path / "out", 9
    done = toys.decode(tiny, teacher, out, max_source_positions=longest)
    sources = targets(tiny, lang="de")
    expected = [i for i, sentence in enumerate(sources) if len(sentence) > longest]
    content = manifests.read(out)
    assert 0 < len(expected) < TRAIN and content["listed"]["source_too_long"] == expected
    assert f"{len(expected)} sentences: source_too_long (listed in the manifest)" in done.stdout
    kept = np.load(out / "seq_kd" / "rows.npy").tolist()
    assert sorted(kept + expected) == list(range(TRAIN))
    assert targets(out / "seq_kd", lang="de") == [sources[i] for i in kept]
    assert len(targets(out / "seq_kd")) == len(kept) == manifests.read(out / "seq_kd")["rows"]


def test_hypotheses_cut_by_the_limit_are_counted_and_listed(tiny, teacher, tmp_path):
    toys.decode(tiny, teacher, tmp_path / "out", gen_subset="valid", max_len_b=5)
    content, store = manifests.read(tmp_path / "out"), NBestStore(tmp_path / "out")
    assert content["listed"]["hit_limit"] == [i for i in range(53) if len(store[i][0].tokens) >= 5]
    assert content["counts"]["hit_limit"] > 20
    nearest = [int(np.argmax([h.similarity for h in store[i]])) for i in range(53)]
    assert content["listed"]["seq_inter_hit_limit"] == [
        i for i, h in enumerate(nearest) if store[i][h].hit_limit
    ]


def test_a_split_without_targets_has_no_seq_inter(tiny, teacher, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    for ending in (".bin", ".idx"):
        (tmp_path / "bin" / f"test.de-en.en{ending}").unlink()
    toys.decode(tmp_path / "bin", teacher, tmp_path / "out", gen_subset="test")
    assert (
        len(NBestStore(tmp_path / "out")) == 45 and not NBestStore(tmp_path / "out").has_similarity
    )
    assert (tmp_path / "out" / "seq_kd" / "test.de-en.en.bin").is_file()
    assert not (tmp_path / "out" / "seq_inter").exists()


def test_the_consensus_choice_needs_no_targets(tiny, teacher, tmp_path):
    """Against a loop over all pairs, with sacrebleu's own function, of samples: with repeated and
    with different texts.
    """
    shutil.copytree(tiny, tmp_path / "bin")
    for ending in (".bin", ".idx"):
        (tmp_path / "bin" / f"test.de-en.en{ending}").unlink()
    more = {
        "gen_subset": "test",
        "sampling": True,
        "temperature": 1.5,
        "beam": 5,
        "nbest": 5,
        "select": "mbr",
    }
    toys.decode(tmp_path / "bin", teacher, tmp_path / "out", **more)
    dictionary, store = Dictionary.load(str(tiny / "dict.en.txt")), NBestStore(tmp_path / "out")
    text, moved, repeated = Detokeniser(dictionary, "@@ ", unknown="\ue000"), 0, 0
    rows = targets(tmp_path / "out" / "seq_kd", "test")
    for i in range(45):
        texts = [text(h.tokens) for h in store[i]]
        pairs = [
            [sentence_bleu(a, b) for k, b in enumerate(texts) if k != j]
            for j, a in enumerate(texts)
        ]
        means = [np.mean(row) for row in pairs]
        assert [h.consensus for h in store[i]] == pytest.approx(means, abs=1e-3) and store[i][
            0
        ].similarity is None
        best = int(np.argmax([h.consensus for h in store[i]]))
        assert rows[i] == [*store[i][best].tokens.tolist(), dictionary.eos()]
        moved, repeated = moved + (best > 0), repeated + (len(set(texts)) < 5)
    assert moved > 5 and repeated > 2
    content = manifests.read(tmp_path / "out")
    assert (
        content["settings"]["select"] == "mbr"
        and "|similarity:bleu|select:mbr|" in content["signature"]
    )
    assert (
        content["views"] == ["seq_kd"]
        and manifests.read(tmp_path / "out" / "seq_kd")["select"] == "mbr"
    )
    done = toys.decode(
        tmp_path / "bin", teacher, tmp_path / "out", check=False, **{**more, "select": "mode"}
    )
    assert 'select was "mbr", now "mode"' in refusal(done)


def test_filters_leave_out_count_and_list(distilled, tiny, teacher, tmp_path):
    """The directory of the same decode without filters says what each view chose; a loop by hand
    says what must go.
    """
    favourites = [nbest[0] for nbest in map(NBestStore(distilled).__getitem__, range(TRAIN))]
    scores = [favourite.log_prob / (len(favourite.tokens) + 1) for favourite in favourites]
    low = round(
        float(np.quantile(scores, 0.1)), 3
    )  # of every tenth sentence the favourite's score is lower
    limits = {
        "filter_length_ratio": 2.3,
        "filter_score": low,
        "filter_copy": 0.05,
        "filter_repeats": 2,
        "filter_empty": True,
    }
    out = tmp_path / "out"
    done = toys.decode(tiny, teacher, out, **limits)
    source_of, target_of = (
        Dictionary.load(str(tiny / f"dict.{lang}.txt")) for lang in ("de", "en")
    )
    store, sources, content = NBestStore(out), targets(tiny, lang="de"), manifests.read(out)
    for view in ("seq_kd", "seq_inter"):
        expected, everything = (
            {rule: [] for rule in ("length_ratio", "score", "copy", "repeats", "empty")},
            [],
        )
        for i, row in enumerate(targets(distilled / view)):
            target, source = row[:-1], sources[i][:-1]
            best = 0 if view == "seq_kd" else int(np.argmax([h.similarity for h in store[i]]))
            common = Counter(target_of[t] for t in target) & Counter(source_of[t] for t in source)
            failed = {
                "length_ratio": not 1 / 2.3 <= len(target) / len(source) <= 2.3,
                "score": store[i][best].log_prob / len(row) < low,
                "copy": sum(common.values()) / max(len(target), len(source)) >= 0.05,
                "repeats": any(
                    target[a : a + n] == target[a + n : a + 2 * n] != []
                    for n in range(1, 5)
                    for a in range(len(row))
                    if len(target[a + n : a + 2 * n]) == n
                ),
                "empty": not target,
            }
            everything.append(any(failed.values()))
            for rule, fails in failed.items():
                expected[rule] += [i] * fails
        counts = {rule: len(ids) for rule, ids in expected.items()}
        assert content["filtered"][view] == {"counts": counts, "listed": expected}
        assert (
            counts["length_ratio"]
            and counts["score"]
            and counts["repeats"]
            and 0 < sum(everything) < TRAIN
        )
        kept = [i for i in range(TRAIN) if not everything[i]]
        assert np.load(out / view / "rows.npy").tolist() == kept
        gold = targets(distilled / view)
        assert targets(out / view) == [gold[i] for i in kept] and targets(
            out / view, lang="de"
        ) == [sources[i] for i in kept]
        assert manifests.read(out / view)["filtered"] == counts
        assert f"{view}: {counts['score']} sentences fail --filter-score {low}" in done.stdout
    assert (
        f"|filters:copy=0.05,empty=True,length_ratio=2.3,repeats=2,score={low}|"
        in content["signature"]
    )
    done = toys.decode(tiny, teacher, out, check=False, **{**limits, "filter_score": None})
    assert f"filters.score was {low}, now null" in refusal(done)


@pytest.mark.trap(22)
def test_filters_that_leave_nothing_are_one_sentence_and_the_hypotheses_are_kept(
    tiny, teacher, tmp_path
):
    more = {"gen_subset": "valid", "filter_score": -0.0001}
    for _ in range(2):  # it is said again
        done = toys.decode(tiny, teacher, tmp_path / "out", check=False, **more)
        sentence = (
            "no view seq_kd and seq_inter: of 53 sentences none was left (53 fail "
            "--filter-score -0.0001)"
        )
        assert sentence in refusal(done)
    assert len(NBestStore(tmp_path / "out")) == 53 and not (tmp_path / "out" / "seq_kd").exists()


def test_workers_that_score_write_the_same_bytes_and_end_with_the_run(
    distilled, tiny, teacher, tmp_path
):
    """In a process group of its own, so that nothing of it can be overlooked: first interrupted,
    then to the end.
    """
    out = tmp_path / "out"
    worker = toys.decode_until(1, tiny, teacher, out, similarity_workers=2)
    seen = processes.resume(worker, signal.SIGINT, to=os.killpg)
    assert worker.returncode == 130 and "interrupted" in seen and "Traceback" not in seen, seen
    processes.wait_until(
        lambda: is_gone(worker.pid)
    )  # the kernel may not have buried all of it yet
    toys.decode(tiny, teacher, out, similarity_workers=2)
    assert folders.tree(out) == folders.tree(distilled)


def is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_ensembles_and_other_metrics(tiny, teacher, tmp_path):
    toys.decode(
        tiny, f"{teacher}:{teacher}", tmp_path / "out", gen_subset="valid", similarity="chrf"
    )
    content = manifests.read(tmp_path / "out")
    assert (
        len(content["settings"]["teacher"]["sha256"]) == 2
        and "similarity:chrf" in content["signature"]
    )
    assert (
        "chrF" in content["settings"]["similarity"]["settings"]
        or "nc:6" in content["settings"]["similarity"]["settings"]
    )


def test_similarity_is_of_the_tokenizer_that_is_asked_for(tiny, teacher, tmp_path):
    toys.decode(tiny, teacher, tmp_path / "out", gen_subset="valid", similarity_tokenizer="char")
    dictionary, store = Dictionary.load(str(tiny / "dict.en.txt")), NBestStore(tmp_path / "out")
    text, gold, others = Detokeniser(dictionary, "@@ "), targets(tiny, "valid"), 0
    for i in range(53):
        outputs, reference = [text(h.tokens) for h in store[i]], text(gold[i])
        expected = [sentence_bleu(output, reference, "char") for output in outputs]
        assert [h.similarity for h in store[i]] == pytest.approx(expected, abs=1e-3)
        usual = [sentence_bleu(output, reference) for output in outputs]
        others += expected != pytest.approx(usual, abs=1e-3)
    assert others > 10


# Wrong input.


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"nbest": 9}, "--nbest 9 asks for more hypotheses than --beam 4"),
        ({"distill_dir": None}, "--distill-dir is missing"),
        ({"gen_subset": "dev"}, "no split 'dev'"),
        ({"path": "absent.pt"}, "does not exist"),
        ({"similarity_tokenizer": "typo"}, "is none of sacrebleu's"),
        ({"constraints": True}, "--constraints"),
        ({"fp16": True}, "--fp16 is for GPUs"),
        ({"temperature": 0}, "--temperature"),
        ({"part_size": -1}, "--part-size"),
        ({"similarity_workers": -1}, "--similarity-workers"),
        ({"select": "mbr", "nbest": 1}, "--nbest must be at least 2"),
        ({"filter_length_ratio": 1}, "--filter-length-ratio"),
    ],
)
def test_wrong_options_stop_at_the_start(tiny, teacher, tmp_path, options, sentence):
    settings = {"gen_subset": "valid", **options}
    done = toys.decode(tiny, teacher, tmp_path / "out", check=False, **settings)
    assert sentence in refusal(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.trap(15)
def test_a_directory_begun_with_other_options_is_refused_and_untouched(
    distilled, tiny, teacher, tmp_path
):
    shutil.copytree(distilled, tmp_path / "out")
    done = toys.decode(tiny, teacher, tmp_path / "out", check=False, beam=5, lenpen=1.5)
    sentence = refusal(done)
    assert "search.beam was 4, now 5" in sentence and "search.lenpen was 1.0, now 1.5" in sentence
    assert folders.tree(tmp_path / "out") == folders.tree(distilled)


def test_a_directory_with_other_files_is_refused_and_untouched(tiny, teacher, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = toys.decode(tiny, teacher, tmp_path, check=False, gen_subset="valid")
    assert "name a new or empty one" in refusal(done)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["corrupt", "other dictionary", "untrained"])
def test_wrong_teachers_stop_before_decoding(tiny, teacher, tmp_path, kind):
    path, data = tmp_path / "teacher.pt", tiny
    if kind == "corrupt":
        path.write_bytes(teacher.read_bytes()[:20_000])
        sentence = "damaged"
    elif kind == "other dictionary":
        shutil.copy(teacher, path)
        shutil.copytree(tiny, tmp_path / "bin")
        data = tmp_path / "bin"
        lines = (data / "dict.de.txt").read_text().splitlines(keepends=True)
        (data / "dict.de.txt").write_text("".join(reversed(lines)))
        sentence = "symbol 4 is"
    else:
        state = compat.read_checkpoint(teacher)
        state["model"] = {
            name: torch.randn_like(tensor) * 3 for name, tensor in state["model"].items()
        }
        torch.save(state, path)
        sentence = "no better than guessing"
    done = toys.decode(data, path, tmp_path / "out", check=False, gen_subset="valid")
    assert sentence in refusal(done)
    assert not (tmp_path / "out").exists()  # so that the right teacher may have this directory


def test_a_full_disk_is_one_sentence_and_the_run_continues(distilled, tiny, teacher, tmp_path):
    """No file may grow beyond a limit, as on a full disk; with the limit gone the same command ends
    with the same bytes.
    """

    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    out = tmp_path / "out"
    words = toys.decode_command(tiny, teacher, out)
    limited = start_process("fairseq-generate", *words, prepare=limit)
    printed = limited.communicate()
    done = subprocess.CompletedProcess(limited.args, limited.returncode, printed)
    assert "cannot be written" in refusal(done)
    assert not list(out.rglob("*.partial"))
    toys.decode(tiny, teacher, out)
    assert folders.tree(out) == folders.tree(distilled)


def test_too_small_a_disk_is_refused_before_the_work(monkeypatch, tiny):
    from collections import namedtuple

    from fairseq_seqkd.corpus.distilled import check_disk_space
    from fairseq_seqkd.errors import Refusal

    check_disk_space("-o", tiny / "new" / "folder", 1e4)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(1, 1, 1000)
    )
    with pytest.raises(Refusal, match="MB free"):
        check_disk_space("-o", tiny / "new" / "folder", 1e4)
