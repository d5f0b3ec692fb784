"""One measurement of `seqkd bench`, in a process of its own: python -m fairseq_seqkd.evaluation.speed_worker JOB OUT

Timed is the search alone, from batches of ids to ids, after a batch that nobody counts; loading is not.
"""

import json
import sys
import time
from pathlib import Path

from fairseq_seqkd.engines import by_length
from fairseq_seqkd.engines.length_limit import LengthLimit

UNKNOWN_ID = 3  # the only special symbol that a search gives


def main(job, out):
    outputs, seconds = (with_fairseq if job["kind"] == "fairseq" else with_ctranslate2)(job)
    found = {"seconds": seconds, "peak_memory_mb": peak_memory_mb(), "outputs": outputs}
    Path(out).write_text(json.dumps(found))


def with_fairseq(job):
    """(ids of every sentence without EOS, seconds) with fairseq's search."""
    import torch

    import fairseq_seqkd
    from fairseq_seqkd.checkpoint import Checkpoint
    from fairseq_seqkd.evaluation import measure, systems

    fairseq_seqkd.register()
    torch.set_num_threads(1)
    limits = {key: job[key] for key in ("max_len_a", "max_len_b")}
    system = systems.prepare(Checkpoint(job["checkpoint"]), job["data"], job["split"], **limits)
    model, task = systems.load(system)
    dataset = systems.load_split(system, task)
    model.make_generation_fast_(need_attn=False)
    batches = measure.plan_batches(dataset.src_sizes, job["batch_tokens"])
    settings = {**limits, "lenpen": job["lenpen"]}
    found, seconds = measure.search(
        task, model, dataset, batches, torch.device("cpu"), job["beam"], settings
    )
    return [h.tokens.tolist() for h in found], seconds


def with_ctranslate2(job):
    """The same with CTranslate2; a vocabulary of ids makes its symbols ids."""
    import ctranslate2

    sources = json.loads(Path(job["sources"]).read_text())
    how = {"inter_threads": 1, "intra_threads": 1, "compute_type": job["compute_type"]}
    translator = ctranslate2.Translator(job["folder"], device="cpu", **how)
    batches, found = (
        list(by_length([len(source) for source in sources], job["batch_tokens"])),
        [None] * len(sources),
    )
    limit = LengthLimit(job["max_len_a"], job["max_len_b"], job["positions"] - 1)

    def search(batch):
        return translator.translate_batch(
            [sources[i] for i in batch],
            beam_size=job["beam"],
            length_penalty=job["lenpen"],
            max_decoding_length=limit.of(max(len(sources[i]) for i in batch)),
            max_input_length=0,
        )

    search(batches[-1])
    seconds = -time.perf_counter()
    for batch in batches:
        for i, result in zip(batch, search(batch)):
            found[i] = result.hypotheses[0]
    seconds += time.perf_counter()
    return [
        [int(symbol) if symbol.isdigit() else UNKNOWN_ID for symbol in row] for row in found
    ], seconds


def peak_memory_mb():
    """The largest resident memory that this program has had; getrusage would count its parent's, from before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
