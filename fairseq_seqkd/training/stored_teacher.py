"""A teacher that has said everything already: stored distributions behind the interface of teachers.Teacher.

A sentence's distributions are found by a hash of its source and target ids, because a sample id counts anew in every
data directory and through concatenated or repeated data. That the data are those that were scored is made sure of when
the criterion is built, file by file.
"""

import logging

import numpy as np
import torch
from fairseq import utils
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import LanguagePair, training_splits
from fairseq_seqkd.corpus.distribution_store import DistributionStore, TokenDistributions, keys_of
from fairseq_seqkd.corpus.plan import too_long
from fairseq_seqkd.corpus.stores import check_store
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training.soft_targets import SPREAD, top_k

logger = logging.getLogger(__name__)


class StoredTeacher:
    """Args:
    folders: finished directories of distributions; every sentence of the data is found in one of them.
    task: the student's, whose data they are for.
    tail: what becomes of the mass of the other symbols, see divergences.top_k.
    thorough: read every byte, of the data too, and compare hashes; of many processes one does so.
    """

    def __init__(self, folders, task, tail=SPREAD, thorough=True):
        self.task, self.tail = task, tail
        facts = [check_finished(folder) for folder in folders]
        check_task(task)
        check_alike(folders, facts)
        check_vocabulary(folders, facts, task)
        if thorough:
            check_data(folders, facts, task)
        self.stores = [open_store(folder, found, thorough) for folder, found in zip(folders, facts)]
        self.pad = (task.source_dictionary.pad(), task.target_dictionary.pad())
        for folder, found in zip(folders, facts):
            logger.info("teacher's distributions: %s | %s", folder, found.signature)

    def soft_targets(self, sample, target, like, temperature=1.0):
        """As of teachers.Teacher: (TopK of batch * length rows, (batch * length,) log-probabilities of the target)."""
        whole = sample["target"]
        k, shape = self.stores[0].k, whole.shape
        found = TokenDistributions(
            ids=np.zeros((*shape, k), np.int64),
            probabilities=np.zeros((*shape, k), np.float32),
            tail=np.ones(shape, np.float32),  # of padding
            target_log_probs=np.zeros(shape, np.float32),
        )
        self._look_up(
            sample["net_input"]["src_tokens"].cpu().numpy(), whole.cpu().numpy(), found, sample
        )
        first = shape[1] - target.size(1)  # the target may lack a prefix
        ids, probabilities, rest, lprobs = (
            torch.from_numpy(array[:, first:]).flatten(0, 1).to(like.device) for array in found
        )
        return top_k(
            ids, probabilities, rest, len(self.task.target_dictionary), temperature, self.tail
        ), lprobs

    def _look_up(self, sources, targets, found, sample):
        """Writes what is stored for the tokens of a batch into the arrays of `found`."""
        real = targets != self.pad[1]
        lengths, keys = real.sum(axis=1), keys_of(sources, targets, self.pad)
        missing = np.ones(len(keys), bool)
        for store in self.stores:
            first = store.find(keys, lengths)
            here = missing & (first >= 0)
            for array, values in zip(found, store.tokens(first[here], lengths[here])):
                array[real & here[:, None]] = values
            missing &= ~here
        if missing.any() and not self._is_of_validation(sample):
            raise Refusal(
                f"{int(missing.sum())} sentences of a training batch are not among the stored distributions, although the "
                "files are those that were scored; train on the data as they are, without options that change sentences"
            )

    def _is_of_validation(self, sample):
        """Whether this is the batch that fairseq gives a worker that has none left: it counts for nothing (times 0).

        It may come from the validation split, whose sentences are not stored.
        """
        training = self.task.cfg.train_subset.split(",")
        for name, dataset in self.task.datasets.items():
            ids = sample["id"].tolist()
            if name in training or dataset is None or max(ids) >= len(dataset):
                continue
            theirs = [dataset[i]["target"] for i in ids]  # with --num-batch-buckets padded, too
            rows = [row[row != self.pad[1]].cpu() for row in sample["target"]]
            if all(torch.equal(a[a != self.pad[1]], b) for a, b in zip(theirs, rows)):
                return True
        return False


def check_finished(folder):
    """The manifest of a finished directory of distributions. Refuses anything else."""
    found = manifest.read(folder)
    if not isinstance(found, manifest.DistributionsManifest):
        raise Refusal(
            f"--teacher-distributions {folder} holds no distributions; make them with fairseq-generate --task teacher_decoding "
            "--score-reference --topk 8 --distill-dir DIR, and name that directory"
        )
    if not found.complete or found.counts is None:
        raise Refusal(
            f"--teacher-distributions {folder} is not finished; run the fairseq-generate command that makes it again: it "
            "continues"
        )
    return found


def open_store(folder, found, thorough):
    """The store of a directory, which must be the one that its manifest speaks of."""
    store, settings = DistributionStore(folder), found.settings
    expected = (settings.scoring.topk, settings.stored_sentences, found.counts.tokens)
    if (store.k, len(store), store.tokens_stored) != expected:
        raise Refusal(
            f"{store.path} is not the file that its manifest speaks of; copy the whole directory again"
        )
    if thorough:
        check_store(folder, found)
    return store


def check_task(task):
    """Refuses tasks and options that change sentences between the disk and the batch."""
    if type(task) is not TranslationTask:
        raise Refusal(
            f"--teacher-distributions is for the task translation, which leaves sentences as they are on disk; with "
            f"{type(task).__name__} use --teacher-path"
        )
    if task.cfg.truncate_source:
        raise Refusal(
            "--truncate-source changes the sources, and stored distributions are of the whole ones; leave it out"
        )


def check_alike(folders, facts):
    """Refuses several directories that are not of one teacher and of one kind."""
    names = ":".join(map(str, folders))
    for what, of in (
        ("teacher", lambda found: found.settings.teacher),
        ("number of symbols", lambda found: found.settings.scoring.topk),
    ):
        if any(of(found) != of(facts[0]) for found in facts):
            raise Refusal(
                f"the distributions in {names} differ in their {what}; several directories are several splits (train, train1) "
                "scored alike, and an ensemble is scored as one: --path a.pt:b.pt"
            )


def check_vocabulary(folders, facts, task):
    for folder, found in zip(folders, facts):
        if found.settings.scoring.vocabulary != len(task.target_dictionary):
            raise Refusal(
                f"{folder} is of a vocabulary of {found.settings.scoring.vocabulary:,} symbols, the student's has "
                f"{len(task.target_dictionary):,}; score with the student's dictionaries"
            )


def check_data(folders, facts, task):
    """Refuses distributions of other data than the student's, and data that are not wholly scored. Reads all of the data.

    Args: folders, facts: the directories and their manifests; task: the student's.
    """
    cfg, used = task.cfg, set()
    scored = [found.settings.data.hashes for found in facts]
    for data in utils.split_paths(cfg.data):
        for split in training_splits(
            data, cfg.train_subset.split(",")[0], LanguagePair(cfg.source_lang, cfg.target_lang)
        ):
            matching = [i for i, hashes in enumerate(scored) if hashes == split.hashes]
            if not matching:
                raise Refusal(
                    f"split {split.name!r} of {data} is not what the distributions in {':'.join(map(str, folders))} were made "
                    f"of ({why_not(split.hashes, scored)}); score it, and name its directory too, separated by a colon"
                )
            if len(matching) > 1:
                names = " and ".join(str(folders[i]) for i in matching)
                raise Refusal(
                    f"{names} are both of split {split.name!r} of {data}; name one of them"
                )
            used.update(matching)
            check_lengths(folders[matching[0]], facts[matching[0]].settings.scoring, split, task)
    for i in set(range(len(folders))) - used:
        raise Refusal(f"{folders[i]} is of no split that the student is trained on; leave it out")


def why_not(own, scored):
    """What the nearest of the scored splits differs in, in words."""
    names = ("sources", "targets", "dictionaries")
    others = [[name for name, a, b in zip(names, own, hashes) if a != b] for hashes in scored]
    return f"other {' and '.join(min(others, key=len))}"


def check_lengths(folder, scoring, split, task):
    """Refuses sentences that the student's task admits and the teacher could not read."""
    if not scoring.too_long:
        return
    sides = zip(("source", "target"), split.languages)
    for (side, lang), limit, allowed in zip(sides, scoring.positions, task.max_positions()):
        rows = split.read(lang)  # whose sizes are unmapped with it
        sizes = rows.sizes
        if (too_long([sizes], [limit]) & ~too_long([sizes], [allowed])).any():
            raise Refusal(
                f"{folder} lacks training sentences of more than {limit:,} {side} tokens, which its teacher cannot read; pass "
                f"--max-{side}-positions {limit} --skip-invalid-size-inputs-valid-test"
            )
