"""Records the teacher's distributions at every token of given targets (--score-reference)."""

import logging
from typing import Dict, List, NamedTuple, Optional

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.distribution_store import (
    DistributionBlock,
    DistributionStore,
    TokenDistributions,
    id_dtype,
    keys_of,
)
from fairseq_seqkd.corpus.manifest import DistributionsManifest, TokenCounts
from fairseq_seqkd.corpus.plan import Plan, too_long
from fairseq_seqkd.corpus.settings import ScoreSettings
from fairseq_seqkd.decoding.parts import PartRecorder
from fairseq_seqkd.decoding.settings import DecodeInputs
from fairseq_seqkd.engines import Sample
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.teacher import Teacher

logger = logging.getLogger(__name__)


class ScoredSentence(NamedTuple):
    """What is stored of one sentence: its key, see keys_of, and its tokens' distributions."""

    key: np.uint64
    tokens: TokenDistributions


class DistributionRecorder(PartRecorder):
    """Records distributions at given targets (--score-reference).

    Args:
        inputs: the options, and the dataset whose targets are scored.
        settings: of the scoring, as the manifest holds them.
        plan: of the parts.
    """

    teacher: Teacher

    def __init__(self, inputs: DecodeInputs, settings: ScoreSettings, plan: Plan) -> None:
        self.inputs, self.settings, self.dataset = inputs, settings, inputs.dataset
        self.distilled = Distilled(inputs.cfg.distill_dir, settings, plan.parts)
        scoring = settings.scoring
        self.k, self.dtype = scoring.topk, np.dtype(scoring.dtype)
        self.sizes = [self.dataset.src_sizes, self.dataset.tgt_sizes]
        self.limits = scoring.positions
        self.id_dtype = id_dtype(len(self.dataset.tgt_dict))
        self.rows: Dict[int, ScoredSentence] = {}  # of the current part, by sentence id

    def score_with(self, teacher: Teacher) -> None:
        """Sets the teacher; called once, before the first part."""
        self.teacher = teacher

    def expected_bytes(self) -> float:
        """Returns the size of the store."""
        tokens = int(np.asarray(self.dataset.tgt_sizes).sum(dtype=np.int64))
        per_symbol = self.id_dtype.itemsize + self.dtype.itemsize
        per_token = self.k * per_symbol + 2 * self.dtype.itemsize
        return tokens * per_token + 20 * len(self.dataset)

    def begin_part(self, first: int) -> None:
        """Begins a part."""
        self.rows = {}

    @torch.no_grad()
    def record(self, sample: Sample, prefix_tokens: Optional[Tensor] = None) -> List[int]:
        """Scores a batch, and keeps its distributions until the part is complete.

        Raises:
            Refusal: a distribution is NaN.
        """
        like = next(self.teacher.models[0].parameters())
        lprobs, target = self.teacher.log_probs(sample, like), sample["target"]
        pads = (self.dataset.src_dict.pad(), self.dataset.tgt_dict.pad())
        top, ids = lprobs.topk(self.k, dim=-1)
        is_token = target.ne(pads[1])
        broken = sample["id"][(is_token & ~top.sum(-1).isfinite()).any(dim=1)]
        if len(broken):
            raise Refusal(
                f"the teacher's distributions on sentence {int(broken[0])} are NaN; score in "
                "float32, without --fp16, or with another checkpoint"
            )
        probabilities = top.exp()
        tail = (1 - probabilities.sum(-1)).clamp_(min=0.0)
        if self.k == lprobs.size(-1):
            tail.zero_()
        target_lprobs = lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        arrays = [ids.cpu().numpy().astype(self.id_dtype)]
        for values in (probabilities, tail, target_lprobs):
            arrays.append(values.cpu().numpy().astype(self.dtype))
        source = sample["net_input"]["src_tokens"].cpu().numpy()
        keys = keys_of(source, target.cpu().numpy(), pads)
        mask = is_token.cpu().numpy()
        for row, sentence in enumerate(sample["id"].tolist()):
            tokens = TokenDistributions(*(array[row][mask[row]] for array in arrays))
            self.rows[sentence] = ScoredSentence(keys[row], tokens)
        return mask.sum(axis=1).tolist()

    def block(self, first: int, last: int) -> DistributionBlock:
        """Returns the distributions of those of sentences first..last-1 that were scored."""
        rows = [self.rows[sentence] for sentence in range(first, last) if sentence in self.rows]
        columns = zip(self._no_tokens(), *(row.tokens for row in rows))
        return DistributionBlock(
            keys=np.array([row.key for row in rows], np.uint64),
            lengths=np.array([len(row.tokens.ids) for row in rows], np.int32),
            tokens=TokenDistributions(*(np.concatenate(column) for column in columns)),
        )

    def _no_tokens(self) -> TokenDistributions:
        """Returns arrays of no token, so that a part without a sentence has the right types."""
        return TokenDistributions(
            ids=np.zeros((0, self.k), self.id_dtype),
            probabilities=np.zeros((0, self.k), self.dtype),
            tail=np.zeros(0, self.dtype),
            target_log_probs=np.zeros(0, self.dtype),
        )

    def finish(
        self, store: DistributionStore, content: DistributionsManifest
    ) -> DistributionsManifest:
        """Adds counts and lists to the manifest, and logs what the k symbols cover."""
        folder = self.distilled.folder
        self.inputs.gold.check_unchanged(folder)
        unread = np.flatnonzero(too_long(self.sizes, self.limits)).astype(np.uint32)
        if len(unread):
            logger.warning(
                "%d sentences have more tokens than the teacher has positions (listed in the "
                "manifest)", len(unread),
            )  # fmt: skip
        tokens = store.tokens_stored
        mass = 1 - float(np.sum(store.per_token.tail, dtype=np.float64)) / max(tokens, 1)
        logger.info(
            "%s: %d tokens, the %d most probable symbols hold %.1f%% of the mass, "
            "%.1f bytes per token",
            folder, tokens, self.k, 100 * mass, store.path.stat().st_size / max(tokens, 1),
        )  # fmt: skip
        return replace(
            content,
            counts=TokenCounts(tokens, len(unread)),
            listed={"too_long": unread},
            mass=round(mass, 6),
        )
