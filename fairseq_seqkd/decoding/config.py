"""The options of `teacher_decoding`. Their checks are in checks.py."""

from dataclasses import dataclass, field, fields
from typing import Any, Iterator, Mapping, Optional, Set

from fairseq.dataclass import ChoiceEnum
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from fairseq_seqkd import engines
from fairseq_seqkd.engines.options import WITHOUT_EFFECT
from fairseq_seqkd.selection.choose import SELECTIONS
from fairseq_seqkd.selection.filters import FILTERS
from fairseq_seqkd.selection.similarity import METRICS

DEFAULT_TOPK = 8
STORE_DTYPES = ("float16", "float32")
# Options about what becomes of the n-best lists: `seqkd select` takes them, too.
OF_SELECTION = {
    "similarity",
    "similarity_tokenizer",
    "similarity_workers",
    "select",
    *(row.field for row in FILTERS.values()),
}
# Options about the search itself, of the task and of fairseq. Scoring takes none of these two sets.
OF_SEARCH = {
    "engine",
    "compute_type",
    "teacher_source_lang",
    "teacher_target_lang",
    *({declared.name for declared in fields(GenerationConfig)} - WITHOUT_EFFECT),
}

# No `from __future__ import annotations` here: fairseq builds its options from the types of the
# fields, and cannot read types that are strings.


def option(default: Any, help_text: str) -> Any:
    """Declares an option of the task."""
    return field(default=default, metadata={"help": help_text})


def filter_option(name: str) -> Any:
    """Declares the option of a filter, from the table of filters."""
    row = FILTERS[name]
    return option(False if row.type is bool else None, row.help)


@dataclass
class TeacherDecodingConfig(TranslationConfig):
    """The options of the task, besides those of fairseq's translation task and of its search."""

    distill_dir: Optional[str] = option(
        None,
        "directory to write: n-best lists and the data-bins seq_kd/ and seq_inter/, or, with "
        "--score-reference, distributions (required)",
    )
    engine: ChoiceEnum(engines.NAMES) = option(  # type: ignore[valid-type]
        engines.FAIRSEQ,
        "program that searches: 'fairseq' (any model) or 'ctranslate2' (one Transformer, more than "
        "twice as fast)",
    )
    compute_type: Optional[ChoiceEnum(engines.COMPUTE_TYPES)] = option(  # type: ignore[valid-type]
        None, "type in which --engine ctranslate2 computes (default: float32)"
    )
    similarity: ChoiceEnum(METRICS) = option(  # type: ignore[valid-type]
        "bleu",
        "similarity by which seq_inter chooses the hypothesis closest to gold, and --select mbr "
        "the one closest to the others",
    )
    similarity_tokenizer: Optional[str] = option(
        None, "tokenizer of sacrebleu for --similarity bleu (default: by the target language)"
    )
    similarity_workers: int = option(
        0,
        "number of extra processes that compute similarity during the search (0: none); does not "
        "change the result",
    )
    select: ChoiceEnum(tuple(SELECTIONS)) = option(  # type: ignore[valid-type]
        "mode",
        "hypothesis that seq_kd takes: 'mode' is the teacher's 1-best, 'mbr' the one most similar "
        "to the others. 'mbr' compares every pair of an n-best list, which is slow with chrf and "
        "ter: see --similarity-workers",
    )
    filter_length_ratio: Optional[float] = filter_option("length_ratio")
    filter_copy: Optional[float] = filter_option("copy")
    filter_repeats: Optional[int] = filter_option("repeats")
    filter_score: Optional[float] = filter_option("score")
    filter_empty: bool = filter_option("empty")
    part_size: int = option(
        0,
        "number of sentences per part, the unit that is committed (default: 1/64 of the split, "
        "within 1024 to 4096)",
    )
    topk: Optional[int] = option(
        None,
        "number of most probable symbols to store per target token; only with --score-reference, "
        f"at least 1 (default: {DEFAULT_TOPK})",
    )
    store_dtype: Optional[ChoiceEnum(STORE_DTYPES)] = option(  # type: ignore[valid-type]
        None,
        "type of the stored probabilities; only with --score-reference (default: "
        f"{STORE_DTYPES[0]})",
    )
    teacher_source_lang: Optional[str] = option(
        None, "name of the source language in a multilingual teacher (default: --source-lang)"
    )
    teacher_target_lang: Optional[str] = option(
        None, "name of the target language in a multilingual teacher (default: --target-lang)"
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


def changed_options(
    cfg: TeacherDecodingConfig, names: Set[str], given: Optional[Mapping[str, Any]] = None
) -> Iterator[str]:
    """Yields the options of the task and of fairseq's search that differ from their defaults.

    Args:
        cfg: the task's configuration.
        names: the fields to compare. Those that read the values of other groups never are.
        given: values in place of defaults.
    """
    for group, config in ((cfg, TeacherDecodingConfig), (cfg.generation, GenerationConfig)):
        for declared in fields(config):
            name, default = declared.name, declared.default
            if name not in names or name not in group or str(default).startswith("${"):
                continue
            if getattr(group, name) != (given or {}).get(name, default):
                yield option_name(name)
