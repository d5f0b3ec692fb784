"""A Transformer of fairseq as CTranslate2's, made from the model in memory, and compared with it before it is used.

For decoding, its vocabulary is the dictionary's ids, written as digits: ids go in and come out, and no symbol is
ambiguous. A deployed student has the symbols themselves.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch

from fairseq_seqkd.errors import Refusal, first_line

SPECIAL = (
    "<s>",
    "<blank>",
    "</s>",
    "<unk>",
)  # what CTranslate2 calls bos, pad, eos and unk, in fairseq's order
START, PAD, END = SPECIAL[:3]
INSTEAD = "use --engine fairseq"


def names(dictionary):
    """The vocabulary for CTranslate2: name of every id of a fairseq dictionary."""
    check_special(dictionary)
    return [*SPECIAL, *map(str, range(len(SPECIAL), len(dictionary)))]


def symbols(dictionary):
    """The vocabulary of a deployed model: the dictionary's symbols, which must differ."""
    check_special(dictionary)
    found = [*SPECIAL, *dictionary.symbols[len(SPECIAL) :]]
    if len(set(found)) != len(found):
        twice = next(symbol for i, symbol in enumerate(found) if symbol in found[:i])
        raise Refusal(
            f"the dictionary has {twice!r} twice, which a CTranslate2 vocabulary cannot; binarise without it"
        )
    return found


def check_special(dictionary):
    if (dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()) != (0, 1, 2, 3):
        raise Refusal(
            "CTranslate2 wants a dictionary whose special symbols are its first four: translate with fairseq instead"
        )


def check_models(models):
    """Refuses what CTranslate2 cannot hold."""
    if len(models) != 1:
        raise Refusal(
            f"engine ctranslate2 searches with one model, not with an ensemble of {len(models)}; {INSTEAD}"
        )
    if not is_transformer(models[0]):
        raise Refusal(
            f"engine ctranslate2 holds Transformers only, this teacher is a {type(models[0]).__name__}; {INSTEAD}"
        )


def is_transformer(model):
    from fairseq.models.transformer import TransformerDecoderBase, TransformerEncoderBase

    encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
    return isinstance(encoder, TransformerEncoderBase) and isinstance(
        decoder, TransformerDecoderBase
    )


def convert(model, source_vocabulary, target_vocabulary, add_source_eos=False, quantization=None):
    """The files of CTranslate2's model, {name: bytes}. Raises Refusal for a Transformer that it cannot hold.

    Args: vocabularies: the name of every id; add_source_eos: whether CTranslate2 adds EOS to a source, or it holds one;
    quantization: the type of the weights on disk (None: float32).
    """
    from ctranslate2.converters import fairseq as converter
    from ctranslate2.specs import transformer_spec

    if quantization is not None:
        model = copy.deepcopy(
            model
        )  # CTranslate2 rounds in place, in memory that the arrays share with the model
    encoder, decoder = model.encoder, model.decoder
    try:
        with torch.no_grad(), as_float32(model):
            spec = transformer_spec.TransformerSpec.from_config(
                (len(encoder.layers), len(decoder.layers)),
                same(
                    "attention heads",
                    encoder.layers[0].self_attn.num_heads,
                    decoder.layers[0].self_attn.num_heads,
                ),
                pre_norm=same(
                    "places of layer norms",
                    encoder.layers[0].normalize_before,
                    decoder.layers[0].normalize_before,
                ),
                activation=activation(model, converter),
                layernorm_embedding=encoder.layernorm_embedding is not None,
            )
            converter.set_transformer_encoder(spec.encoder, encoder)
            converter.set_transformer_decoder(spec.decoder, decoder)
            spec.register_source_vocabulary(list(source_vocabulary))
            spec.register_target_vocabulary(list(target_vocabulary))
            spec.config.decoder_start_token = END  # as fairseq begins
            spec.config.add_source_eos = add_source_eos
            spec.validate()
            spec.optimize(quantization=quantization)  # tied matrices are written once, too
            with tempfile.TemporaryDirectory() as folder:
                spec.save(folder)
                return {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    except (
        Exception
    ) as error:  # whatever part of an unusual Transformer it is that the converter stumbles over
        reason = first_line(error)
        raise Refusal(
            f"CTranslate2 cannot hold this Transformer ({reason}): translate with fairseq instead"
        ) from error


def same(what, left, right):
    if left != right:
        raise ValueError(f"its encoder and decoder differ in {what}")
    return left


def activation(model, converter):
    name = getattr(model.cfg, "activation_fn", "relu")
    return converter._SUPPORTED_ACTIVATIONS[name]  # a KeyError names the function


class as_float32:
    """A model on the CPU in float32 for the time of a block; where it is there already, nothing is moved."""

    def __init__(self, model):
        self.model, parameter = model, next(model.parameters())
        self.before = (parameter.device, parameter.dtype)

    def __enter__(self):
        self.model.to(device="cpu", dtype=torch.float32)

    def __exit__(self, *_):
        self.model.to(device=self.before[0], dtype=self.before[1])


def fairseq_log_probs(model, sources, targets, dictionary):
    """log p(target, EOS given source) in nats by a forward pass of fairseq: (pairs,) float64.

    Args: sources: lists of ids that end with EOS; targets: lists of ids without.
    """
    device = next(model.parameters()).device
    eos, found = dictionary.eos(), []
    for source, target in zip(sources, targets):
        tokens = torch.tensor([source], device=device)
        prefix = torch.tensor([[eos, *target]], device=device)
        with torch.no_grad():
            out = model(
                src_tokens=tokens,
                src_lengths=torch.tensor([len(source)], device=device),
                prev_output_tokens=prefix,
            )
            lprobs = model.get_normalized_probs(out, log_probs=True)[0].double()
        found.append(lprobs.gather(1, torch.tensor([[*target, eos]], device=device).T).sum().item())
    return np.array(found)
