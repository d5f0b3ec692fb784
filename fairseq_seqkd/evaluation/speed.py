"""How fast checkpoints translate: fairseq and CTranslate2, greedy and with a beam, in turn on one thread (`seqkd bench`).

Every measurement is a process of its own (speed_worker.py) that translates the whole split, so that its peak memory is its
own, and the contenders take turns, so that a machine that slows down slows all of them down.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fairseq_seqkd import checkpoint, engines
from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT
from fairseq_seqkd.engines import CTRANSLATE2, FAIRSEQ, ctranslate2_model, int8_support
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import measure, systems
from fairseq_seqkd.selection.similarity import tokenizer_for

CONTENDERS = {
    FAIRSEQ: "float32",
    f"{CTRANSLATE2}-float32": "float32",
    f"{CTRANSLATE2}-int8": "int8",
}  # and in what they compute

WORDS, CHARACTERS = "words", "characters"


@dataclass
class Contender:
    """A model under an engine, with a beam."""

    name: str  # of the model
    engine: str  # one of CONTENDERS
    beam: int
    job: dict  # for the worker
    size: int  # bytes on disk of what the engine loads


class Bench:
    """Prepares models for measuring, in a folder of its own.

    Args: named: [(name, systems.System)]; wanted: some of CONTENDERS; beams; folder: for what is only needed meanwhile.
    """

    def __init__(self, named, wanted, beams, folder):
        self.folder, self.contenders, self.left_out, self.models = Path(folder), [], [], {}
        first = named[0][1]
        check_same(named)
        for number, (name, system) in enumerate(named):
            model, task = systems.load(system)
            dataset = systems.load_split(system, task)
            systems.check_lengths(system.path, system.split, model.max_positions())
            self.models[name] = {
                "params": measure.count_parameters(model),
                "nonzero_params": measure.count_nonzero(model),
                "distillation_signature": system.distillation_signature,
                "checkpoint_sha256": system.checkpoint_sha256,
            }
            home = self.folder / str(number)
            home.mkdir()
            for engine in wanted:
                if engine == FAIRSEQ:
                    job, size = self.fairseq_job(system, home)
                elif not ctranslate2_model.is_transformer(model):
                    self.left_out.append((name, engine))
                    continue
                else:
                    job, size = self.ctranslate2_job(model, task, dataset, system, engine, home)
                for beam in beams:
                    job = {**job, "beam": beam, "batch_tokens": batch_tokens(engine, beam)}
                    self.contenders.append(Contender(name, engine, beam, job, size))
        if not self.contenders:
            raise Refusal(
                f"nothing is left to measure: {self.left_out[0][0]} is no Transformer; add fairseq to --engines"
            )
        self.text = systems.detokeniser(first, 1, UNKNOWN_IN_OUTPUT)
        sources, self.references = systems.texts(first)
        self.counted = counted(first)
        self.source_words = count(sources, self.counted)
        self.settings, self.sentences = first.settings, len(self.references)

    def fairseq_job(self, system, home):
        """fairseq loads the checkpoint; its size is counted without the optimizer's state, which translating needs not."""
        bare = home / "model.pt"  # what the worker loads, so that its memory is that of translating
        checkpoint.write(bare, {**system.checkpoint.state, "last_optimizer_state": None})
        limits = {
            key: system.settings[key] for key in ("max_len_a", "max_len_b", "lenpen", "split")
        }
        return {
            "kind": FAIRSEQ,
            "checkpoint": str(bare),
            "data": str(system.split.folder),
            **limits,
        }, bare.stat().st_size

    def ctranslate2_job(self, model, task, dataset, system, engine, home):
        """CTranslate2 loads a folder, and reads its sources from a file, so that no fairseq is in its process."""
        compute_type = CONTENDERS[engine]
        folder, sources = home / compute_type, home / "sources.json"
        vocabularies = (
            ctranslate2_model.id_names(task.source_dictionary),
            ctranslate2_model.id_names(task.target_dictionary),
        )
        folder.mkdir()
        for name, content in ctranslate2_model.convert(
            model, *vocabularies, quantization=compute_type
        ).items():
            (folder / name).write_bytes(content)
        if not sources.exists():
            rows = [
                [vocabularies[0][i] for i in dataset.src[row].tolist()]
                for row in range(len(dataset))
            ]
            sources.write_text(json.dumps(rows))
        limits = {key: system.settings[key] for key in ("max_len_a", "max_len_b", "lenpen")}
        computed = int8_support.computed_as(compute_type)  # as `seqkd translate` does
        job = {
            "kind": CTRANSLATE2,
            "folder": str(folder),
            "sources": str(sources),
            "compute_type": computed,
            **limits,
        }
        job["positions"] = int(model.max_positions()[1])
        return job, sum(file.stat().st_size for file in folder.iterdir())

    def measure(self, contender):
        """One round of a contender: {"seconds", "peak_memory_mb", "outputs": ids of every sentence}."""
        out = self.folder / "out.json"
        command = [
            sys.executable,
            "-m",
            "fairseq_seqkd.evaluation.speed_worker",
            json.dumps(contender.job),
            str(out),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread()
        )
        if done.returncode:
            last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
            raise Refusal(
                f"{contender.name} could not be measured with {contender.engine}: {last.removeprefix('fairseq_seqkd: ')}"
            )
        return json.loads(out.read_text())

    def bleu(self, outputs):
        """(BLEU, signature) of translations, lists of ids."""
        score, signature = measure.bleu(
            [self.text(ids) for ids in outputs], self.references, self.settings["bleu_tokenizer"]
        )
        return score.score, signature

    def summary(self, contender, rounds):
        """What a contender's rounds come to, as a dictionary for JSON. Rates are source words or characters a second."""
        words = [self.source_words / found["seconds"] for found in rounds]
        score, signature = self.bleu(rounds[0]["outputs"])
        return {
            "name": contender.name,
            "engine": contender.engine,
            "beam": contender.beam,
            "batch_tokens": contender.job["batch_tokens"],
            "computed_in": contender.job.get("compute_type", "float32"),
            "words_per_second": statistics.median(words),
            "words_per_second_rounds": words,
            "sentences_per_second": statistics.median(words) * self.sentences / self.source_words,
            "peak_memory_mb": statistics.median(found["peak_memory_mb"] for found in rounds),
            "size_bytes": contender.size,
            "bleu": score,
            "sacrebleu_signature": signature,
            **self.models[contender.name],
        }


def check_same(named):
    """Refuses models that do not translate the same sentences into the same language: their words a second do not compare."""
    (first, system), *others = named
    for name, other in others:
        if (other.data_sha256, other.settings) != (system.data_sha256, system.settings):
            raise Refusal(
                f"{name} reads or writes other data than {first}, so their speeds do not compare; bench them apart"
            )


def run(named, wanted, beams, rounds, said=lambda text, total: None, keep=lambda found: None):
    """Measures all contenders in turn, `rounds` times. Returns the list of summaries, and [(name, engine)] left out.

    Args: said: is told of every measurement, and how many there are; keep: is given the summaries so far, after every round.
    """
    with tempfile.TemporaryDirectory(prefix="seqkd-bench-") as folder:
        bench = Bench(named, wanted, beams, folder)
        found = [[] for _ in bench.contenders]
        for number in range(rounds):
            for contender, results in zip(bench.contenders, found):
                results.append(bench.measure(contender))
                if number:
                    results[-1].pop("outputs")  # those of the first round are enough
                rate = bench.source_words / results[-1]["seconds"]
                what = f"{contender.name}, {contender.engine}, beam {contender.beam}"
                said(
                    f"round {number + 1}/{rounds}: {what}: {rate:,.0f} {bench.counted}/s",
                    rounds * len(bench.contenders),
                )
            summaries = [
                bench.summary(contender, results)
                for contender, results in zip(bench.contenders, found)
            ]
            keep(summaries)
        return summaries, bench.left_out


def counted(system):
    """What of the sources is counted: WORDS, or CHARACTERS in a language that sets no words apart."""
    return (
        WORDS if tokenizer_for(system.split.languages.source) == tokenizer_for(None) else CHARACTERS
    )


def count(lines, what):
    """How many words or characters lines of text have, at least one."""
    return max(
        sum(len(line.split() if what == WORDS else "".join(line.split())) for line in lines), 1
    )


def batch_tokens(engine, beam):
    kind = FAIRSEQ if engine == FAIRSEQ else CTRANSLATE2
    return engines.default_tokens(kind, CONTENDERS[engine], beam, on_gpu=False)


def version_of_ctranslate2(wanted):
    if all(engine == FAIRSEQ for engine in wanted):
        return {}
    import ctranslate2

    return {"ctranslate2": ctranslate2.__version__}


def one_thread():
    # A folder with a clone of this package in it is a package too, to a Python that looks there first.
    safe = {"PYTHONSAFEPATH": "1"}
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **safe,
    }
