"""Task `teacher_decoding`: the teacher's beam search over a whole split, written as data that a student trains on.

    fairseq-generate data-bin --user-dir fairseq_seqkd --task teacher_decoding --path teacher.pt \\
        --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

It is the stock translation task under fairseq-generate, with two differences: batches come from a plan of our own, part
by part, and what the search finds is recorded as token ids instead of being printed.
"""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import torch
from fairseq import utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd import engines, languages, scoring, teachers
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.engines.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.tasks._options import TeacherDecodingConfig, check_options
from fairseq_seqkd.tasks._recorder import Recorder
from fairseq_seqkd.tasks._settings import decoding_settings, precision, uses_gpu


@register_task("teacher_decoding", dataclass=TeacherDecodingConfig)
class TeacherDecodingTask(TranslationTask):
    """The translation task, for fairseq-generate alone. Students train under the stock `translation` task."""

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Refuses what cannot work before anything is loaded, then sets up as the translation task does."""
        stop_cleanly_on_interrupt()
        check_options(cfg)
        torch.set_num_threads(1)  # the last bits of a score depend on the number of threads
        if uses_gpu(cfg):
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        task = super().setup_task(cfg, **kwargs)
        task.gold = Split(utils.split_paths(cfg.data)[0], cfg.dataset.gen_subset, cfg.source_lang, cfg.target_lang)
        if cfg.generation.prefix_size > 0 and not task.gold.files(cfg.target_lang):
            raise Refusal(f"--prefix-size takes the beginning of the targets, but split {task.gold.name!r} has none")
        task.languages = multilingual(cfg)
        if task.languages:
            task.src_dict, task.tgt_dict = task.languages.source_dictionary, task.languages.target_dictionary
        else:
            for path in utils.split_paths(cfg.common_eval.path):
                teachers.check_checkpoint(path, task.src_dict, task.tgt_dict, (cfg.source_lang, cfg.target_lang))
        return task

    def load_dataset(self, split, *args, **kwargs):
        super().load_dataset(split, *args, **kwargs)
        if self.languages:
            self.datasets[split] = self.languages.for_search(self.datasets[split])

    def get_batch_iterator(self, dataset, max_tokens=None, max_sentences=None, max_positions=None, **ignored):
        """fairseq-generate's batches, from the plan. What fairseq would shuffle, filter or drop stays."""
        settings, plan = decoding_settings(self.cfg, self.gold, dataset, max_tokens, max_sentences, max_positions)
        if self.languages:
            settings["teacher"]["languages"] = self.languages.describe()
        self.recorder = Recorder(self.cfg, self.gold, dataset, settings, plan, worker_rank(self.cfg.distributed_training))
        return self.recorder

    def build_generator(self, models, args, **kwargs):
        """fairseq's generator, after the last looks before the work: does this teacher know the data, is there room."""
        if self.recorder.remaining:
            dataset = self.dataset(self.cfg.dataset.gen_subset)
            seen = self.languages.as_trained(dataset) if self.languages else dataset
            teachers.check_better_than_guessing(teachers.Teacher(models), seen, self.tgt_dict, self.cfg.common_eval.path)
            check_disk_space(self.cfg.distill_dir, dataset, self.cfg.generation.nbest)
        if self.languages:
            kwargs["extra_gen_cls_kwargs"] = {**(kwargs.get("extra_gen_cls_kwargs") or {}), **self.languages.generator_options()}
        generator = super().build_generator(models, args, **kwargs)
        if self.recorder.remaining:
            self.recorder.engine = self._engine(models, generator)
            self.recorder.begin()
        return generator

    def _engine(self, models, generator):
        """What runs the search, compared with the teacher where it is not fairseq itself."""
        if self.cfg.engine == engines.FAIRSEQ:
            engine = FairseqEngine(generator, models, self.cfg.generation.nbest, self.tgt_dict.eos())
        else:
            engine = self._ctranslate2(models)
        return languages.MultilingualEngine(engine, self.languages) if self.languages else engine

    def _ctranslate2(self, models):
        on_gpu = uses_gpu(self.cfg)
        engine = CTranslate2Engine(
            models,
            self.src_dict,
            self.tgt_dict,
            self.cfg.generation,
            precision(self.cfg),
            "cuda" if on_gpu else "cpu",
            torch.cuda.current_device() if on_gpu else 0,
            self.languages.foreign if self.languages else (),
        )
        dataset = self.dataset(self.cfg.dataset.gen_subset)
        sample = self.recorder.sample(teachers.readable(teachers.Teacher(models), dataset, teachers.PROBE_BATCH))
        engine.verify(sample, **(self.languages.forced(sample) if self.languages else {}))
        return engine

    def build_bpe(self, args):
        bpe = super().build_bpe(args)
        self.recorder.use_bpe(bpe)
        return bpe

    def build_tokenizer(self, args):
        tokenizer = super().build_tokenizer(args)
        self.recorder.use_tokenizer(tokenizer)
        return tokenizer

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        """Searches and records a batch, then empties it, so that fairseq-generate makes no text of it."""
        try:
            nbests = self.recorder.search(sample, prefix_tokens=prefix_tokens, constraints=constraints)
        except BaseException:
            self.recorder.close()
            raise
        sample["id"] = sample["id"][:0]
        return [[{"tokens": nbest[0].tokens}] for nbest in nbests if nbest]  # fairseq-generate counts them


def multilingual(cfg):
    """The language tokens of a multilingual teacher for the data's languages; None for a teacher of one pair."""
    pair = (cfg.teacher_source_lang or cfg.source_lang, cfg.teacher_target_lang or cfg.target_lang)
    dictionaries = [str(Path(utils.split_paths(cfg.data)[0]) / f"dict.{lang}.txt") for lang in (cfg.source_lang, cfg.target_lang)]
    paths = utils.split_paths(cfg.common_eval.path)
    found = languages.of_teacher(paths, pair, dictionaries, cfg.common_eval.model_overrides)
    if found and found.replacing and cfg.engine != engines.FAIRSEQ:
        raise Refusal("engine ctranslate2 begins with EOS, this teacher with a language token instead; use --engine fairseq")
    if found and cfg.generation.prefix_size > 0:
        raise Refusal("--prefix-size takes the place of the token with which a multilingual teacher begins; leave it out")
    if not found and (cfg.teacher_source_lang or cfg.teacher_target_lang):
        raise Refusal(
            f"--teacher-source-lang and --teacher-target-lang are for multilingual teachers, {':'.join(paths)} is none; "
            "leave them out"
        )
    return found


def check_disk_space(folder, dataset, nbest):
    """Refuses to begin when the disk cannot hold the result, by a careful estimate (parts and store exist side by side)."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    source_tokens = int(np.asarray(dataset.src_sizes).sum(dtype=np.int64))
    per_hypothesis = 4 * source_tokens / max(len(dataset), 1) + 21
    needed = int(2 * nbest * len(dataset) * per_hypothesis + 2 * (4 * 2 * source_tokens + 24 * len(dataset)))
    needed -= sum(part.stat().st_size for part in Path(folder).glob("parts/*.part"))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise Refusal(
            f"the disk of --distill-dir {folder} has {free / 1e6:,.0f} MB free, decoding needs about {needed / 1e6:,.0f} MB; "
            "free some space, lower --nbest, or name a directory elsewhere"
        )


def worker_rank(distributed):
    """(rank, size) from fairseq-generate's options, torchrun's environment or SLURM's. It only says where to begin."""
    if distributed.distributed_world_size > 1:
        return distributed.distributed_rank, distributed.distributed_world_size
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if int(os.environ.get(size, 1)) > 1:
            return int(os.environ.get(rank, 0)), int(os.environ[size])
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0))
        return int(os.environ["SLURM_ARRAY_TASK_ID"]) - first, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", 1))
    return 0, 1


def local_rank():
    """Which of this machine's workers this is, for the choice of a GPU."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


def stop_cleanly_on_interrupt():
    """Ctrl-C ends with one sentence instead of a traceback. Committed parts are safe at any moment."""

    def stop(signum, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        scoring.stop_workers()
        print("fairseq_seqkd: interrupted; finished parts are safe, run the same command again to continue", flush=True)
        raise SystemExit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
