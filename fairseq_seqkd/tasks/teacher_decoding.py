"""Task `teacher_decoding`: the teacher's beam search over a whole split, written as data that a student trains on.

    fairseq-generate data-bin --user-dir fairseq_seqkd --task teacher_decoding --path teacher.pt \\
        --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

Or, with `--score-reference --topk 8`, its distributions at every token of the targets that are there.

It is the stock translation task under fairseq-generate, with two differences: batches come from a plan of our own, part
by part, and what is found is recorded as numbers instead of being printed.
"""

import argparse
import logging
import os
from pathlib import Path

import torch
from fairseq import utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd import compat, engines, interrupts
from fairseq_seqkd.corpus import databin
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.distilled import check_disk_space
from fairseq_seqkd.decoding import multilingual as languages
from fairseq_seqkd.decoding.config import TeacherDecodingConfig, check_options
from fairseq_seqkd.decoding.distribution_recorder import DistributionRecorder
from fairseq_seqkd.decoding.nbest_recorder import Recorder
from fairseq_seqkd.decoding.parts import Work
from fairseq_seqkd.decoding.settings import decoding_settings, precision, scoring_settings, uses_gpu
from fairseq_seqkd.engines.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.engines.ctranslate2_model import INSTEAD
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.selection import pool as scoring
from fairseq_seqkd.training import teacher as teachers

logger = logging.getLogger(__name__)


@register_task("teacher_decoding", dataclass=TeacherDecodingConfig)
class TeacherDecodingTask(TranslationTask):
    """The translation task, for fairseq-generate alone. Students train under the stock `translation` task."""

    @classmethod
    def add_args(cls, parser):
        """Of a command line, or of a group in fairseq's documentation, which it makes whenever it imports a task.

        Where no teacher could be loaded this is the moment to say so: fairseq 0.12.2 would not get through these options.
        """
        if isinstance(parser, argparse.ArgumentParser):
            compat.check_torch()
        super().add_args(parser)

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Refuses what cannot work before anything is loaded, then sets up as the translation task does."""
        interrupts.end_with(
            "finished parts are safe, run the same command again to continue",
            before=scoring.stop_workers,
        )
        check_options(cfg)
        torch.set_num_threads(1)  # the last bits of a score depend on the number of threads
        if uses_gpu(cfg):
            torch.cuda.set_device(local_rank(cfg.distributed_training) % torch.cuda.device_count())
        task = super().setup_task(cfg, **kwargs)
        pair = LanguagePair(cfg.source_lang, cfg.target_lang)
        task.gold = Split(utils.split_paths(cfg.data)[0], cfg.dataset.gen_subset, pair)
        task.scores = bool(cfg.generation.score_reference)
        for option, used in (
            ("--prefix-size", cfg.generation.prefix_size > 0),
            ("--score-reference", task.scores),
        ):
            if used and not task.gold.has(cfg.target_lang):
                raise Refusal(f"{option} needs the targets, but split {task.gold.name!r} has none")
        if not task.scores:
            warn_of_further(task.gold)
            warn_of_single_hypotheses(cfg, task.gold)
        task.languages = None if task.scores else multilingual(cfg)
        if task.languages:
            task.src_dict, task.tgt_dict = (
                task.languages.source_dictionary,
                task.languages.target_dictionary,
            )
        else:
            for path in utils.split_paths(cfg.common_eval.path):
                overrides = cfg.common_eval.model_overrides
                teachers.check_checkpoint(
                    path, task.src_dict, task.tgt_dict, pair, overrides=overrides
                )
        task.gold.check_symbols((len(task.src_dict), len(task.tgt_dict)))
        return task

    @classmethod
    def load_dictionary(cls, filename):
        return databin.load_dictionary(filename)

    def load_dataset(self, split, *args, **kwargs):
        super().load_dataset(split, *args, **kwargs)
        if self.languages:
            self.datasets[split] = self.languages.for_search(self.datasets[split])

    def get_batch_iterator(
        self, dataset, max_tokens=None, max_sentences=None, max_positions=None, **ignored
    ):
        """fairseq-generate's batches, from the plan. What fairseq would shuffle, filter or drop stays."""
        limits = (max_tokens, max_sentences, max_positions)
        if self.scores:
            settings, plan = scoring_settings(self.cfg, self.gold, dataset, *limits)
            self.recorder = DistributionRecorder(self.cfg, self.gold, dataset, settings, plan)
        else:
            settings, plan = decoding_settings(self.cfg, self.gold, dataset, *limits)
            if self.languages:
                settings["teacher"]["languages"] = self.languages.describe()
            self.recorder = Recorder(self.cfg, self.gold, dataset, settings, plan)
        self.work = Work(self.recorder, dataset, plan, worker_rank(self.cfg.distributed_training))
        return self.work

    def build_generator(self, models, args, **kwargs):
        """fairseq's generator, after the last looks before the work: does this teacher know the data, is there room."""
        dataset = self.dataset(self.cfg.dataset.gen_subset)
        if self.work.remaining:
            seen = self.languages.as_trained(dataset) if self.languages else dataset
            teachers.check_better_than_guessing(
                teachers.Teacher(models), seen, self.tgt_dict, self.cfg.common_eval.path
            )
            check_disk_space("--distill-dir", self.cfg.distill_dir, self.recorder.expected_bytes())
        if self.languages:
            kwargs["extra_gen_cls_kwargs"] = {
                **(kwargs.get("extra_gen_cls_kwargs") or {}),
                **self.languages.generator_options(),
            }
        try:
            generator = super().build_generator(models, args, **kwargs)
        except (AssertionError, ValueError) as error:  # options that exclude each other
            raise Refusal(
                f"fairseq cannot search with these options: {first_line(error)}"
            ) from error
        if self.work.remaining:
            if self.scores:
                self.recorder.use(models)
            else:
                self.recorder.engine = self._engine(models, generator)
            self.work.begin()
        return generator

    def _engine(self, models, generator):
        """What runs the search, compared with the teacher where it is not fairseq itself."""
        engine = FairseqEngine(generator, models, self.cfg.generation.nbest, self.tgt_dict.eos())
        if self.cfg.engine == engines.CTRANSLATE2:
            engine = self._ctranslate2(models, engine)
        return languages.MultilingualEngine(engine, self.languages) if self.languages else engine

    def _ctranslate2(self, models, fairseq_engine):
        on_gpu = uses_gpu(self.cfg)
        engine = CTranslate2Engine(
            models,
            self.src_dict,
            self.tgt_dict,
            self.cfg.generation,
            fairseq_engine,
            precision(self.cfg),
            "cuda" if on_gpu else "cpu",
            torch.cuda.current_device() if on_gpu else 0,
            self.languages.foreign if self.languages else (),
        )
        dataset = self.dataset(self.cfg.dataset.gen_subset)
        probed = teachers.readable(teachers.Teacher(models), dataset, teachers.PROBE_BATCH)
        if not probed:
            return engine  # nothing will be searched
        sample = self.work.sample(probed)
        if on_gpu:
            sample = utils.move_to_cuda(
                sample
            )  # as fairseq-generate does: empty sources are fairseq's to search
        try:
            engine.verify(sample, **(self.languages.forced(sample) if self.languages else {}))
        except (
            RuntimeError,
            ValueError,
        ) as error:  # such as a CUDA library that CTranslate2 wants in another version
            raise Refusal(
                f"engine ctranslate2 cannot search here ({first_line(error)}); {INSTEAD}"
            ) from error
        return engine

    def build_bpe(self, args):
        bpe = super().build_bpe(args)
        self.recorder.bpe = bpe
        return bpe

    def build_tokenizer(self, args):
        tokenizer = super().build_tokenizer(args)
        self.recorder.tokenizer = tokenizer
        return tokenizer

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        """Works on a batch and records it, then empties it, so that fairseq-generate makes no text of it."""
        try:
            made = self.recorder.record(
                sample, **({} if prefix_tokens is None else {"prefix_tokens": prefix_tokens})
            )
        except BaseException as error:
            self.work.close()
            if isinstance(error, RuntimeError) and "out of memory" in str(
                error
            ):  # torch's and CTranslate2's words
                raise Refusal(
                    f"the GPU has too little memory for a batch of {sample['ntokens']:,} tokens ({first_line(error)}); pass a "
                    "smaller --max-tokens, and another --distill-dir, since batches are part of what a folder was begun with"
                ) from error
            raise
        sample["id"] = sample["id"][:0]
        return [[{"tokens": range(tokens)}] for tokens in made]  # fairseq-generate counts them


def warn_of_further(gold):
    """Says that fairseq-train would take train1 along with train, where it is there: a view has one split."""
    if gold.name.startswith(("valid", "test")):
        return
    further = [
        split.name for split in databin.training_splits(gold.folder, gold.name, gold.languages)[1:]
    ]
    if further:
        logger.warning(
            "%s holds %s too, which fairseq-train puts together with %s, and which is not decoded here; for all of it join the "
            "texts before fairseq-preprocess",
            gold.folder,
            ", ".join(further),
            gold.name,
        )


def warn_of_single_hypotheses(cfg, gold):
    """Says that there is nothing for Seq-Inter to choose from: fairseq's default keeps one hypothesis, however wide the beam."""
    if cfg.generation.nbest == 1 and gold.has(gold.languages.target):
        logger.warning(
            "with --nbest 1, which is the default, seq_inter gets the targets of seq_kd; for Seq-Inter pass --nbest %d",
            max(cfg.generation.beam, 2),
        )


def multilingual(cfg):
    """The language tokens of a multilingual teacher for the data's languages; None for a teacher of one pair."""
    pair = LanguagePair(
        cfg.teacher_source_lang or cfg.source_lang, cfg.teacher_target_lang or cfg.target_lang
    )
    dictionaries = [
        str(Path(utils.split_paths(cfg.data)[0]) / f"dict.{lang}.txt")
        for lang in (cfg.source_lang, cfg.target_lang)
    ]
    paths = utils.split_paths(cfg.common_eval.path)
    found = languages.of_teacher(paths, pair, dictionaries, cfg.common_eval.model_overrides)
    if found and found.replacing and cfg.engine != engines.FAIRSEQ:
        raise Refusal(
            "engine ctranslate2 begins with EOS, this teacher with a language token instead; use --engine fairseq"
        )
    if found and cfg.generation.prefix_size > 0:
        raise Refusal(
            "--prefix-size takes the place of the token with which a multilingual teacher begins; leave it out"
        )
    if not found and (cfg.teacher_source_lang or cfg.teacher_target_lang):
        raise Refusal(
            f"--teacher-source-lang and --teacher-target-lang are for multilingual teachers, {':'.join(paths)} is none; "
            "leave them out"
        )
    return found


def worker_rank(distributed):
    """(rank, size) from fairseq-generate's options, torchrun's environment or SLURM's. It only says where to begin."""
    told = distributed.distributed_rank, distributed.distributed_world_size
    if (
        told[0] > 0
    ):  # of rank 0 it may be fairseq's default, whose world has as many as there are GPUs
        return told
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if int(os.environ.get(size, 1)) > 1:
            return int(os.environ.get(rank, 0)), int(os.environ[size])
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0))
        return int(os.environ["SLURM_ARRAY_TASK_ID"]) - first, int(
            os.environ.get("SLURM_ARRAY_TASK_COUNT", 1)
        )
    return told


def local_rank(distributed):
    """Which of this machine's workers this is, for the choice of a GPU."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID") if distributed.distributed_rank <= 0 else ():
        if name in os.environ:
            return int(os.environ[name])
    return worker_rank(distributed)[0]
