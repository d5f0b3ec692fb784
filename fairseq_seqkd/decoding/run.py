"""One run of fairseq-generate under the task `teacher_decoding`, which delegates to it.

fairseq-generate calls the task in a fixed order. Each call brings what the next step needs: the
options and dictionaries, the dataset, the models, and last --bpe and --tokenizer.
"""

import logging
from typing import Any, Dict, List, Optional, Sequence, Union

from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.models import FairseqModel
from torch import Tensor

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair, Split, further_splits
from fairseq_seqkd.corpus.distilled import check_disk_space
from fairseq_seqkd.decoding.distribution_recorder import DistributionRecorder
from fairseq_seqkd.decoding.multilingual import teacher_languages
from fairseq_seqkd.decoding.nbest_recorder import NBestRecorder
from fairseq_seqkd.decoding.parts import FairseqBatches, PartLoop
from fairseq_seqkd.decoding.rank import worker_rank
from fairseq_seqkd.decoding.search import build_engine
from fairseq_seqkd.decoding.settings import (
    BatchLimits,
    DecodeInputs,
    TextDecoders,
    decoding_settings,
    scoring_settings,
)
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.training.teacher import Teacher
from fairseq_seqkd.training.teacher_checks import check_better_than_guessing, check_teacher

logger = logging.getLogger(__name__)


class DecodeRun:
    """Decodes one split with one teacher, or scores its targets (--score-reference).

    Each checkpoint is read once, here. fairseq-generate loads the models itself.

    Args:
        cfg: the task's configuration, checked by checks.check_options.
        dictionaries: source and target dictionary of the data-bin.

    Attributes:
        dictionaries: source and target dictionary of the teacher; a multilingual one has more
            symbols than the data-bin.
        text: fairseq's --bpe and --tokenizer, set when fairseq-generate has built them.
        recorder, loop: what works on the batches, and what hands them out; set by `batches`.

    Raises:
        Refusal: the data lack a side, or the teacher was not trained for them.
    """

    recorder: Union[NBestRecorder, DistributionRecorder]
    loop: PartLoop

    def __init__(self, cfg: Any, dictionaries: Sequence[Dictionary]) -> None:
        self.cfg, self.dictionaries, self.text = cfg, dictionaries, TextDecoders()
        self.scores_targets = bool(cfg.generation.score_reference)
        pair = LanguagePair(cfg.source_lang, cfg.target_lang)
        self.gold = Split(utils.split_paths(cfg.data)[0], cfg.dataset.gen_subset, pair)
        if not self.gold.has(pair.target) and (
            self.scores_targets or cfg.generation.prefix_size > 0
        ):
            option = "--score-reference" if self.scores_targets else "--prefix-size"
            raise Refusal(
                f"{option} needs the targets, but split {self.gold.name!r} has none; leave it out, "
                "or binarise both sides"
            )
        teacher = [Checkpoint(p, role="teacher") for p in utils.split_paths(cfg.common_eval.path)]
        self.languages = None if self.scores_targets else teacher_languages(cfg, teacher)
        if self.languages:
            self.dictionaries = self.languages.dictionaries
        else:
            for checkpoint in teacher:
                checkpoint.check_known("model")
                checkpoint.check_embeddings(cfg.common_eval.model_overrides)
                check_teacher(checkpoint, pair, dictionaries)
        source, target = self.dictionaries
        self.gold.check_symbols((len(source), len(target)))
        self.teacher_sha256 = [checkpoint.sha256 for checkpoint in teacher]
        if not self.scores_targets:
            warn_of_further_splits(self.gold)
            warn_of_single_hypotheses(cfg, self.gold)

    def as_searched(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Returns a split as the teacher reads it: a multilingual one reads language tokens."""
        return self.languages.for_search(dataset) if self.languages else dataset

    def batches(self, dataset: LanguagePairDataset, limits: BatchLimits) -> FairseqBatches:
        """Returns the batches of the plan that are left.

        Args:
            dataset: the split, as returned by `as_searched`.
            limits: of a batch, and of what task and teacher can read.

        Raises:
            Refusal: the directory was begun with other settings.
        """
        inputs = DecodeInputs(self.cfg, self.gold, dataset, self.teacher_sha256)
        if self.scores_targets:
            scoring, plan = scoring_settings(inputs, limits)
            self.recorder = DistributionRecorder(inputs, scoring, plan)
        else:
            settings, plan = decoding_settings(inputs, limits)
            if self.languages:
                settings.teacher.languages = self.languages.describe()
            self.recorder = NBestRecorder(inputs, settings, plan, self.text)
        self.loop = PartLoop(self.recorder, plan, worker_rank(self.cfg.distributed_training))
        return FairseqBatches(self.loop, dataset)

    def check_before_work(self, models: Sequence[FairseqModel]) -> None:
        """Checks, if a part is left, that the teacher knows the data and that the disk has room.

        Raises:
            Refusal: the teacher is no better than guessing, or the disk is too small.
        """
        if not self.loop.remaining:
            return
        dataset = self.recorder.dataset
        if self.languages:
            dataset = self.languages.as_trained(dataset)
        path, target = self.cfg.common_eval.path, self.dictionaries[1]
        check_better_than_guessing(Teacher(models), dataset, target, path)
        expected = self.recorder.expected_bytes()
        check_disk_space("--distill-dir", self.cfg.distill_dir, expected)

    def generator_options(self) -> Dict[str, Any]:
        """Returns what a multilingual teacher's generator is built with, besides its options."""
        return self.languages.generator_options() if self.languages else {}

    def begin(self, models: Sequence[FairseqModel], generator: Any) -> None:
        """Gives the recorder the models and fairseq's generator, and creates the directory."""
        if not self.loop.remaining:
            return
        if isinstance(self.recorder, NBestRecorder):
            engine = build_engine(self.recorder.inputs, models, generator, self.languages)
            self.recorder.search_with(engine)
        else:
            self.recorder.score_with(Teacher(models))
        self.loop.begin()

    def record(self, sample: Dict[str, Any], prefix_tokens: Optional[Tensor] = None) -> List[int]:
        """Works on a batch, and returns the number of tokens written for each of its sentences.

        Raises:
            Refusal: the GPU has too little memory, or the teacher computes NaN.
        """
        try:
            return self.recorder.record(sample, prefix_tokens)
        except BaseException as error:
            self.recorder.close()
            # The words of torch and of CTranslate2.
            if isinstance(error, RuntimeError) and "out of memory" in str(error):
                raise Refusal(
                    f"the GPU has too little memory for a batch of {sample['ntokens']:,} tokens "
                    f"({first_line(error)}); pass a smaller --max-tokens and another "
                    "--distill-dir, because a directory keeps the batches that it was begun with"
                ) from error
            raise


def warn_of_further_splits(gold: Split) -> None:
    """Warns of train1, train2, ..., which fairseq-train joins with train: a view has one split."""
    names = further_splits(gold.folder, gold.name, gold.languages)
    if names and not gold.name.startswith(("valid", "test")):
        logger.warning(
            "%s also holds %s, which fairseq-train joins with %s, but only %s is decoded; to "
            "decode all of it, join the texts before fairseq-preprocess",
            gold.folder, ", ".join(names), gold.name, gold.name,
        )  # fmt: skip


def warn_of_single_hypotheses(cfg: Any, gold: Split) -> None:
    """Warns of n-best lists of one, fairseq's default: seq_inter has nothing to choose from."""
    if cfg.generation.nbest == 1 and gold.has(gold.languages.target):
        logger.warning(
            "with --nbest 1, the default, seq_inter gets the targets of seq_kd; for Seq-Inter "
            "pass --nbest %d",
            max(cfg.generation.beam, 2),
        )
