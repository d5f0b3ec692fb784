"""The speed of checkpoints: fairseq and CTranslate2, greedy and with a beam (`seqkd bench`).

Every measurement is a process of its own (speed_worker.py) that translates the whole split, so that
its peak memory is its own. The contenders take turns, so that a machine that slows down slows all
of them down.
"""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple, Union

import msgspec

from fairseq_seqkd import checkpoint, engines
from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT
from fairseq_seqkd.engines import CTRANSLATE2, FAIRSEQ, ctranslate2_model, int8_support
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import measure
from fairseq_seqkd.evaluation.records import CHARACTERS, WORDS, Counted, MeasurementSettings, Speed
from fairseq_seqkd.evaluation.speed_worker import CTranslate2Job, FairseqJob, Round
from fairseq_seqkd.evaluation.systems import TARGET, Loaded, System, load_with_split, software
from fairseq_seqkd.selection.similarity import tokenizer_for

# What a contender computes in.
CONTENDERS = {
    FAIRSEQ: "float32",
    f"{CTRANSLATE2}-float32": "float32",
    f"{CTRANSLATE2}-int8": "int8",
}


@dataclass
class Contender:
    """A model under an engine, with a beam, and the rounds that were measured."""

    system: System
    engine: str  # one of CONTENDERS
    job: Union[FairseqJob, CTranslate2Job]
    size: int  # bytes on disk of what the engine loads
    rounds: List[Round] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.system.identity}, {self.engine}, beam {self.job.beam}"


class Benchmark:
    """Models that are prepared for measuring.

    Args:
        systems: the models, which must translate the same sentences.
        names: some of CONTENDERS.
        beams: beam sizes.
        folder: where files are kept during the measurement.

    Raises:
        Refusal: the models do not compare, or no engine holds any of them.
    """

    def __init__(
        self, systems: Sequence[System], names: Sequence[str], beams: Sequence[int], folder: Path
    ) -> None:
        first = systems[0]
        check_comparable(systems)
        self.folder, self.settings = folder, first.settings
        self.contenders: List[Contender] = []
        self.left_out: List[Tuple[System, str]] = []
        self.sizes: Dict[str, Dict[str, int]] = {}  # name: its parameters
        for number, system in enumerate(systems):
            home = folder / str(number)
            home.mkdir()
            loaded = load_with_split(system)
            self.sizes[system.identity.name] = {
                "params": measure.count_parameters(loaded.model),
                "nonzero_params": measure.count_nonzero(loaded.model),
            }
            for name in names:
                self._add(system, loaded, name, beams, home)
        if not self.contenders:
            raise Refusal(
                f"nothing is left to measure: {first.identity} is no Transformer; add fairseq to "
                "--engines"
            )
        self.detokenise = first.detokeniser(TARGET, UNKNOWN_IN_OUTPUT)
        sources, self.references = first.texts()
        self.counted = counted(first)
        self.source_words = count(sources, self.counted)

    def _add(
        self, system: System, loaded: Loaded, name: str, beams: Sequence[int], home: Path
    ) -> None:
        """Adds a model under an engine, once for each beam."""
        job: Union[FairseqJob, CTranslate2Job]
        if name == FAIRSEQ:
            job, size = fairseq_job(system, home)
        elif ctranslate2_model.is_transformer(loaded.model):
            job, size = ctranslate2_job(system, loaded, CONTENDERS[name], home)
        else:
            self.left_out.append((system, name))
            return
        for beam in beams:
            kind = FAIRSEQ if name == FAIRSEQ else CTRANSLATE2
            tokens = engines.default_tokens(kind, CONTENDERS[name], beam, on_gpu=False)
            turn = msgspec.structs.replace(job, beam=beam, batch_tokens=tokens)
            self.contenders.append(Contender(system, name, turn, size))

    def measure(self, contender: Contender) -> Round:
        """Measures one round of a contender in a process of its own.

        Raises:
            Refusal: the process failed.
        """
        out = self.folder / "out.json"
        job = msgspec.json.encode(contender.job).decode()
        command = [sys.executable, "-m", "fairseq_seqkd.evaluation.speed_worker", job, str(out)]
        # PYTHONSAFEPATH: a folder with a clone of this package is a package, too, to a Python that
        # looks there first.
        fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        environment = {**os.environ, **fixed, "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        if process.returncode:
            last = (process.stdout.strip().splitlines() or ["it printed nothing"])[-1]
            reason = last.removeprefix("fairseq_seqkd: ")
            raise Refusal(f"{contender} could not be measured: {reason}")
        return msgspec.json.decode(out.read_bytes(), type=Round)

    def summary(self, contender: Contender) -> Speed:
        """Summarises the rounds of a contender."""
        words = [self.source_words / turn.seconds for turn in contender.rounds]
        texts = [self.detokenise(ids) for ids in contender.rounds[0].outputs]
        score, signature = measure.bleu(texts, self.references, self.settings.bleu_tokenizer)
        system, job = contender.system, contender.job
        per_sentence = self.source_words / len(self.references)
        memory = [turn.peak_memory_mb for turn in contender.rounds]
        return Speed(
            name=system.identity.name,
            engine=contender.engine,
            beam=job.beam,
            batch_tokens=job.batch_tokens,
            computed_in=job.compute_type,
            words_per_second=statistics.median(words),
            words_per_second_rounds=words,
            sentences_per_second=statistics.median(words) / per_sentence,
            peak_memory_mb=statistics.median(memory),
            size_bytes=contender.size,
            bleu=score.score,
            sacrebleu_signature=signature,
            distillation_signature=system.distillation_signature,
            checkpoint_sha256=system.checkpoint_sha256,
            **self.sizes[system.identity.name],
        )


def fairseq_job(system: System, home: Path) -> Tuple[FairseqJob, int]:
    """Writes the checkpoint without the state of its optimizer, which translating does not need.

    Returns:
        The job, and the bytes of the checkpoint.
    """
    path, settings = home / "model.pt", system.settings
    checkpoint.write(path, {**system.checkpoint.state, "last_optimizer_state": None})
    job = FairseqJob(
        max_len_a=settings.max_len_a,
        max_len_b=settings.max_len_b,
        checkpoint=str(path),
        data=str(system.split.folder),
        split=system.split.name,
    )
    return job, path.stat().st_size


def ctranslate2_job(
    system: System, loaded: Loaded, compute_type: str, home: Path
) -> Tuple[CTranslate2Job, int]:
    """Converts the model, and writes the sources as symbols.

    Returns:
        The job, and the bytes of the converted model.
    """
    model, task, dataset = loaded
    dictionaries = (task.source_dictionary, task.target_dictionary)
    source, target = map(ctranslate2_model.id_names, dictionaries)
    files = ctranslate2_model.convert(model, source, target, quantization=compute_type)
    folder, sources, settings = home / compute_type, home / "sources.json", system.settings
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = (dataset.src[row].tolist() for row in range(len(dataset)))
    sources.write_text(json.dumps([[source[i] for i in row] for row in rows]))
    job = CTranslate2Job(
        max_len_a=settings.max_len_a,
        max_len_b=settings.max_len_b,
        lenpen=settings.lenpen,
        compute_type=int8_support.computed_as(compute_type),  # as `seqkd translate` does
        folder=str(folder),
        sources=str(sources),
        positions=int(model.max_positions()[1]),
    )
    return job, sum(map(len, files.values()))


def check_comparable(systems: Sequence[System]) -> None:
    """Checks that the systems translate the same sentences into the same language.

    Raises:
        Refusal: their words per second do not compare.
    """
    first = systems[0]
    for other in systems:
        if (other.data_sha256, other.settings) != (first.data_sha256, first.settings):
            raise Refusal(
                f"{other.identity} reads or writes other data than {first.identity}, so their "
                "speeds do not compare; bench them apart"
            )


def run(
    benchmark: Benchmark,
    rounds: int,
    report: Callable[[str], None],
    keep: Callable[[List[Speed]], None],
) -> None:
    """Measures all contenders in turn, several times.

    Args:
        benchmark: the contenders.
        rounds: how often each is measured.
        report: is told of every measurement.
        keep: is given the speeds so far after every round.
    """
    for number in range(rounds):
        for contender in benchmark.contenders:
            turn = benchmark.measure(contender)
            rate = benchmark.source_words / turn.seconds
            if number:
                turn.outputs = []  # those of the first round are enough
            contender.rounds.append(turn)
            text = f"round {number + 1}/{rounds}: {contender}: {rate:,.0f} {benchmark.counted}/s"
            report(text)
        keep([benchmark.summary(contender) for contender in benchmark.contenders])


def common_settings(settings: MeasurementSettings) -> MeasurementSettings:
    """Returns the settings without the tokens per batch: each engine has its own."""
    return msgspec.structs.replace(settings, max_tokens=None)


def versions(names: Sequence[str]) -> Dict[str, str]:
    """Returns the versions that the speeds depend on."""
    if all(name == FAIRSEQ for name in names):
        return software()
    import ctranslate2

    return {**software(), "ctranslate2": ctranslate2.__version__}


def counted(system: System) -> Counted:
    """Returns what of the sources is counted: CHARACTERS in a language without blanks, or WORDS."""
    language = system.split.languages.source
    return WORDS if tokenizer_for(language) == tokenizer_for(None) else CHARACTERS


def count(lines: Sequence[str], unit: str) -> int:
    """Counts the words or characters of text, at least one."""
    words = (word for line in lines for word in line.split())
    return max(sum(1 if unit == WORDS else len(word) for word in words), 1)
