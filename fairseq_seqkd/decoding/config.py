"""The options of `teacher_decoding`, declared once, and what is refused of them before anything is loaded."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass import ChoiceEnum
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from fairseq_seqkd import engines
from fairseq_seqkd.decoding.settings import precision, uses_gpu
from fairseq_seqkd.engines.ctranslate2_engine import check_installed
from fairseq_seqkd.engines.length_limit import check_length_options
from fairseq_seqkd.engines.options import WITHOUT_EFFECT, check_for_ctranslate2
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.selection import choose as selection

DEFAULT_TOPK = 8
STORE_DTYPES = ("float16", "float32")
# What becomes of the lists that a search has found.
OF_SELECTION = {
    "similarity", "similarity_tokenizer", "similarity_workers", "select", "filter_length_ratio", "filter_copy",
    "filter_repeats", "filter_score", "filter_empty",
}  # fmt: skip
# What the search itself is told; scoring has no use for it, nor for the above.
OF_SEARCH = {"engine", "compute_type", "teacher_source_lang", "teacher_target_lang"}


@dataclass
class TeacherDecodingConfig(TranslationConfig):
    distill_dir: Optional[str] = field(
        default=None,
        metadata={
            "help": "directory for the n-best lists and the data-bins seq_kd/ and seq_inter/, or for stored distributions"
        },
    )
    engine: ChoiceEnum(engines.NAMES) = field(
        default=engines.FAIRSEQ,
        metadata={
            "help": "what runs the search: fairseq (any model), or ctranslate2 (one Transformer, more than twice as fast)"
        },
    )
    compute_type: Optional[ChoiceEnum(engines.COMPUTE_TYPES)] = field(
        default=None,
        metadata={
            "help": "type of the numbers that engine ctranslate2 computes with (default: float32)"
        },
    )
    similarity: ChoiceEnum(selection.METRICS) = field(
        default="bleu",
        metadata={
            "help": "similarity to gold by which seq_inter chooses from the n-best list, and --select mbr"
        },
    )
    similarity_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "sacrebleu's tokenizer for --similarity bleu (default: by the target language)"
        },
    )
    similarity_workers: int = field(
        default=0,
        metadata={
            "help": "processes that compute similarity while the search goes on (0: this one); changes no result"
        },
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
        metadata={
            "help": "leave out of a view what has more than so many times as many tokens on one side as on the other"
        },
    )
    filter_copy: Optional[float] = field(
        default=None,
        metadata={
            "help": "leave out targets that share at least this part of their tokens (above 0, up to 1) with the source"
        },
    )
    filter_repeats: Optional[int] = field(
        default=None,
        metadata={
            "help": "leave out targets in which 1 to 4 tokens stand so many times (2 or more) in immediate succession"
        },
    )
    filter_score: Optional[float] = field(
        default=None,
        metadata={
            "help": "leave out targets whose log-probability per token, EOS counted, is below so many nats, as -2.5"
        },
    )
    filter_empty: bool = field(default=False, metadata={"help": "leave out empty targets"})
    part_size: int = field(
        default=0,
        metadata={
            "help": "sentences that are committed at a time (default: 1/64 of the split, but 1024 to 4096)"
        },
    )
    topk: Optional[int] = field(
        default=None,
        metadata={
            "help": "with --score-reference, instead of searching: how many of the teacher's most probable symbols to store for "
            f"every token of the given targets (default: {DEFAULT_TOPK})"
        },
    )
    store_dtype: Optional[ChoiceEnum(STORE_DTYPES)] = field(
        default=None,
        metadata={
            "help": f"with --score-reference: the type of the stored numbers (default: {STORE_DTYPES[0]})"
        },
    )
    teacher_source_lang: Optional[str] = field(
        default=None,
        metadata={
            "help": "a multilingual teacher's name for the source language (default: --source-lang)"
        },
    )
    teacher_target_lang: Optional[str] = field(
        default=None,
        metadata={
            "help": "a multilingual teacher's name for the target language (default: --target-lang)"
        },
    )
    # What fairseq-generate was told elsewhere, read by interpolation; these declare no options.
    generation: Any = II("generation")
    common_eval: Any = II("common_eval")
    common: Any = II("common")
    dataset: Any = II("dataset")
    distributed_training: Any = II("distributed_training")
    bpe_config: Any = II("bpe")
    tokenizer_config: Any = II("tokenizer")


def check_options(cfg):
    """Refuses contradictions among options with a sentence each, before the teacher is loaded."""
    data = utils.split_paths(cfg.data or "")
    if not cfg.distill_dir:
        raise Refusal("--distill-dir is missing: it says where the teacher's work goes")
    if len(data) != 1:
        raise Refusal(
            "name one data directory: fairseq-generate reads the first of several only; decode them in turn"
        )
    if not Path(data[0]).is_dir():
        raise Refusal(f"the data directory {data[0]} does not exist")
    if not (cfg.source_lang and cfg.target_lang) and not all(infer_language_pair(data[0])):
        raise Refusal(
            f"{data[0]} holds no binarised text; name a folder that fairseq-preprocess made"
        )
    if cfg.truncate_source or cfg.num_batch_buckets:
        raise Refusal(
            "--truncate-source and --num-batch-buckets change the sources; a student is trained on them as they are"
        )
    if cfg.dataset.required_seq_len_multiple > 1:
        raise Refusal(
            "--required-seq-len-multiple pads a batch, and with it moves the length limit of a search; leave it out"
        )
    if cfg.part_size < 0:
        raise Refusal(f"--part-size is {cfg.part_size}, it must be a number of sentences")
    if cfg.generation.score_reference:
        check_scoring(cfg)
    else:
        check_search(cfg)
    if cfg.common.bf16 or cfg.common.amp:
        raise Refusal(
            "--bf16 and --amp have no effect in fairseq-generate, which would compute in float32; on a GPU say --fp16"
        )
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        raise Refusal("--fp16 is for GPUs; leave it out on a CPU")


def check_search(cfg):
    """Refuses contradictions among the options of a search."""
    search = cfg.generation
    for name in ("topk", "store_dtype"):
        if getattr(cfg, name) is not None:
            raise Refusal(
                f"--{name.replace('_', '-')} is for --score-reference, which stores distributions; a search has none"
            )
    if search.nbest < 1 or search.beam < 1:
        raise Refusal(f"--nbest {search.nbest} and --beam {search.beam} must be at least 1")
    if search.nbest > search.beam:
        raise Refusal(
            f"--nbest {search.nbest} asks for more hypotheses than --beam {search.beam} finds; raise --beam"
        )
    check_length_options(search.max_len_a, search.max_len_b, search.min_len)
    if search.diverse_beam_groups > 0 and search.beam % search.diverse_beam_groups:
        raise Refusal(
            f"--beam {search.beam} cannot be divided into --diverse-beam-groups {search.diverse_beam_groups}"
        )
    if not math.isfinite(search.lenpen):
        raise Refusal(f"--lenpen is {search.lenpen}, it must be a number")
    if search.replace_unk is not None:
        raise Refusal(
            "--replace-unk makes words that are in no dictionary; pseudo-targets are made of the dictionary's ids"
        )
    if search.constraints is not None:
        raise Refusal(
            "--constraints needs constraints in the source text, which a binarised split has not"
        )
    check_engine(cfg)
    check_selection(cfg)
    if not 0 < search.temperature < math.inf:
        raise Refusal(f"--temperature is {search.temperature}, it must be positive")


def check_selection(cfg):
    """Refuses contradictions among the options that say what becomes of n-best lists."""
    check_tokenizer(str(cfg.similarity), cfg.similarity_tokenizer)
    if cfg.similarity_workers < 0:
        raise Refusal(
            f"--similarity-workers is {cfg.similarity_workers}, it must be a number of processes, or 0"
        )
    if str(cfg.select) == "mbr" and cfg.generation.nbest < 2:
        raise Refusal(
            "--select mbr compares the hypotheses of a list with each other: --nbest must be at least 2"
        )
    check_filters(cfg)


def check_scoring(cfg):
    """Refuses what scoring has no use for, and fills in what was not said."""
    search = cfg.generation
    options = [
        (cfg, option)
        for option in fields(TeacherDecodingConfig)
        if option.name in OF_SEARCH | OF_SELECTION
    ]
    options += [
        (search, o)
        for o in fields(GenerationConfig)
        if o.name in search and o.name not in WITHOUT_EFFECT
    ]
    for group, option in options:
        if getattr(group, option.name) != option.default:
            raise Refusal(
                f"--{option.name.replace('_', '-')} is for a search; --score-reference scores the targets as they are"
            )
    cfg.topk = DEFAULT_TOPK if cfg.topk is None else cfg.topk
    if cfg.topk < 1:
        raise Refusal(f"--topk is {cfg.topk}, it must be at least 1")
    cfg.store_dtype = STORE_DTYPES[0] if cfg.store_dtype is None else cfg.store_dtype


def check_engine(cfg):
    """Refuses an engine that cannot do what the other options ask for."""
    if cfg.engine == engines.FAIRSEQ:
        if cfg.compute_type is not None:
            raise Refusal(
                "--compute-type is for --engine ctranslate2; fairseq computes in float32, or on a GPU with --fp16"
            )
        return
    if cfg.common.fp16:
        raise Refusal("--fp16 is for --engine fairseq; with ctranslate2 say --compute-type float16")
    if len(utils.split_paths(cfg.common_eval.path)) > 1:
        raise Refusal(
            "engine ctranslate2 searches with one model, not with an ensemble; use --engine fairseq"
        )
    check_for_ctranslate2(cfg.generation)
    check_installed(precision(cfg), uses_gpu(cfg))


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
        raise Refusal(
            f"--similarity-tokenizer {tokenizer} is none of sacrebleu's: {', '.join(sorted(BLEU.TOKENIZERS))}"
        )
    selection.Similarity(
        similarity, tokenizer=tokenizer
    )  # which refuses one that cannot be used here
