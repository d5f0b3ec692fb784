"""A teacher whose distributions are stored, with the interface of teacher.Teacher.

A sentence's distributions are found by a hash of its source and target ids, because sample ids
start anew in every data directory, and in concatenated or repeated data. When the criterion is
built, stored_checks.py makes sure that the data are those that were scored.
"""

import logging
from typing import Any, Dict, Sequence, Tuple

import numpy as np
import torch
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from fairseq_seqkd.corpus.distribution_store import TokenDistributions, keys_of
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import stored_checks
from fairseq_seqkd.training.soft_targets import SPREAD, SoftTargets, top_k

logger = logging.getLogger(__name__)


class StoredTeacher:
    """Looks the distributions of a batch up.

    Args:
        folders: finished directories of distributions. Every sentence is in one of them.
        task: the student's, for whose data they are.
        tail: what becomes of the mass of the other symbols, see `soft_targets.top_k`.
        thorough: whether to read all files, the data included, and to compare their hashes. One of
            several processes does so.

    Raises:
        Refusal: a directory is not finished, or not of the student's data and dictionary.
    """

    def __init__(
        self,
        folders: Sequence[str],
        task: TranslationTask,
        tail: str = SPREAD,
        thorough: bool = True,
    ) -> None:
        self.task, self.tail = task, tail
        self.pad = (task.source_dictionary.pad(), task.target_dictionary.pad())
        scorings = stored_checks.check(folders, task, thorough)
        self.stores = [stored_checks.open_store(scoring, thorough) for scoring in scorings]
        for scoring in scorings:
            logger.info(
                "teacher's distributions: %s | %s", scoring.folder, scoring.manifest.signature
            )

    def soft_targets(
        self, sample: Dict[str, Any], target: Tensor, like: Tensor, temperature: float = 1.0
    ) -> Tuple[SoftTargets, Tensor]:
        """Looks up what a criterion learns from; see `teacher.Teacher.soft_targets`."""
        whole = sample["target"]
        k, shape = self.stores[0].k, whole.shape
        batch = TokenDistributions(
            ids=np.zeros((*shape, k), np.int64),
            probabilities=np.zeros((*shape, k), np.float32),
            tail=np.ones(shape, np.float32),  # of padding
            target_log_probs=np.zeros(shape, np.float32),
        )
        sources = sample["net_input"]["src_tokens"]
        if not self._fill(batch, sources.cpu().numpy(), whole.cpu().numpy()):
            self._check_is_of_validation(sample)
        first = shape[1] - target.size(1)  # the target may lack a prefix
        ids, probabilities, rest, lprobs = (
            torch.from_numpy(array[:, first:]).flatten(0, 1).to(like.device) for array in batch
        )
        vocabulary = len(self.task.target_dictionary)
        return top_k(ids, probabilities, rest, vocabulary, temperature, self.tail), lprobs

    def _fill(self, batch: TokenDistributions, sources: np.ndarray, targets: np.ndarray) -> bool:
        """Writes what is stored for a batch, and returns whether all of its sentences are stored.

        Args:
            batch: (sentences, length, ...) arrays to write to.
            sources, targets: (sentences, length) ids.
        """
        real = targets != self.pad[1]
        lengths, keys = real.sum(axis=1), keys_of(sources, targets, self.pad)
        missing = np.ones(len(keys), bool)
        for store in self.stores:
            first = store.find(keys, lengths)
            here = missing & (first >= 0)
            for array, values in zip(batch, store.tokens(first[here], lengths[here])):
                array[real & here[:, None]] = values
            missing &= ~here
        return not missing.any()

    def _check_is_of_validation(self, sample: Dict[str, Any]) -> None:
        """Checks that a batch that is not stored comes from another split than the training's.

        fairseq gives such a batch to a worker that has none left. Its loss is multiplied by 0.

        Raises:
            Refusal: it is a batch of the training.
        """
        training, ids = self.task.cfg.train_subset.split(","), sample["id"].tolist()
        targets = [row[row != self.pad[1]].cpu() for row in sample["target"]]
        for name, dataset in self.task.datasets.items():
            if name in training or dataset is None or max(ids) >= len(dataset):
                continue
            rows = (dataset[i]["target"] for i in ids)  # with --num-batch-buckets padded, too
            if all(torch.equal(a[a != self.pad[1]], b) for a, b in zip(rows, targets)):
                return
        raise Refusal(
            "sentences of a training batch are not among the stored distributions, although the "
            "files are those that were scored; train on the data as they are, without options that "
            "change sentences"
        )
