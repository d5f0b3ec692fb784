"""What `teacher_decoding --score-reference` records: the teacher's distribution at every token of given targets."""

import logging

import numpy as np
import torch

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.distilled import Distilled
from fairseq_seqkd.corpus.distribution_store import (
    DistributionBlock,
    TokenDistributions,
    id_dtype,
    keys_of,
)
from fairseq_seqkd.corpus.plan import too_long
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.teacher import Teacher

logger = logging.getLogger(__name__)


class DistributionRecorder:
    """The recorder of distributions (see _work.py). The task gives it the models before the first batch."""

    def __init__(self, cfg, gold, dataset, settings, plan):
        self.gold, self.dataset, self.settings = gold, dataset, settings
        self.distilled = Distilled(cfg.distill_dir, settings, plan.parts, manifest.DISTRIBUTIONS)
        self.teacher = None
        self.k, self.dtype = settings["scoring"]["topk"], np.dtype(settings["scoring"]["dtype"])
        self.limits = settings["scoring"]["positions"]
        self.pad = (dataset.src_dict.pad(), dataset.tgt_dict.pad())
        self.found = {}  # sentence id -> its arrays, of the part at hand

    def use(self, models):
        self.teacher = Teacher(models)

    def lengths(self, first, last):
        return np.maximum(self.dataset.src_sizes[first:last], self.dataset.tgt_sizes[first:last])

    def fits(self, first, last):
        sizes = (self.dataset.src_sizes[first:last], self.dataset.tgt_sizes[first:last])
        return ~too_long(sizes, self.limits)

    def expected_bytes(self):
        tokens = int(np.asarray(self.dataset.tgt_sizes).sum(dtype=np.int64))
        id_size = id_dtype(len(self.dataset.tgt_dict)).itemsize
        return tokens * (
            self.k * (id_size + self.dtype.itemsize) + 2 * self.dtype.itemsize
        ) + 20 * len(self.dataset)

    def begin_part(self, first):
        self.found = {}

    @torch.no_grad()
    def record(self, sample):
        """Scores one batch, and keeps the distributions until the part is complete."""
        like = next(self.teacher.models[0].parameters())
        lprobs, target = self.teacher.log_probs(sample, like), sample["target"]
        top, ids = lprobs.topk(self.k, dim=-1)
        broken = sample["id"][(target.ne(self.pad[1]) & ~top.sum(-1).isfinite()).any(dim=1)]
        if len(broken):
            raise Refusal(
                f"the teacher's distributions on sentence {int(broken[0])} are no numbers; score in float32, without --fp16, or "
                "with another checkpoint"
            )
        probabilities = top.exp()
        rest = (
            (1 - probabilities.sum(-1)).clamp_(min=0.0)
            if self.k < lprobs.size(-1)
            else torch.zeros_like(top[..., 0])
        )
        arrays = {
            "ids": ids.cpu().numpy().astype(id_dtype(lprobs.size(-1))),
            "probabilities": probabilities.cpu().numpy().astype(self.dtype),
            "rest": rest.cpu().numpy().astype(self.dtype),
            "target_log_probs": lprobs.gather(-1, target.unsqueeze(-1))
            .squeeze(-1)
            .cpu()
            .numpy()
            .astype(self.dtype),
        }
        real = target.ne(self.pad[1]).cpu().numpy()
        keys = keys_of(
            sample["net_input"]["src_tokens"].cpu().numpy(), target.cpu().numpy(), self.pad
        )
        for row, sentence in enumerate(sample["id"].tolist()):
            mine = {key: array[row][real[row]] for key, array in arrays.items()}
            self.found[sentence] = {"keys": keys[row], "lengths": real[row].sum(), **mine}
        return real.sum(axis=1).tolist()

    def block(self, first, last):
        rows = [self.found[sentence] for sentence in range(first, last) if sentence in self.found]
        id_type = id_dtype(len(self.dataset.tgt_dict))
        columns = (
            ("ids", id_type, (0, self.k)),
            ("probabilities", self.dtype, (0, self.k)),
            ("rest", self.dtype, (0,)),
            ("target_log_probs", self.dtype, (0,)),
        )
        return DistributionBlock(
            keys=np.array([row["keys"] for row in rows], np.uint64),
            lengths=np.array([row["lengths"] for row in rows], np.int32),
            tokens=TokenDistributions(
                *(
                    np.concatenate([np.zeros(shape, dtype), *(row[key] for row in rows)])
                    for key, dtype, shape in columns
                )
            ),
        )

    def finish(self, store):
        """The manifest's counts and lists; says in the log what the k symbols cover."""
        self.gold.check_unchanged(self.distilled.folder)
        sentences = self.settings["data"]["sentences"]
        unread = np.flatnonzero(~self.fits(0, sentences)).astype(np.uint32)
        if len(unread):
            logger.warning(
                "%d sentences have more tokens than the teacher has positions (listed in the manifest)",
                len(unread),
            )
        tokens = store.tokens_stored
        covered = 1 - float(np.sum(store.per_token.tail, dtype=np.float64)) / max(tokens, 1)
        bytes_a_token = store.path.stat().st_size / max(tokens, 1)
        logger.info(
            "%s: %d tokens, the %d most probable symbols hold %.1f%% of the mass, %.1f bytes a token",
            self.distilled.folder, tokens, self.k, 100 * covered, bytes_a_token,
        )  # fmt: skip
        return {
            "counts": {"too_long": len(unread), "tokens": tokens},
            "listed": {"too_long": unread},
            "mass": round(covered, 6),
        }

    def finished(self):
        """Nothing more to say."""

    def close(self):
        """Nothing was opened."""
