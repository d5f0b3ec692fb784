"""What decides the result of a decode, as its manifest holds it. Equal settings, equal bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import torch
from fairseq.data import LanguagePairDataset
from omegaconf import OmegaConf

from fairseq_seqkd import compat, engines
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.detokenise import beside_bpe, resolve_post_process
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.plan import DEFAULT_MAX_TOKENS, Plan, make_plan, too_long
from fairseq_seqkd.corpus.settings import (
    DataSettings,
    DecodeSettings,
    EngineSettings,
    PlanSettings,
    ScoreSettings,
    ScoringSettings,
    SearchSettings,
    SimilaritySettings,
    TeacherSettings,
)
from fairseq_seqkd.engines.options import WITHOUT_EFFECT
from fairseq_seqkd.selection import filters
from fairseq_seqkd.selection.similarity import Similarity

FILLED_IN_TOKENS = 12_000  # fairseq-generate's --max-tokens if the user names no limit
# Tokens of a batch times the vocabulary, at which scoring needs 64 MiB of float32 (GPU: 512 MiB).
SCORED_AT_ONCE, SCORED_AT_ONCE_ON_GPU = 1 << 24, 1 << 27
FEWEST_TOKENS_SCORED = 128


class DecodeInputs(NamedTuple):
    """What is decoded or scored, and with which options.

    cfg: the task's configuration, see config.TeacherDecodingConfig.
    gold: the files of the split.
    dataset: the same split as fairseq's dataset, as the teacher reads it.
    teacher_sha256: the hash of each of the teacher's checkpoints.
    """

    cfg: Any
    gold: Split
    dataset: LanguagePairDataset
    teacher_sha256: Sequence[str] = ()


class BatchLimits(NamedTuple):
    """Limits that fairseq-generate passes to a task.

    max_tokens: of a batch, padding counted.
    max_sentences: of a batch.
    max_positions: source and target tokens that task and teacher can read.
    """

    max_tokens: Optional[int]
    max_sentences: Optional[int]
    max_positions: Sequence[int]


@dataclass
class TextDecoders:
    """fairseq's --bpe and --tokenizer, which fairseq-generate builds right before the loop."""

    bpe: Any = None
    tokenizer: Any = None


def decoding_settings(inputs: DecodeInputs, limits: BatchLimits) -> Tuple[DecodeSettings, Plan]:
    """Returns the settings and the plan of a search."""
    cfg = inputs.cfg
    default = engines.default_tokens(
        str(cfg.engine), precision(cfg), cfg.generation.beam, uses_gpu(cfg)
    )
    plan = plan_for(inputs, limits, default)
    options: Any = OmegaConf.to_container(cfg.generation, resolve=True)
    search = {name: value for name, value in options.items() if name not in WITHOUT_EFFECT}
    is_random = uses_random_numbers(cfg.generation)
    if not is_random:
        search = {k: v for k, v in search.items() if not k.startswith("sampling_")}
    search.update(
        seed=cfg.common.seed if is_random else None,
        lm_sha256=sha256(cfg.generation.lm_path) if cfg.generation.lm_path else None,
        longest_source=int(limits.max_positions[0]),
        **padding_settings(cfg),
    )
    settings = DecodeSettings(
        **common_settings(inputs, plan),
        search=SearchSettings.of(search),
        similarity=similarity_settings(cfg, inputs.dataset),
        select=str(cfg.select),
        filters=filters.limits_of(cfg),
    )
    return settings, plan


def scoring_settings(inputs: DecodeInputs, limits: BatchLimits) -> Tuple[ScoreSettings, Plan]:
    """Returns the settings and the plan of scoring given targets."""
    cfg, dataset = inputs.cfg, inputs.dataset
    vocabulary = len(dataset.tgt_dict)
    at_once = SCORED_AT_ONCE_ON_GPU if uses_gpu(cfg) else SCORED_AT_ONCE
    default = min(DEFAULT_MAX_TOKENS, max(at_once // vocabulary, FEWEST_TOKENS_SCORED))
    plan = plan_for(inputs, limits, default)
    positions = [int(limit) for limit in limits.max_positions]
    scoring = ScoringSettings(
        topk=min(cfg.topk, vocabulary),
        vocabulary=vocabulary,
        dtype=str(cfg.store_dtype),
        positions=positions,
        too_long=int(too_long((dataset.src_sizes, dataset.tgt_sizes), positions).sum()),
        **padding_settings(cfg),
    )
    return ScoreSettings(**common_settings(inputs, plan), scoring=scoring), plan


def common_settings(inputs: DecodeInputs, plan: Plan) -> Dict[str, Any]:
    """Returns the settings of both kinds of work: teacher, data, engine and plan."""
    cfg = inputs.cfg
    engine = {
        "name": str(cfg.engine),
        **compat.versions(str(cfg.engine)),
        "precision": precision(cfg),
        "device": torch.cuda.get_device_name() if uses_gpu(cfg) else "cpu",
        "threads": 1,
    }
    return {
        "teacher": TeacherSettings(list(inputs.teacher_sha256), cfg.common_eval.model_overrides),
        "data": DataSettings.of(inputs.gold),
        "engine": EngineSettings.of(engine),
        "plan": PlanSettings.of(plan),
    }


def padding_settings(cfg: Any) -> Dict[str, bool]:
    """Returns the sides on which batches are padded: an LSTM and a prefix read the padding."""
    return {
        "left_pad_source": bool(cfg.left_pad_source),
        "left_pad_target": bool(cfg.left_pad_target),
    }


def plan_for(inputs: DecodeInputs, limits: BatchLimits, default_tokens: int) -> Plan:
    """Returns the plan for a split.

    The user's limits count. If fairseq-generate has filled in its own --max-tokens, which is slow
    on a CPU, the default of the engine does.
    """
    is_filled_in = (
        inputs.cfg.dataset.batch_size is None
        and limits.max_tokens == FILLED_IN_TOKENS
        and not compat.max_tokens_given()
    )
    tokens, sentences = (None, None) if is_filled_in else limits[:2]
    return make_plan(len(inputs.dataset), tokens, sentences, inputs.cfg.part_size, default_tokens)


def uses_random_numbers(search: Any) -> bool:
    """Returns whether a search (its options or settings) samples, or keeps dropout on."""
    return bool(search.sampling or search.retain_dropout)


def uses_gpu(cfg: Any) -> bool:
    """Returns whether fairseq-generate computes on a GPU."""
    return torch.cuda.is_available() and not cfg.common.cpu


def precision(cfg: Any) -> str:
    """Returns the type that the teacher computes in, from --compute-type or fairseq's --fp16."""
    if cfg.compute_type is not None:
        return str(cfg.compute_type)
    return "float16" if cfg.common.fp16 else "float32"


def similarity_settings(cfg: Any, dataset: LanguagePairDataset) -> Optional[SimilaritySettings]:
    """Returns what decides which hypothesis is closest: the metric, and how text is made.

    Returns:
        The settings, or None if nothing is compared.
    """
    if dataset.tgt is None and str(cfg.select) != "mbr":
        return None
    bpe = name_of(cfg.bpe_config)
    decoders = {**options_of(cfg.bpe_config), **options_of(cfg.tokenizer_config)}
    metric = Similarity(str(cfg.similarity), cfg.target_lang, cfg.similarity_tokenizer)
    post_process = beside_bpe(cfg.common_eval.post_process, bpe)
    return SimilaritySettings(
        **metric.describe(),
        post_process=resolve_post_process(post_process, dataset.tgt_dict),
        bpe=bpe,
        tokenizer_undone=name_of(cfg.tokenizer_config),
        decoders=decoders or None,
    )


def options_of(config: Any) -> Dict[str, Any]:
    """Returns the chosen options of a --bpe or --tokenizer; a file is named by its hash."""
    if config is None or isinstance(config, str):
        return {}
    return {
        name: sha256(value) if isinstance(value, str) and Path(value).is_file() else value
        for name, value in config.items()
        if name != "_name" and value is not None
    }


def name_of(config: Any) -> Optional[str]:
    """Returns the name chosen in a group of fairseq's configuration, e.g. by --bpe."""
    return config if config is None or isinstance(config, str) else config.get("_name")
