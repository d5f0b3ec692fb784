"""The paper's Figure 2 for sentences of one's own: the teacher's beam as points, log-probability against similarity to gold."""

import numpy as np

from fairseq_seqkd.corpus import inspection
from fairseq_seqkd.corpus.databin import load_dictionary
from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.selection.choose import closest, nearest_to_gold

TELLING, SPREAD = 8, 12  # sentences in which the choice gains most, and others, evenly spread
SHORTEST = 4  # source tokens


def pick(store, source_sizes):
    """Sentence ids, in order: those in which the hypothesis closest to gold beats the favourite most, and an even spread."""
    gains = np.zeros(len(store), np.float32)
    for first, block in store.blocks():
        values, listed = block.similarity, np.flatnonzero(block.counts)
        gains[first + listed] = (
            values[block.picked(nearest_to_gold(block))] - values[block.first[listed]]
        )
    usable = np.flatnonzero(source_sizes - 1 >= SHORTEST)
    telling = usable[np.argsort(-gains[usable], kind="stable")[:TELLING]]
    spread = (
        usable[np.linspace(0, len(usable) - 1, min(SPREAD, len(usable))).astype(int)]
        if len(usable)
        else usable
    )
    return sorted(set(telling.tolist()) | set(spread.tolist()))


def of_directory(folder, select, gold):
    """[{"id", "source", "gold", "seq_kd", "seq_inter", "hypotheses": inspection.as_text}] for JSON.

    seq_kd and seq_inter are ranks, from 0: what they learn; the mode is 0. log_prob is of the whole hypothesis, in nats.

    Args: folder: a finished distilled directory; select: "mode" or "mbr", by which seq_kd was taken; gold: the
    databin.Split that was decoded.
    """
    store = NBestStore(folder)
    if not store.has_similarity:
        return []
    dictionaries = [load_dictionary(file) for file in gold.dictionaries]
    source_text, target_text = (Detokeniser(d, resolve_post_process(None, d)) for d in dictionaries)
    source, target = (gold.read(lang) for lang in gold.languages)
    found = []
    for sentence in pick(store, np.asarray(source.sizes)):
        nbest = store[sentence]
        if len(nbest) > 1:
            found.append(
                {
                    "id": sentence,
                    "source": source_text(source[sentence]),
                    "gold": target_text(target[sentence]),
                    "seq_kd": 0 if select == "mode" else closest([h.consensus for h in nbest]),
                    "seq_inter": closest([h.similarity for h in nbest]),
                    "hypotheses": [h._asdict() for h in inspection.as_text(nbest, target_text)],
                }
            )
    return found
