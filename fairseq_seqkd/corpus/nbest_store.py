"""The n-best store: every hypothesis of every sentence as token ids, with its scores.

While decoding, a part is one file under parts/; a finished directory has them all in one file, `hypotheses.safetensors`,
in the order of the sentences (array_files.py says in what format).

Arrays (H hypotheses of n sentences, best first as the teacher ranks them, the sentences in order):
    counts      (n,) uint16    hypotheses of each sentence; 0 where the source was too long to decode
    lengths     (H,) int32     tokens of each hypothesis, without the closing EOS
    tokens      (sum,) uint16 or uint32   the target dictionary's ids
    scores      (H,) float32   what the search ranks by: log-probability over length^lenpen
    log_probs   (H,) float32   sum of token log-probabilities, EOS included, in nats, as the search has them: options that shift
                               scores, such as --diverse-beam-strength, --unkpen and --lm-path, shift these too
    hit_limit   (H,) uint8     1 where the length limit ended the hypothesis
    similarity  (H,) float32   similarity to gold, larger is closer; absent for a split without targets
    consensus   (H,) float32   mean similarity to the others of the list; absent unless it was asked for (--select mbr)
A whole store also has `blocks` (parts + 1, 3) int64: sentences, hypotheses and tokens before each part, so that one
sentence is found without reading the others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from fairseq_seqkd.corpus import array_files
from fairseq_seqkd.errors import Refusal

NAME = "hypotheses.safetensors"
PER_HYPOTHESIS = {
    "lengths": np.int32,
    "scores": np.float32,
    "log_probs": np.float32,
    "hit_limit": np.uint8,
}
OPTIONAL = {"similarity": np.float32, "consensus": np.float32}


@dataclass
class Hypothesis:
    """One hypothesis of one sentence."""

    tokens: np.ndarray  # ids without the closing EOS
    score: float
    log_prob: float
    hit_limit: bool
    similarity: Optional[float] = None
    consensus: Optional[float] = None


class Block:
    """The n-best lists of consecutive sentences, as the arrays described above.

    `first` holds (sentences + 1,) numbers of hypotheses: of each sentence's first one, and how many there are.
    """

    def __init__(self, arrays):
        self.arrays = arrays
        self.counts = arrays["counts"]
        self.first = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        self._token = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])

    @classmethod
    def from_lists(cls, nbests, dtype, with_similarity, with_consensus=False):
        """nbests: for each sentence its list of Hypothesis, best first; dtype: of the token ids."""
        flat = [hypothesis for nbest in nbests for hypothesis in nbest]
        tokens = [hypothesis.tokens for hypothesis in flat]
        arrays = {
            "counts": np.array([len(nbest) for nbest in nbests], np.uint16),
            "lengths": np.array([len(t) for t in tokens], np.int32),
            "tokens": np.concatenate(tokens).astype(dtype) if tokens else np.zeros(0, dtype),
            "scores": np.array([h.score for h in flat], np.float32),
            "log_probs": np.array([h.log_prob for h in flat], np.float32),
            "hit_limit": np.array([h.hit_limit for h in flat], np.uint8),
        }
        for key, wanted in (("similarity", with_similarity), ("consensus", with_consensus)):
            if wanted:
                arrays[key] = np.array([getattr(h, key) for h in flat], OPTIONAL[key])
        return cls(arrays)

    def __len__(self):
        return len(self.counts)

    def nbest(self, i):
        """The list of Hypothesis of the i-th sentence of this block."""
        optional = [key for key in OPTIONAL if key in self.arrays]
        found = []
        for h in range(self.first[i], self.first[i + 1]):
            found.append(
                Hypothesis(
                    self.arrays["tokens"][self._token[h] : self._token[h + 1]],
                    float(self.arrays["scores"][h]),
                    float(self.arrays["log_probs"][h]),
                    bool(self.arrays["hit_limit"][h]),
                    **{key: float(self.arrays[key][h]) for key in optional},
                )
            )
        return found

    def picked(self, ranks):
        """The numbers, in this block, of the hypotheses of these (sentences,) ranks; -1 for none of a sentence."""
        rows = np.flatnonzero(ranks >= 0)
        return self.first[rows] + ranks[rows]

    def tokens_of(self, numbers):
        """(tokens, lengths) of the hypotheses of these numbers, one after the other, without EOS."""
        lengths = self.arrays["lengths"][numbers].astype(np.int64)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.arrays["tokens"][np.repeat(self._token[numbers], lengths) + within], lengths

    def check(self, path):
        """Refuses arrays that do not fit together: a damaged file, or one that is not ours."""
        arrays, n_hypotheses = self.arrays, int(self.counts.sum(dtype=np.int64))
        sound = (
            all(
                len(arrays[key]) == n_hypotheses
                for key in (*PER_HYPOTHESIS, *OPTIONAL)
                if key in arrays
            )
            and (n_hypotheses == 0 or int(arrays["lengths"].min()) >= 0)
            and len(arrays["tokens"]) == int(arrays["lengths"].sum(dtype=np.int64))
        )
        if not sound:
            raise Refusal(
                f"{path} is damaged: its arrays do not fit together; remove it and decode again"
            )


def write_part(path, block):
    """Writes a part, whole or not at all."""
    array_files.write(path, block.arrays)


def read_part(path):
    """The Block in a part. Raises Refusal for a file that is damaged."""
    found = array_files.read(path)
    if not {"counts", "tokens", *PER_HYPOTHESIS} <= set(found) or any(
        a.ndim != 1 for a in found.values()
    ):
        raise Refusal(
            f"{path} is not a part of an n-best store; remove it and run the command again"
        )
    block = Block(found)
    block.check(path)
    return block


def merge(part_paths, out):
    """Writes one store from parts in order; memory is that of one part. Afterwards they may be removed."""
    blocks, shapes = np.zeros((len(part_paths) + 1, 3), np.int64), {}
    for i, path in enumerate(part_paths):
        block = read_part(path)
        mine = (len(block), int(block.counts.sum(dtype=np.int64)), len(block.arrays["tokens"]))
        blocks[i + 1] = blocks[i] + mine
        shapes = shapes or array_files.layout(block.arrays)
        if shapes != array_files.layout(block.arrays):
            raise Refusal(
                f"{path} holds other arrays than the parts before it; remove it and run the command again"
            )
    sentences, hypotheses, tokens = (int(total) for total in blocks[-1])
    lengths = {**{key: hypotheses for key in shapes}, "counts": sentences, "tokens": tokens}
    array_files.join(part_paths, out, lengths, shapes, computed={"blocks": blocks})


class Hypotheses:
    """A finished store, memory-mapped: `store[i]` is the n-best list of sentence i, `store.blocks()` streams it all."""

    def __init__(self, folder):
        self.path = Path(folder) / NAME
        if not self.path.is_file():
            raise Refusal(f"there is no {self.path}; decode the split to its end first")
        self._arrays = array_files.mapped(self.path, "decode the split again")
        self._bounds = self._arrays.pop("blocks", np.zeros(0, np.int64))
        if (
            not {"counts", "tokens", *PER_HYPOTHESIS} <= set(self._arrays)
            or self._bounds.ndim != 2
            or not len(self._bounds)
        ):
            raise Refusal(f"{self.path} is not an n-best store; decode the split again")
        self._recent = (None, None)

    def __len__(self):
        return int(self._bounds[-1, 0])

    @property
    def has_similarity(self):
        return "similarity" in self._arrays

    def block(self, b):
        """The Block of the b-th part."""
        if self._recent[0] != b:
            (s0, h0, t0), (s1, h1, t1) = self._bounds[b], self._bounds[b + 1]
            ranges = {"counts": (s0, s1), "tokens": (t0, t1)}
            found = {}
            for key, array in self._arrays.items():
                first, last = ranges.get(key, (h0, h1))
                found[key] = np.array(array[first:last])  # read, so that the pages need not stay
            block = Block(found)
            block.check(self.path)
            self._recent = (b, block)
        return self._recent[1]

    def blocks(self):
        """Yields (id of the first sentence, Block), in order."""
        for b in range(len(self._bounds) - 1):
            yield int(self._bounds[b, 0]), self.block(b)

    def __getitem__(self, sentence):
        if not 0 <= sentence < len(self):
            raise IndexError(sentence)
        b = int(np.searchsorted(self._bounds[:, 0], sentence, side="right")) - 1
        return self.block(b).nbest(sentence - int(self._bounds[b, 0]))


def opened(folder):
    """The finished store of a folder."""
    return Hypotheses(folder)
