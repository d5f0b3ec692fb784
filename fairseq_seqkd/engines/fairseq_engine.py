"""fairseq's own search: any model, any ensemble, every option of fairseq-generate.

It runs the generator that fairseq-generate built, and takes ids and scores from it without making text. Three things
that fairseq pays for at every step, and that change no hypothesis, are left out:
  * the encoder's output is copied in the order of the beams, although all beams of a sentence share one output;
  * the keys and values of the encoder's output are kept once a beam instead of once a sentence (fairseq can do the
    latter, but asks for it by a method that no model has);
  * attention is recorded for alignments that nobody reads.
"""

import contextlib

import torch
from fairseq.sequence_generator import EnsembleModel

from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal, first_line


class FairseqEngine:
    """Args: generator: fairseq's, whose ensemble is replaced; models: what it searches with; nbest; eos: the target's id."""

    def __init__(self, generator, models, nbest, eos, first_token=None):
        self.first_token = first_token
        self.generator, self.models, self.nbest, self.eos = generator, models, nbest, eos
        self.shared = []  # attention modules that can keep one copy of keys and values for all beams of a sentence
        if type(getattr(generator, "model", None)) is EnsembleModel:
            generator.model = Ensemble(list(generator.model.models))
            self.shared = [
                module
                for module in generator.model.modules()
                if getattr(module, "encoder_decoder_attention", False)
                and hasattr(module, "set_beam_size")
            ]

    def begin_part(self, seed):
        if seed is not None:
            torch.manual_seed(seed)

    def search(self, sample, prefix_tokens=None):
        """Returns, row by row of the batch, the list of at most `nbest` Hypothesis, best first."""
        try:
            with torch.no_grad(), self._sharing(self.generator.beam_size):
                found = self.generator.generate(
                    self.models, sample, prefix_tokens=prefix_tokens, bos_token=self.first_token
                )
        except AssertionError as error:  # no hypothesis has ended at the length limit
            ids = sorted(sample["id"].tolist())
            raise Refusal(
                f"fairseq's search comes to no end ({first_line(error)}) on one of {len(ids)} sentences, {ids[0]} to {ids[-1]}: "
                "the teacher's distributions are no numbers there, or --min-len is more than its positions; search in float32, "
                "without --fp16, or with another checkpoint"
            ) from error
        limit = length_limit(self.generator, sample)
        return [[hypothesis(h, self.eos, limit) for h in row[: self.nbest]] for row in found]

    @contextlib.contextmanager
    def _sharing(self, beam):
        """For the time of a search: in an ordinary forward pass a row is a sentence, and no beam."""
        for module in self.shared:
            module.set_beam_size(beam)
        try:
            yield
        finally:
            for module in self.shared:
                module.set_beam_size(1)


class Ensemble(EnsembleModel):
    """fairseq's ensemble without copies of the encoder's output and records of attention."""

    def __init__(self, models):
        super().__init__(models)
        self.eval()

    def forward_decoder(self, *args, **kwargs):
        lprobs, _ = super().forward_decoder(*args, **kwargs)
        return lprobs, None

    def reorder_encoder_out(self, encoder_outs, new_order):
        # The search permutes beams within their sentence; only when sentences are finished are there fewer rows.
        if encoder_outs and rows_of(encoder_outs[0]) == len(new_order):
            return encoder_outs
        return super().reorder_encoder_out(encoder_outs, new_order)


def rows_of(encoder_out):
    """Rows of an encoder's output in fairseq's usual form, whose tensors are (length, rows, dimensions); else None."""
    out = encoder_out.get("encoder_out") if isinstance(encoder_out, dict) else None
    return out[0].size(1) if isinstance(out, list) and out and out[0].dim() == 3 else None


def length_limit(generator, sample):
    """Tokens before the closing EOS at which fairseq ends a search: a property of the batch's longest source."""
    if getattr(generator, "match_source_len", False):
        return int(sample["net_input"]["src_lengths"].max())
    limit = LengthLimit(generator.max_len_a, generator.max_len_b, generator.max_len - 1)
    return limit.of(sample["net_input"]["src_tokens"].size(1))


def hypothesis(found, eos, limit):
    """fairseq's dictionary for a hypothesis as ours. Ids keep everything but the closing EOS."""
    tokens = found["tokens"].cpu().numpy()
    closed = len(tokens) > 0 and tokens[-1] == eos
    return Hypothesis(
        tokens=tokens[:-1] if closed else tokens,
        score=float(found["score"]),
        log_prob=float(found["positional_scores"].double().sum()),
        hit_limit=bool(len(tokens) - int(closed) >= limit),
    )
