"""The paper's Figure 2 for chosen sentences: a beam by log-probability and similarity to gold."""

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus import inspection
from fairseq_seqkd.corpus.databin import Split, load_dictionary
from fairseq_seqkd.corpus.detokenise import Detokeniser, guess_post_process
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.corpus.settings import DecodeSettings, SimilaritySettings
from fairseq_seqkd.report.records import Beam, BeamPoint
from fairseq_seqkd.selection.choose import closest, nearest_to_gold

if TYPE_CHECKING:
    from fairseq.data import Dictionary

MOST_GAIN, EVENLY_SPREAD = 8, 12  # numbers of sentences
SHORTEST = 4  # source tokens


def choose_sentences(store: NBestStore, source_sizes: np.ndarray) -> List[int]:
    """Chooses sentences: those in which Seq-Inter's target gains most, and an even spread.

    Args:
        store: the n-best lists.
        source_sizes: the number of source tokens of each sentence, EOS included.
    """
    gains = np.zeros(len(store), np.float32)
    for first, block in store.blocks():
        similarity, listed = np.asarray(block.similarity), np.flatnonzero(block.counts)
        chosen = similarity[block.picked(nearest_to_gold(block))]
        gains[first + listed] = chosen - similarity[block.first[listed]]
    usable = np.flatnonzero(source_sizes > SHORTEST)
    most = usable[np.argsort(-gains[usable], kind="stable")[:MOST_GAIN]]
    positions = np.linspace(0, max(len(usable) - 1, 0), min(EVENLY_SPREAD, len(usable)))
    return sorted({*most.tolist(), *usable[positions.astype(int)].tolist()})


def post_processes(
    similarity: SimilaritySettings, dictionaries: "Sequence[Dictionary]"
) -> Tuple[Optional[str], Optional[str]]:
    """Returns how the subwords of source and target are joined: as in the decode.

    The decode's setting is that of the target. If it is what the target's dictionary suggests, the
    source's dictionary decides about the source. Else the user gave it, for both sides. Beside a
    --bpe, which is not at hand, the dictionaries decide.
    """
    source, target = (guess_post_process(dictionary) for dictionary in dictionaries)
    if similarity.bpe or similarity.post_process == target:
        return source, target
    return similarity.post_process, similarity.post_process


def read_beams(folder: Union[str, Path], settings: DecodeSettings, gold: Split) -> List[Beam]:
    """Reads the beams of chosen sentences.

    Args:
        folder: a finished distilled directory with similarity to gold.
        settings: those of its decode.
        gold: the split that was decoded.
    """
    store = NBestStore(folder)
    if not store.has_similarity or settings.similarity is None:
        return []
    dictionaries = [load_dictionary(file) for file in gold.dictionaries]
    source_text, target_text = map(
        Detokeniser, dictionaries, post_processes(settings.similarity, dictionaries)
    )
    source, target = (gold.read(language) for language in gold.languages)
    beams = []
    for sentence in choose_sentences(store, np.asarray(source.sizes)):
        nbest = store[sentence]
        if len(nbest) < 2:
            continue
        is_mode = settings.select == "mode"
        beams.append(
            Beam(
                id=sentence,
                source=source_text(source[sentence]),
                gold=target_text(target[sentence]),
                seq_kd=0 if is_mode else closest(np.array([h.consensus for h in nbest])),
                seq_inter=closest(np.array([h.similarity for h in nbest])),
                hypotheses=[BeamPoint(*h) for h in inspection.as_text(nbest, target_text)],
            )
        )
    return beams
