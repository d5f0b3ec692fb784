"""Task `teacher_decoding`: the teacher's beam search over a whole split, written as data that a student trains on.

    fairseq-generate data-bin --user-dir fairseq_seqkd --task teacher_decoding --path teacher.pt \\
        --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

It is the stock translation task under fairseq-generate, with two differences: batches come from a plan of our own, part
by part, and what the search finds is recorded as token ids instead of being printed.
"""

import math
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

from fairseq_seqkd import scoring, selection, teachers
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
        default="bleu", metadata={"help": "similarity to gold by which seq_inter chooses from the n-best list, and --select mbr"}
    )
    similarity_tokenizer: Optional[str] = field(
        default=None, metadata={"help": "sacrebleu's tokenizer for --similarity bleu (default: by the target language)"}
    )
    similarity_workers: int = field(
        default=0,
        metadata={"help": "processes that compute similarity while the search goes on (0: this one); changes no result"},
    )
    select: ChoiceEnum(selection.SELECTIONS) = field(
        default="mode",
        metadata={
            "help": "what seq_kd takes from the n-best list: the teacher's favourite (mode), or the hypothesis most similar "
            "to the others by --similarity (mbr), which costs n * (n - 1) similarities a sentence for n different "
            "hypotheses: little by bleu, many times as much by chrf and ter; see --similarity-workers"
        },
    )
    filter_length_ratio: Optional[float] = field(
        default=None,
        metadata={"help": "leave out of a view what has more than so many times as many tokens on one side as on the other"},
    )
    filter_copy: Optional[float] = field(
        default=None,
        metadata={"help": "leave out targets that share at least this part of their tokens (above 0, up to 1) with the source"},
    )
    filter_repeats: Optional[int] = field(
        default=None,
        metadata={"help": "leave out targets in which 1 to 4 tokens stand so many times (2 or more) in immediate succession"},
    )
    filter_score: Optional[float] = field(
        default=None,
        metadata={"help": "leave out targets whose log-probability per token, EOS counted, is below so many nats, as -2.5"},
    )
    filter_empty: bool = field(default=False, metadata={"help": "leave out empty targets"})
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
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        task = super().setup_task(cfg, **kwargs)
        task.gold = Split(utils.split_paths(cfg.data)[0], cfg.dataset.gen_subset, cfg.source_lang, cfg.target_lang)
        if cfg.generation.prefix_size > 0 and not task.gold.files(cfg.target_lang):
            raise Refusal(f"--prefix-size takes the beginning of the targets, but split {task.gold.name!r} has none")
        for path in utils.split_paths(cfg.common_eval.path):
            teachers.check_checkpoint(path, task.src_dict, task.tgt_dict, (cfg.source_lang, cfg.target_lang))
        return task

    def get_batch_iterator(self, dataset, max_tokens=None, max_sentences=None, max_positions=None, **ignored):
        """fairseq-generate's batches, from the plan. What fairseq would shuffle, filter or drop stays."""
        settings, plan = decoding_settings(self.cfg, self.gold, dataset, max_tokens, max_sentences, max_positions)
        self.recorder = Recorder(self.cfg, self.gold, dataset, settings, plan, worker_rank(self.cfg.distributed_training))
        return self.recorder

    def build_generator(self, models, args, **kwargs):
        """fairseq's generator, after the last looks before the work: does this teacher know the data, is there room."""
        if self.recorder.remaining:
            dataset = self.dataset(self.cfg.dataset.gen_subset)
            teachers.check_better_than_guessing(teachers.Teacher(models), dataset, self.tgt_dict, self.cfg.common_eval.path)
            check_disk_space(self.cfg.distill_dir, dataset, self.cfg.generation.nbest)
            self.recorder.begin()
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
        try:
            nbests = self.recorder.search(generator, models, sample, prefix_tokens=prefix_tokens, constraints=constraints)
        except BaseException:
            self.recorder.close()
            raise
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
    if search.constraints is not None:
        raise Refusal("--constraints needs constraints in the source text, which a binarised split has not")
    if cfg.truncate_source or cfg.num_batch_buckets:
        raise Refusal("--truncate-source and --num-batch-buckets change the sources; a student is trained on them as they are")
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        raise Refusal("--fp16 is for GPUs; leave it out on a CPU")
    check_tokenizer(str(cfg.similarity), cfg.similarity_tokenizer)
    if cfg.similarity_workers < 0:
        raise Refusal(f"--similarity-workers is {cfg.similarity_workers}, it must be a number of processes, or 0")
    if str(cfg.select) == "mbr" and search.nbest < 2:
        raise Refusal("--select mbr compares the hypotheses of a list with each other: --nbest must be at least 2")
    check_filters(cfg)
    if cfg.part_size < 0:
        raise Refusal(f"--part-size is {cfg.part_size}, it must be a number of sentences")
    if not (search.temperature > 0):
        raise Refusal(f"--temperature is {search.temperature}, it must be positive")


def check_filters(cfg):
    """Refuses limits that would leave out everything or nothing, or that are no numbers."""
    sound = {
        "length_ratio": ("a number above 1", lambda value: 1 < value < math.inf),
        "copy": ("a share above 0 and up to 1", lambda value: 0 < value <= 1),
        "repeats": ("2 or more", lambda value: value >= 2),
        "score": ("a log-probability below 0, such as -2.5", lambda value: -math.inf < value < 0),
    }
    for name, (wanted, test) in sound.items():
        value = getattr(cfg, f"filter_{name}")
        if value is not None and not test(value):
            raise Refusal(f"--filter-{name.replace('_', '-')} is {value}, it must be {wanted}")


def check_tokenizer(similarity, tokenizer):
    """Refuses a tokenizer that sacrebleu does not have, and one for a metric that takes none."""
    from sacrebleu.metrics import BLEU

    if tokenizer is None:
        return
    if similarity != "bleu":
        raise Refusal(f"--similarity-tokenizer is for --similarity bleu; {similarity} takes none")
    if tokenizer not in BLEU.TOKENIZERS:
        raise Refusal(f"--similarity-tokenizer {tokenizer} is none of sacrebleu's: {', '.join(sorted(BLEU.TOKENIZERS))}")


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
