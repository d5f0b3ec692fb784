"""Task `teacher_decoding`: the teacher's beam search over a whole split, written as data that a student trains on.

    fairseq-generate data-bin --user-dir fairseq_seqkd --task teacher_decoding --path teacher.pt \\
        --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

It is the stock translation task under fairseq-generate, with two differences: batches come from a plan of our own, part
by part, and what the search finds is recorded as token ids instead of being printed.
"""

import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_seqkd import selection, teachers
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.tasks._recorder import Recorder
from fairseq_seqkd.tasks._settings import decoding_settings


@dataclass
class TeacherDecodingConfig(TranslationConfig):
    distill_dir: Optional[str] = field(
        default=None, metadata={"help": "directory for the n-best lists and the data-bins seq_kd/ and seq_inter/"}
    )
    similarity: ChoiceEnum(selection.METRICS) = field(
        default="bleu", metadata={"help": "similarity to gold by which seq_inter chooses from the n-best list"}
    )
    similarity_tokenizer: Optional[str] = field(
        default=None, metadata={"help": "sacrebleu's tokenizer for --similarity bleu (default: by the target language)"}
    )
    part_size: int = field(
        default=0,
        metadata={"help": "sentences that are committed at a time (default: 1/64 of the split, but 1024 to 4096)"},
    )
    # What fairseq-generate was told elsewhere, read by interpolation; these declare no options.
    generation: Any = II("generation")
    common_eval: Any = II("common_eval")
    common: Any = II("common")
    dataset: Any = II("dataset")
    distributed_training: Any = II("distributed_training")
    bpe_config: Any = II("bpe")
    tokenizer_config: Any = II("tokenizer")


@register_task("teacher_decoding", dataclass=TeacherDecodingConfig)
class TeacherDecodingTask(TranslationTask):
    """The translation task, for fairseq-generate alone. Students train under the stock `translation` task."""

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Refuses what cannot work before anything is loaded, then sets up as the translation task does."""
        stop_cleanly_on_interrupt()
        check_options(cfg)
        torch.set_num_threads(1)  # the last bits of a score depend on the number of threads
        if torch.cuda.is_available() and not cfg.common.cpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        task = super().setup_task(cfg, **kwargs)
        task.gold = Split(utils.split_paths(cfg.data)[0], cfg.dataset.gen_subset, cfg.source_lang, cfg.target_lang)
        for path in utils.split_paths(cfg.common_eval.path):
            teachers.check_checkpoint(path, task.src_dict, task.tgt_dict, (cfg.source_lang, cfg.target_lang))
        return task

    def get_batch_iterator(self, dataset, max_tokens=None, max_sentences=None, max_positions=None, **ignored):
        """fairseq-generate's batches, from the plan. What fairseq would shuffle, filter or drop stays."""
        settings, plan = decoding_settings(self.cfg, self.gold, dataset, max_tokens, max_sentences, max_positions)
        check_disk_space(self.cfg.distill_dir, dataset, settings["search"]["nbest"])
        self.recorder = Recorder(self.cfg, self.gold, dataset, settings, plan, worker_rank(self.cfg.distributed_training))
        return self.recorder

    def build_generator(self, models, args, **kwargs):
        """fairseq's generator, after a look whether this teacher knows the data at all."""
        if self.cfg.generation.constraints is None and self.recorder.remaining:
            teacher = teachers.Teacher(models)
            teachers.check_better_than_guessing(
                teacher, self.dataset(self.cfg.dataset.gen_subset), self.tgt_dict, self.cfg.common_eval.path
            )
        return super().build_generator(models, args, **kwargs)

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
        nbests = self.recorder.search(generator, models, sample, prefix_tokens=prefix_tokens, constraints=constraints)
        sample["id"] = sample["id"][:0]
        return [[{"tokens": nbest[0].tokens}] for nbest in nbests if nbest]  # fairseq-generate counts them


def check_options(cfg):
    """Refuses contradictions among options with a sentence each, before the teacher is loaded."""
    search, data = cfg.generation, utils.split_paths(cfg.data or "")
    if not cfg.distill_dir:
        raise Refusal("--distill-dir is missing: it says where the teacher's translations go")
    if search.nbest < 1 or search.beam < 1:
        raise Refusal(f"--nbest {search.nbest} and --beam {search.beam} must be at least 1")
    if search.nbest > search.beam:
        raise Refusal(f"--nbest {search.nbest} asks for more hypotheses than --beam {search.beam} finds; raise --beam")
    if len(data) != 1:
        raise Refusal("name one data directory: fairseq-generate reads the first of several only; decode them in turn")
    if not Path(data[0]).is_dir():
        raise Refusal(f"the data directory {data[0]} does not exist")
    if search.score_reference:
        raise Refusal("--score-reference scores targets that are given; this task searches for new ones")
    if search.replace_unk is not None:
        raise Refusal("--replace-unk makes words that are in no dictionary; pseudo-targets are made of the dictionary's ids")
    if cfg.common_eval.path is None:
        raise Refusal("--path is missing: it names the teacher's checkpoint")
    if cfg.part_size < 0:
        raise Refusal(f"--part-size is {cfg.part_size}, it must be a number of sentences")
    if not (search.temperature > 0):
        raise Refusal(f"--temperature is {search.temperature}, it must be positive")


def check_disk_space(folder, dataset, nbest):
    """Refuses to begin when the disk cannot hold the result, by a careful estimate (parts and store exist side by side)."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    source_tokens = int(np.asarray(dataset.src_sizes).sum(dtype=np.int64))
    per_hypothesis = 4 * source_tokens / max(len(dataset), 1) + 17
    needed = int(2 * nbest * len(dataset) * per_hypothesis + 2 * (4 * 2 * source_tokens + 24 * len(dataset)))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise Refusal(
            f"the disk of --distill-dir {folder} has {free / 1e6:,.0f} MB free, decoding needs about {needed / 1e6:,.0f} MB; "
            "free some space, lower --nbest, or name a directory elsewhere"
        )


def worker_rank(distributed):
    """(rank, size) from fairseq-generate's options, else from torchrun's environment. It only says where to begin."""
    if distributed.distributed_world_size > 1:
        return distributed.distributed_rank, distributed.distributed_world_size
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def stop_cleanly_on_interrupt():
    """Ctrl-C ends with one sentence instead of a traceback. Committed parts are safe at any moment."""

    def stop(signum, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("fairseq_seqkd: interrupted; finished parts are safe, run the same command again to continue", flush=True)
        raise SystemExit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
