"""Conversion of a fairseq Transformer to CTranslate2, from the model in memory.

For decoding, the vocabulary consists of the dictionary's ids as digits. Ids go in and come out, so
no symbol is ambiguous. A deployed student has the symbols themselves.
"""

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, TypeVar

import numpy as np
import torch

from fairseq_seqkd.engines.ctranslate2_support import USE_FAIRSEQ
from fairseq_seqkd.errors import Refusal, first_line

if TYPE_CHECKING:  # commands check CTranslate2 before they import fairseq
    from fairseq.data import Dictionary
    from fairseq.models import FairseqModel

# The names in CTranslate2 of bos, pad, eos and unk, in the order of fairseq's ids.
SPECIAL = ("<s>", "<blank>", "</s>", "<unk>")
END = "</s>"

Value = TypeVar("Value")


def id_names(dictionary: "Dictionary") -> List[str]:
    """Returns a vocabulary of CTranslate2: each id of a dictionary by its digits."""
    return [*SPECIAL, *map(str, range(len(SPECIAL), len(dictionary)))]


def symbol_names(dictionary: "Dictionary") -> List[str]:
    """Returns a vocabulary of CTranslate2: each id of a dictionary by its symbol.

    Raises:
        Refusal: two ids have the same symbol.
    """
    names = [*SPECIAL, *dictionary.symbols[len(SPECIAL) :]]
    if len(set(names)) != len(names):
        twice = next(symbol for i, symbol in enumerate(names) if symbol in names[:i])
        raise Refusal(
            f"the dictionary has {twice!r} twice, which CTranslate2 does not allow; binarise the "
            "data without it"
        )
    return names


def check_models(models: Sequence["FairseqModel"]) -> None:
    """Raises Refusal for what CTranslate2 cannot hold: ensembles and other architectures."""
    if len(models) != 1:
        raise Refusal(
            "engine ctranslate2 searches with one model, not with an ensemble of "
            f"{len(models)}; {USE_FAIRSEQ}"
        )
    if not is_transformer(models[0]):
        raise Refusal(
            f"engine ctranslate2 holds Transformers only, this teacher is a "
            f"{type(models[0]).__name__}; {USE_FAIRSEQ}"
        )


def is_transformer(model: "FairseqModel") -> bool:
    """Returns whether both encoder and decoder are fairseq's Transformer."""
    from fairseq.models.transformer import TransformerDecoderBase, TransformerEncoderBase

    encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
    return isinstance(encoder, TransformerEncoderBase) and isinstance(
        decoder, TransformerDecoderBase
    )


def convert(
    model: "FairseqModel",
    source_vocabulary: Sequence[str],
    target_vocabulary: Sequence[str],
    add_source_eos: bool = False,
    quantization: Optional[str] = None,
) -> Dict[str, bytes]:
    """Converts a Transformer.

    Args:
        model: the Transformer; it is left unchanged.
        source_vocabulary: the name of every source id.
        target_vocabulary: the name of every target id.
        add_source_eos: whether CTranslate2 adds EOS to a source; else the source holds it.
        quantization: the type of the weights on disk; None for float32.

    Returns:
        The files of CTranslate2's model by name.

    Raises:
        Refusal: a Transformer that CTranslate2 cannot hold.
    """
    # The model may compute on a GPU or in half precision, and CTranslate2 rounds weights in place.
    model = copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
    try:
        spec = weights_of(model)
        spec.register_source_vocabulary(list(source_vocabulary))
        spec.register_target_vocabulary(list(target_vocabulary))
        spec.config.decoder_start_token = END  # as fairseq begins
        spec.config.add_source_eos = add_source_eos
        spec.validate()
        spec.optimize(quantization=quantization)  # stores tied matrices once
        with tempfile.TemporaryDirectory() as folder:
            spec.save(folder)
            return {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    except Exception as error:  # the converter fails in many ways on an unusual Transformer
        raise Refusal(
            f"CTranslate2 cannot hold this Transformer ({first_line(error)}): translate with "
            "fairseq instead"
        ) from error


@torch.no_grad()
def weights_of(model: "FairseqModel") -> Any:
    """Returns CTranslate2's specification of a Transformer, with its weights."""
    from ctranslate2.converters import fairseq as converter
    from ctranslate2.specs import transformer_spec

    encoder, decoder = model.encoder, model.decoder
    first_encoder, first_decoder = encoder.layers[0], decoder.layers[0]
    activation = getattr(model.cfg, "activation_fn", "relu")
    spec = transformer_spec.TransformerSpec.from_config(
        (len(encoder.layers), len(decoder.layers)),
        common_value(
            "attention heads", first_encoder.self_attn.num_heads, first_decoder.self_attn.num_heads
        ),
        pre_norm=common_value(
            "the order of layer norms",
            first_encoder.normalize_before,
            first_decoder.normalize_before,
        ),
        activation=converter._SUPPORTED_ACTIVATIONS[activation],  # its KeyError names the function
        layernorm_embedding=encoder.layernorm_embedding is not None,
    )
    converter.set_transformer_encoder(spec.encoder, encoder)
    converter.set_transformer_decoder(spec.decoder, decoder)
    return spec


def common_value(name: str, of_encoder: Value, of_decoder: Value) -> Value:
    """Returns the value that encoder and decoder must share; raises ValueError if they differ."""
    if of_encoder != of_decoder:
        raise ValueError(f"its encoder and decoder differ in {name}")
    return of_encoder


@torch.no_grad()
def fairseq_log_probs(
    model: "FairseqModel",
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    eos: int,
) -> np.ndarray:
    """Computes log p(target, EOS | source) by fairseq's forward pass, one pair at a time.

    Args:
        model: an encoder-decoder model.
        sources: ids of each source, with its closing EOS.
        targets: ids of each target, without EOS.
        eos: the id of EOS in the target dictionary.

    Returns:
        (pairs,) float64, in nats.
    """
    device = next(model.parameters()).device
    log_probs = []
    for source, target in zip(sources, targets):
        net_output = model(
            src_tokens=torch.tensor([list(source)], device=device),
            src_lengths=torch.tensor([len(source)], device=device),
            prev_output_tokens=torch.tensor([[eos, *target]], device=device),
        )
        lprobs = model.get_normalized_probs(net_output, log_probs=True)[0].double()
        closed = torch.tensor([*target, eos], device=device)
        log_probs.append(lprobs.gather(1, closed.unsqueeze(1)).sum().item())
    return np.array(log_probs)
