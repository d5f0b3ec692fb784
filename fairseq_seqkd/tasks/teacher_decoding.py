"""Task `teacher_decoding`: a teacher's beam search over a split, stored as training data.

    fairseq-generate data-bin --user-dir fairseq_seqkd --task teacher_decoding --path teacher.pt \\
        --gen-subset train --beam 5 --nbest 5 --distill-dir distilled

With `--score-reference --topk 8` it stores the teacher's distributions on the given targets.

The task is fairseq's translation task with two differences: its batches come from a plan of its
own, and results are recorded as numbers instead of being printed. The work is done in decoding/.
"""

import argparse
from typing import Any, Dict, List, Optional

import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd import compat, interrupts
from fairseq_seqkd.corpus import databin
from fairseq_seqkd.decoding.checks import check_options
from fairseq_seqkd.decoding.config import TeacherDecodingConfig
from fairseq_seqkd.decoding.parts import FairseqBatches
from fairseq_seqkd.decoding.rank import local_rank
from fairseq_seqkd.decoding.run import DecodeRun
from fairseq_seqkd.decoding.settings import BatchLimits, uses_gpu
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.selection import pool


@register_task("teacher_decoding", dataclass=TeacherDecodingConfig)
class TeacherDecodingTask(TranslationTask):
    """The task of fairseq-generate. Students train under fairseq's own translation task."""

    run: DecodeRun

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options, and refuses a torch that cannot load checkpoints safely.

        fairseq 0.12.2 would fail on these options with such a torch. For its documentation fairseq
        also passes a group of options, while it imports the task.
        """
        if isinstance(parser, argparse.ArgumentParser):
            compat.check_torch()
        super().add_args(parser)

    @classmethod
    def setup_task(cls, cfg: TeacherDecodingConfig, **kwargs: Any) -> "TeacherDecodingTask":
        """Checks options, data and teacher before anything is loaded, then sets up the task."""
        interrupts.end_with(
            "finished parts are safe, run the same command again to continue",
            before=pool.stop_workers,
        )
        check_options(cfg)
        torch.set_num_threads(1)  # the last bits of a score depend on the number of threads
        if uses_gpu(cfg):
            torch.cuda.set_device(local_rank(cfg.distributed_training) % torch.cuda.device_count())
        task = super().setup_task(cfg, **kwargs)
        task.run = DecodeRun(cfg, (task.src_dict, task.tgt_dict))
        task.src_dict, task.tgt_dict = task.run.dictionaries
        return task

    @classmethod
    def load_dictionary(cls, filename: str) -> Dictionary:
        """Loads a dictionary, or refuses a damaged one."""
        return databin.load_dictionary(filename)

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """Loads a split, with the language tokens of a multilingual teacher."""
        super().load_dataset(split, *args, **kwargs)
        self.datasets[split] = self.run.as_searched(self.datasets[split])

    def get_batch_iterator(
        self,
        dataset: LanguagePairDataset,
        max_tokens: Optional[int] = None,
        max_sentences: Optional[int] = None,
        max_positions: Any = None,
        **ignored: Any,
    ) -> FairseqBatches:
        """Returns the batches of the plan. What fairseq would shuffle, filter or drop stays."""
        return self.run.batches(dataset, BatchLimits(max_tokens, max_sentences, max_positions))

    def build_generator(self, models: List[Any], args: Any, **kwargs: Any) -> Any:
        """Builds fairseq's generator, after the last checks, and begins the work."""
        self.run.check_before_work(models)
        options = {**(kwargs.pop("extra_gen_cls_kwargs", None) or {})}
        options.update(self.run.generator_options())
        try:
            generator = super().build_generator(
                models, args, extra_gen_cls_kwargs=options, **kwargs
            )
        except (AssertionError, ValueError) as error:  # options that exclude each other
            raise Refusal(
                f"fairseq cannot search with these options: {first_line(error)}"
            ) from error
        self.run.begin(models, generator)
        return generator

    def build_bpe(self, args: Any) -> Any:
        """Builds fairseq's --bpe, with which hypotheses are detokenised."""
        self.run.text.bpe = super().build_bpe(args)
        return self.run.text.bpe

    def build_tokenizer(self, args: Any) -> Any:
        """Builds fairseq's --tokenizer, with which hypotheses are detokenised."""
        self.run.text.tokenizer = super().build_tokenizer(args)
        return self.run.text.tokenizer

    def inference_step(
        self,
        generator: Any,
        models: List[Any],
        sample: Dict[str, Any],
        prefix_tokens: Optional[torch.Tensor] = None,
        constraints: Optional[torch.Tensor] = None,
    ) -> List[List[Dict[str, Any]]]:
        """Records a batch, then empties it, so that fairseq-generate makes no text of it.

        Returns:
            For each sentence a stand-in hypothesis, whose tokens fairseq-generate counts.
        """
        lengths = self.run.record(sample, prefix_tokens)
        sample["id"] = sample["id"][:0]
        return [[{"tokens": range(length)}] for length in lengths]
