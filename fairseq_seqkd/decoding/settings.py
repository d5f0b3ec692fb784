"""What decides the result of decoding, as the manifest keeps it; two runs with equal settings write the same bytes."""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from fairseq_seqkd import compat, engines
from fairseq_seqkd.corpus.detokenise import beside_bpe, joined_by
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.plan import DEFAULT_MAX_TOKENS, make_plan, too_long
from fairseq_seqkd.engines.options import WITHOUT_EFFECT
from fairseq_seqkd.selection import choose as selection
from fairseq_seqkd.selection import filters

SCORED_AT_A_TIME = 1 << 24  # tokens of a batch times the vocabulary: 64 MiB of float32
SCORED_ON_A_GPU = 1 << 27  # 512 MiB: small batches would leave it idle


def decoding_settings(cfg, gold, dataset, max_tokens, max_sentences, max_positions):
    """(settings for the manifest, Plan) of a search over a split.

    Args:
        cfg: the task's configuration; gold: databin.Split; dataset: fairseq's dataset of that split.
        max_tokens, max_sentences: batch limits as fairseq-generate resolved them.
        max_positions: (source, target) tokens that task and teacher can hold.
    """
    default = engines.default_tokens(
        str(cfg.engine), precision(cfg), cfg.generation.beam, uses_gpu(cfg)
    )
    plan = make_plan(
        len(dataset), *batch_limits(cfg.dataset, max_tokens, max_sentences), cfg.part_size, default
    )
    search = {
        k: v
        for k, v in OmegaConf.to_container(cfg.generation, resolve=True).items()
        if k not in WITHOUT_EFFECT
    }
    if not uses_random_numbers(search):
        search = {k: v for k, v in search.items() if not k.startswith("sampling_")}
    search["seed"] = cfg.common.seed if uses_random_numbers(search) else None
    return {
        **what_is_decoded(cfg, gold, dataset),
        "search": {
            **search,
            "lm_sha256": sha256(cfg.generation.lm_path) if cfg.generation.lm_path else None,
            "longest_source": int(max_positions[0]),
            **padding_settings(cfg),
        },
        "plan": plan_settings(plan),
        "similarity": similarity_settings(cfg, dataset),
        "select": str(cfg.select),
        "filters": filter_settings(cfg),
    }, plan


def scoring_settings(cfg, gold, dataset, max_tokens, max_sentences, max_positions):
    """(settings for the manifest, Plan) of scoring a split's targets; arguments as of decoding_settings."""
    vocabulary = len(dataset.tgt_dict)
    most = SCORED_ON_A_GPU if uses_gpu(cfg) else SCORED_AT_A_TIME
    default = min(DEFAULT_MAX_TOKENS, max(most // vocabulary, 128))
    plan = make_plan(
        len(dataset), *batch_limits(cfg.dataset, max_tokens, max_sentences), cfg.part_size, default
    )
    positions = [int(limit) for limit in max_positions]
    return {
        **what_is_decoded(cfg, gold, dataset),
        "scoring": {
            "topk": min(cfg.topk, vocabulary),
            "vocabulary": vocabulary,
            "dtype": str(cfg.store_dtype),
            "positions": positions,
            "too_long": int(too_long((dataset.src_sizes, dataset.tgt_sizes), positions).sum()),
            **padding_settings(cfg),
        },
        "plan": plan_settings(plan),
    }, plan


def what_is_decoded(cfg, gold, dataset):
    """Teacher, data and what computes: the settings of both kinds of work."""
    return {
        "teacher": {
            "sha256": [sha256(path) for path in cfg.common_eval.path.split(":")],
            "overrides": cfg.common_eval.model_overrides,
        },
        "data": {
            "split": gold.name,
            "source_lang": gold.languages.source,
            "target_lang": gold.languages.target,
            "sentences": len(dataset),
            **gold.hashes._asdict(),
        },
        "engine": {
            "name": str(cfg.engine),
            **compat.versions(str(cfg.engine)),
            "precision": precision(cfg),
            "device": device(cfg),
            "threads": 1,
        },
    }


def padding_settings(cfg):
    """On which side a batch is padded, which an LSTM reads, and the prefix of a target too."""
    return {
        "left_pad_source": bool(cfg.left_pad_source),
        "left_pad_target": bool(cfg.left_pad_target),
    }


def plan_settings(plan):
    return {
        "part_size": plan.part_size,
        "max_tokens": plan.max_tokens,
        "max_sentences": plan.max_sentences,
    }


def filter_settings(cfg):
    """{name: value} of the filters that are on."""
    values = {name: getattr(cfg, f"filter_{name}") for name in filters.NAMES}
    return {
        name: value for name, value in values.items() if value is not None and value is not False
    }


def batch_limits(limits, max_tokens, max_sentences):
    """The user's limits; (None, None) where fairseq-generate only filled in its own 12,000 tokens, slow on a CPU.

    It does so before it makes the task, so that the command line alone tells the two apart.
    """
    filled_in = max_tokens == 12000 and not any(
        word.split("=")[0] == "--max-tokens" for word in sys.argv
    )
    return (None, None) if limits.batch_size is None and filled_in else (max_tokens, max_sentences)


def uses_random_numbers(search):
    """Sampling, and dropout that stays on in the search."""
    return bool(search.get("sampling") or search.get("retain_dropout"))


def uses_gpu(cfg):
    return torch.cuda.is_available() and not cfg.common.cpu


def device(cfg):
    return torch.cuda.get_device_name() if uses_gpu(cfg) else "cpu"


def precision(cfg):
    """The type of the teacher's numbers, as --compute-type or fairseq's --fp16 says."""
    if cfg.compute_type is not None:
        return str(cfg.compute_type)
    return "float16" if cfg.common.fp16 else "float32"


def similarity_settings(cfg, dataset):
    """Metric, tokenizer and how text is made: everything that decides which hypothesis is the closest; None: nothing asks."""
    if dataset.tgt is None and str(cfg.select) != "mbr":
        return None
    bpe = name_of(cfg.bpe_config)
    decoders = {**options_of(cfg.bpe_config), **options_of(cfg.tokenizer_config)}
    return {
        **selection.Similarity(
            str(cfg.similarity), cfg.target_lang, cfg.similarity_tokenizer
        ).describe(),
        "post_process": joined_by(beside_bpe(cfg.common_eval.post_process, bpe), dataset.tgt_dict),
        "bpe": bpe,
        "tokenizer_undone": name_of(cfg.tokenizer_config),
        **({"decoders": decoders} if decoders else {}),
    }


def options_of(config):
    """{name: value} of the options of a --bpe or --tokenizer that were chosen; of a file its hash, wherever it lies."""
    if config is None or isinstance(config, str):
        return {}
    told = {name: value for name, value in config.items() if name != "_name" and value is not None}
    return {
        name: sha256(value) if isinstance(value, str) and Path(value).is_file() else value
        for name, value in told.items()
    }


def name_of(config):
    """The name in a group of fairseq's configuration, such as --bpe; None where none was chosen."""
    return config if config is None or isinstance(config, str) else config.get("_name")
