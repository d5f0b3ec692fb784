"""The engine that searches in a decode: fairseq's own, or CTranslate2's compared with fairseq's."""

from typing import Any, Optional, Sequence

import torch
from fairseq import utils
from fairseq.models import FairseqModel

from fairseq_seqkd import engines
from fairseq_seqkd.decoding.multilingual import LanguageTokens, MultilingualEngine
from fairseq_seqkd.decoding.settings import DecodeInputs, precision, uses_gpu
from fairseq_seqkd.engines.ctranslate2_engine import Computation, CTranslate2Engine
from fairseq_seqkd.engines.ctranslate2_support import USE_FAIRSEQ
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.training.teacher import Teacher
from fairseq_seqkd.training.teacher_checks import PROBE_BATCH, readable


def build_engine(
    inputs: DecodeInputs,
    models: Sequence[FairseqModel],
    generator: Any,
    languages: Optional[LanguageTokens],
) -> engines.SearchEngine:
    """Returns the engine that --engine names.

    Args:
        inputs: the options, and the dataset that is searched.
        models: the members of the teacher.
        generator: fairseq's, built for them.
        languages: the language tokens of a multilingual teacher.

    Raises:
        Refusal: CTranslate2 cannot hold the teacher, or computes something else.
    """
    nbest, eos = inputs.cfg.generation.nbest, inputs.dataset.tgt_dict.eos()
    first_token = languages.first_token if languages else None
    fairseq_engine = FairseqEngine(generator, models, nbest, eos, first_token)
    engine: engines.SearchEngine = fairseq_engine
    if inputs.cfg.engine == engines.CTRANSLATE2:
        engine = build_ctranslate2(inputs, models, fairseq_engine, languages)
    return MultilingualEngine(engine, languages) if languages else engine


def build_ctranslate2(
    inputs: DecodeInputs,
    models: Sequence[FairseqModel],
    fairseq_engine: FairseqEngine,
    languages: Optional[LanguageTokens],
) -> CTranslate2Engine:
    """Returns CTranslate2's engine, after a comparison with fairseq on the first sentences.

    Args:
        inputs, models, languages: as of build_engine.
        fairseq_engine: the same teacher's, which searches empty sources.
    """
    cfg, dataset = inputs.cfg, inputs.dataset
    on_gpu = uses_gpu(cfg)
    computation = Computation(precision(cfg))
    if on_gpu:
        computation = Computation(precision(cfg), "cuda", torch.cuda.current_device())
    engine = CTranslate2Engine(
        fairseq_engine,
        (dataset.src_dict, dataset.tgt_dict),
        cfg.generation,
        computation,
        languages.foreign if languages else (),
    )
    probe = readable(Teacher(models), dataset, PROBE_BATCH)
    if not probe:
        return engine  # nothing will be searched
    sample = dataset.collater([dataset[i] for i in probe])
    if on_gpu:
        sample = utils.move_to_cuda(sample)  # as fairseq-generate does: fairseq searches some rows
    try:
        engine.verify(sample, languages.prefix_tokens(sample) if languages else None)
    except (RuntimeError, ValueError) as error:  # e.g. another version of a CUDA library
        raise Refusal(
            f"engine ctranslate2 cannot search here ({first_line(error)}); {USE_FAIRSEQ}"
        ) from error
    return engine
