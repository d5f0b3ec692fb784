"""The options of `teacher_decoding`. Their checks are in checks.py."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from fairseq_seqkd import engines
from fairseq_seqkd.selection import filters
from fairseq_seqkd.selection.choose import SELECTIONS
from fairseq_seqkd.selection.similarity import METRICS

DEFAULT_TOPK = 8
STORE_DTYPES = ("float16", "float32")
# Options about what becomes of the n-best lists: `seqkd select` takes them, too.
OF_SELECTION = {
    "similarity",
    "similarity_tokenizer",
    "similarity_workers",
    "select",
    *(row.field for row in filters.FILTERS.values()),
}
# Options about the search itself. Scoring takes neither these nor the above.
OF_SEARCH = {"engine", "compute_type", "teacher_source_lang", "teacher_target_lang"}

# No `from __future__ import annotations` here: fairseq builds its options from the types of the
# fields, and cannot read types that are strings.


def filter_field(name: str) -> Any:
    """Declares the option of a filter, from the table of filters."""
    row = filters.FILTERS[name]
    return field(default=False if row.type is bool else None, metadata={"help": row.help})


@dataclass
class TeacherDecodingConfig(TranslationConfig):
    """The options of the task, besides those of fairseq's translation task and of its search."""

    distill_dir: Optional[str] = field(
        default=None,
        metadata={
            "help": "directory to write: n-best lists and the data-bins seq_kd/ and seq_inter/, "
            "or, with --score-reference, distributions (required)"
        },
    )
    engine: ChoiceEnum(engines.NAMES) = field(  # type: ignore[valid-type]
        default=engines.FAIRSEQ,
        metadata={
            "help": "program that searches: 'fairseq' (any model) or 'ctranslate2' (one "
            "Transformer, more than twice as fast)"
        },
    )
    compute_type: Optional[ChoiceEnum(engines.COMPUTE_TYPES)] = field(  # type: ignore[valid-type]
        default=None,
        metadata={"help": "type in which --engine ctranslate2 computes (default: float32)"},
    )
    similarity: ChoiceEnum(METRICS) = field(  # type: ignore[valid-type]
        default="bleu",
        metadata={
            "help": "similarity by which seq_inter chooses the hypothesis closest to gold, and "
            "--select mbr the one closest to the others"
        },
    )
    similarity_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "tokenizer of sacrebleu for --similarity bleu (default: by the target language)"
        },
    )
    similarity_workers: int = field(
        default=0,
        metadata={
            "help": "number of extra processes that compute similarity during the search (0: "
            "none); does not change the result"
        },
    )
    select: ChoiceEnum(tuple(SELECTIONS)) = field(  # type: ignore[valid-type]
        default="mode",
        metadata={
            "help": "hypothesis that seq_kd takes: 'mode' is the teacher's 1-best, 'mbr' the one "
            "most similar to the others. 'mbr' compares every pair of an n-best list, which is "
            "slow with chrf and ter: see --similarity-workers"
        },
    )
    filter_length_ratio: Optional[float] = filter_field("length_ratio")
    filter_copy: Optional[float] = filter_field("copy")
    filter_repeats: Optional[int] = filter_field("repeats")
    filter_score: Optional[float] = filter_field("score")
    filter_empty: bool = filter_field("empty")
    part_size: int = field(
        default=0,
        metadata={
            "help": "number of sentences per part, the unit that is committed (default: 1/64 of "
            "the split, within 1024 to 4096)"
        },
    )
    topk: Optional[int] = field(
        default=None,
        metadata={
            "help": "number of most probable symbols to store per target token; only with "
            f"--score-reference, at least 1 (default: {DEFAULT_TOPK})"
        },
    )
    store_dtype: Optional[ChoiceEnum(STORE_DTYPES)] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "type of the stored probabilities; only with --score-reference (default: "
            f"{STORE_DTYPES[0]})"
        },
    )
    teacher_source_lang: Optional[str] = field(
        default=None,
        metadata={
            "help": "name of the source language in a multilingual teacher (default: --source-lang)"
        },
    )
    teacher_target_lang: Optional[str] = field(
        default=None,
        metadata={
            "help": "name of the target language in a multilingual teacher (default: --target-lang)"
        },
    )
    # Values of fairseq's other groups, read by interpolation: these fields declare no options.
    generation: Any = II("generation")
    common_eval: Any = II("common_eval")
    common: Any = II("common")
    dataset: Any = II("dataset")
    distributed_training: Any = II("distributed_training")
    bpe_config: Any = II("bpe")
    tokenizer_config: Any = II("tokenizer")


def option_name(field_name: str) -> str:
    """Returns the option of a field of a configuration, e.g. "--filter-copy"."""
    return f"--{field_name.replace('_', '-')}"
