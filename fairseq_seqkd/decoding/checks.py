"""Checks of the options of `teacher_decoding`, before anything is loaded.

Wrong options are collected, so that all of them are reported at once.
"""

import math
from pathlib import Path
from typing import Optional

from fairseq import utils
from fairseq.data.data_utils import infer_language_pair

from fairseq_seqkd import engines
from fairseq_seqkd.decoding.config import (
    DEFAULT_TOPK,
    OF_SEARCH,
    OF_SELECTION,
    STORE_DTYPES,
    TeacherDecodingConfig,
    changed_options,
)
from fairseq_seqkd.decoding.settings import precision, uses_gpu
from fairseq_seqkd.engines.ctranslate2_support import check_installed
from fairseq_seqkd.engines.length_limit import check_length_options
from fairseq_seqkd.engines.options import check_for_ctranslate2
from fairseq_seqkd.errors import Problems, Refusal
from fairseq_seqkd.selection import filters
from fairseq_seqkd.selection.similarity import Similarity


def check_options(cfg: TeacherDecodingConfig) -> None:
    """Checks the options, and fills in the defaults of --score-reference.

    Raises:
        Refusal: with a line for each wrong option.
    """
    problems = Problems()
    if not cfg.distill_dir:
        problems.add("--distill-dir is missing; pass the directory to write, e.g. distilled")
    with problems.collect():
        check_data(cfg)
    if cfg.truncate_source or cfg.num_batch_buckets:
        problems.add(
            "--truncate-source and --num-batch-buckets change the sources, and a student is "
            "trained on them as they are; leave them out"
        )
    if cfg.dataset.required_seq_len_multiple > 1:
        problems.add(
            "--required-seq-len-multiple pads a batch, which moves the length limit of a search; "
            "leave it out"
        )
    if cfg.part_size < 0:
        problems.add(f"--part-size is {cfg.part_size}, it must be 0 or a number of sentences")
    if cfg.generation.score_reference:
        check_scoring(cfg, problems)
    else:
        check_search(cfg, problems)
    with problems.collect():
        check_precision(cfg)
    problems.refuse()


def check_data(cfg: TeacherDecodingConfig) -> None:
    """Checks that there is one data-bin, and that its languages are known."""
    data = utils.split_paths(cfg.data or "")
    if len(data) != 1:
        raise Refusal(
            "fairseq-generate reads only the first of several data directories; name one data "
            "directory, and decode the others in turn"
        )
    if not Path(data[0]).is_dir():
        raise Refusal(f"the data directory {data[0]} does not exist; check the path")
    if not (cfg.source_lang and cfg.target_lang) and not all(infer_language_pair(data[0])):
        raise Refusal(
            f"{data[0]} holds no binarised text; name a directory written by fairseq-preprocess"
        )


def check_precision(cfg: TeacherDecodingConfig) -> None:
    """Checks the engine, and the type in which it computes."""
    if cfg.common.bf16 or cfg.common.amp:
        raise Refusal(
            "--bf16 and --amp have no effect in fairseq-generate, which would compute in float32; "
            "leave them out, or use --fp16 on a GPU"
        )
    if not cfg.generation.score_reference:
        check_engine(cfg)
    if cfg.common.fp16 and not uses_gpu(cfg):
        raise Refusal("--fp16 is for GPUs; leave it out on a CPU")


def check_engine(cfg: TeacherDecodingConfig) -> None:
    """Checks that the engine is installed and has what the other options ask for."""
    if cfg.engine == engines.FAIRSEQ:
        if cfg.compute_type is not None:
            raise Refusal(
                "--compute-type is for --engine ctranslate2; leave it out: fairseq computes in "
                "float32, or in float16 with --fp16 on a GPU"
            )
        return
    if cfg.common.fp16:
        raise Refusal("--fp16 is for --engine fairseq; pass --compute-type float16 to ctranslate2")
    if len(utils.split_paths(cfg.common_eval.path)) > 1:
        raise Refusal(
            "engine ctranslate2 searches with one model, not with an ensemble; use --engine fairseq"
        )
    check_for_ctranslate2(cfg.generation)
    check_installed(precision(cfg), uses_gpu(cfg))


def check_search(cfg: TeacherDecodingConfig, problems: Problems) -> None:
    """Checks the options of a search."""
    search, groups = cfg.generation, cfg.generation.diverse_beam_groups
    for option, value in (("--topk", cfg.topk), ("--store-dtype", cfg.store_dtype)):
        if value is not None:
            problems.add(f"{option} is for --score-reference; leave it out of a search")
    if search.nbest < 1 or search.beam < 1:
        problems.add(f"--nbest {search.nbest} and --beam {search.beam} must be at least 1")
    elif search.nbest > search.beam:
        problems.add(
            f"--nbest {search.nbest} asks for more hypotheses than --beam {search.beam} finds; "
            "raise --beam"
        )
    with problems.collect():
        check_length_options(search.max_len_a, search.max_len_b, search.min_len)
    if groups > 0 and search.beam % groups:
        problems.add(f"--beam {search.beam} cannot be divided into --diverse-beam-groups {groups}")
    if not math.isfinite(search.lenpen):
        problems.add(f"--lenpen is {search.lenpen}, it must be a finite number")
    if not 0 < search.temperature < math.inf:
        problems.add(f"--temperature is {search.temperature}, it must be positive")
    if search.replace_unk is not None:
        problems.add(
            "--replace-unk writes words that are in no dictionary, and targets consist of the "
            "dictionary's ids; leave it out"
        )
    if search.constraints is not None:
        problems.add(
            "--constraints reads constraints from the source text, and a binarised split has none; "
            "leave it out"
        )
    check_selection(cfg, problems)


def check_selection(cfg: TeacherDecodingConfig, problems: Problems) -> None:
    """Checks the options about what becomes of n-best lists."""
    with problems.collect():
        check_tokenizer(str(cfg.similarity), cfg.similarity_tokenizer)
    workers = cfg.similarity_workers
    if workers < 0:
        problems.add(f"--similarity-workers is {workers}, it must be 0 or a number of processes")
    if str(cfg.select) == "mbr" and cfg.generation.nbest < 2:
        problems.add(
            "--select mbr compares the hypotheses of an n-best list: --nbest must be at least 2"
        )
    for name, limit in filters.limits_of(cfg).items():
        with problems.collect():
            filters.FILTERS[name].check(limit)


def check_tokenizer(similarity: str, tokenizer: Optional[str]) -> None:
    """Checks that the metric takes a tokenizer, and that sacrebleu has this one."""
    from sacrebleu.metrics import BLEU

    if tokenizer is None:
        return
    if similarity != "bleu":
        raise Refusal(f"--similarity-tokenizer is for --similarity bleu; {similarity} takes none")
    if tokenizer not in BLEU.TOKENIZERS:
        names = ", ".join(sorted(BLEU.TOKENIZERS))
        raise Refusal(f"--similarity-tokenizer {tokenizer} is none of sacrebleu's: {names}")
    Similarity(similarity, tokenizer=tokenizer)  # refuses one that is not installed


def check_scoring(cfg: TeacherDecodingConfig, problems: Problems) -> None:
    """Checks that no option of a search was passed, and fills in defaults."""
    for option in changed_options(cfg, OF_SEARCH | OF_SELECTION):
        problems.add(
            f"{option} is for a search; leave it out, because --score-reference scores the given "
            "targets"
        )
    cfg.topk = DEFAULT_TOPK if cfg.topk is None else cfg.topk
    if cfg.topk < 1:
        problems.add(f"--topk is {cfg.topk}, it must be at least 1")
    cfg.store_dtype = STORE_DTYPES[0] if cfg.store_dtype is None else cfg.store_dtype
