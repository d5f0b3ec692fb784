"""One measurement of `seqkd bench`: python -m fairseq_seqkd.evaluation.speed_worker JOB OUT

The search alone is timed, from batches of ids to ids, after a batch that does not count. Loading is
not timed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, List, Sequence, Union

import msgspec

from fairseq_seqkd.engines import by_length
from fairseq_seqkd.engines.length_limit import LengthLimit

UNKNOWN_ID = 3  # the only special symbol that a search gives


class Job(msgspec.Struct, kw_only=True):
    """What a process measures."""

    max_len_a: float
    max_len_b: int
    compute_type: str = "float32"
    beam: int = 1
    batch_tokens: int = 0


class FairseqJob(Job, tag=True, kw_only=True):
    """A search by fairseq."""

    checkpoint: str
    data: str
    split: str


class CTranslate2Job(Job, tag=True, kw_only=True):
    """A search by CTranslate2 over symbols that are ids. It imports neither fairseq nor torch."""

    folder: str
    sources: str  # a file: the symbols of every sentence, as JSON
    positions: int  # of the decoder
    lenpen: float


class Round(msgspec.Struct):
    """The outcome of one process."""

    seconds: float
    peak_memory_mb: float
    outputs: List[List[int]]  # ids of every sentence, without EOS


def with_fairseq(job: FairseqJob) -> Round:
    """Translates with fairseq's search."""
    import torch

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.evaluation import measure, systems

    fairseq_seqkd.register()
    torch.set_num_threads(1)
    options = systems.Options(job.split, job.max_len_a, job.max_len_b)
    system = systems.prepare(Checkpoint(job.checkpoint), job.data, options)
    loaded = systems.load_with_split(system)
    loaded.model.make_generation_fast_(need_attn=False)
    batches = measure.plan_batches(loaded.dataset.src_sizes, job.batch_tokens)
    cpu = torch.device("cpu")
    searched = measure.search(loaded, batches, batches[-1], job.beam, system.settings, cpu)
    outputs = [hypothesis.tokens.tolist() for hypothesis in searched.hypotheses]
    return Round(searched.seconds, peak_memory_mb(), outputs)


def with_ctranslate2(job: CTranslate2Job) -> Round:
    """Translates with CTranslate2."""
    import ctranslate2

    sources = json.loads(Path(job.sources).read_text())
    translator = ctranslate2.Translator(
        job.folder,
        device="cpu",
        inter_threads=1,
        intra_threads=1,
        compute_type=job.compute_type,
    )
    batches = list(by_length([len(source) for source in sources], job.batch_tokens))
    limit = LengthLimit(job.max_len_a, job.max_len_b, job.positions - 1)

    def search(batch: Sequence[int]) -> Any:
        return translator.translate_batch(
            [sources[i] for i in batch],
            beam_size=job.beam,
            length_penalty=job.lenpen,
            max_decoding_length=limit.of(max(len(sources[i]) for i in batch)),
            max_input_length=0,
        )

    search(batches[-1])
    outputs: List[List[str]] = [[]] * len(sources)
    begun = time.perf_counter()
    for batch in batches:
        for i, result in zip(batch, search(batch)):
            outputs[i] = result.hypotheses[0]
    seconds = time.perf_counter() - begun
    ids = [[int(symbol) if symbol.isdigit() else UNKNOWN_ID for symbol in row] for row in outputs]
    return Round(seconds, peak_memory_mb(), ids)


def peak_memory_mb() -> float:
    """Returns the largest resident memory of this program.

    getrusage would count that of its parent, from before exec.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def main(text: str, out: str) -> None:
    """Does a job, and writes its Round."""
    job = msgspec.json.decode(text, type=Union[FairseqJob, CTranslate2Job])
    result = with_fairseq(job) if isinstance(job, FairseqJob) else with_ctranslate2(job)
    Path(out).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
