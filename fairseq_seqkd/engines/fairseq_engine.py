"""fairseq's own search: any model, any ensemble, every option of fairseq-generate.

It runs the generator that fairseq-generate built, and takes ids and scores from it without making
text. Three costs of every search step are removed, without a change to any hypothesis:

* The encoder's output is not copied when beams are reordered: all beams of a sentence share it.
* Keys and values of the encoder's output are kept once per sentence instead of once per beam.
  fairseq has this, but enables it through a method that no model has.
* Attention is not recorded for alignments that nobody reads.
"""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from fairseq.models import FairseqModel
from fairseq.sequence_generator import EnsembleModel
from torch import Tensor

from fairseq_seqkd.corpus.nbest import Hypothesis, NBest
from fairseq_seqkd.engines import Sample, source_tokens
from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal, first_line


class FairseqEngine:
    """A SearchEngine that runs a generator of fairseq.

    Args:
        generator: what ``task.build_generator`` returns. Its ensemble is replaced.
        models: the models that it searches with.
        nbest: the number of hypotheses to keep per sentence.
        eos: the id of EOS in the target dictionary.
        first_token: the id that the decoder reads first; None for EOS.
    """

    def __init__(
        self,
        generator: Any,
        models: Sequence[FairseqModel],
        nbest: int,
        eos: int,
        first_token: Optional[int] = None,
    ) -> None:
        self.generator, self.models, self.nbest = generator, models, nbest
        self.eos, self.first_token = eos, first_token
        self.cross_attentions: List[Any] = []  # those that can share keys among beams
        if type(getattr(generator, "model", None)) is EnsembleModel:
            generator.model = Ensemble(list(generator.model.models))
            self.cross_attentions = [
                module
                for module in generator.model.modules()
                if getattr(module, "encoder_decoder_attention", False)
                and hasattr(module, "set_beam_size")
            ]

    def begin_part(self, seed: Optional[int]) -> None:
        """Seeds torch, for a search that draws random numbers."""
        if seed is not None:
            torch.manual_seed(seed)

    @torch.no_grad()
    def search(self, sample: Sample, prefix_tokens: Optional[Tensor] = None) -> List[NBest]:
        """Translates the sources of a batch, see `SearchEngine.search`."""
        try:
            with self._shared_keys():
                rows = self.generator.generate(
                    self.models, sample, prefix_tokens=prefix_tokens, bos_token=self.first_token
                )
        except AssertionError as error:  # no hypothesis has ended at the length limit
            ids = sorted(sample["id"].tolist())
            raise Refusal(
                f"fairseq's search does not end ({first_line(error)}) on one of {len(ids)} "
                f"sentences, {ids[0]} to {ids[-1]}: the teacher gives NaN there, or --min-len is "
                "more than its positions; search in float32, without --fp16, or use another "
                "checkpoint"
            ) from error
        limit = self._length_limit(sample)
        return [[self._hypothesis(h, limit) for h in row[: self.nbest]] for row in rows]

    def _length_limit(self, sample: Sample) -> int:
        """Returns the tokens before EOS at which fairseq ends the search of a batch."""
        generator = self.generator
        if getattr(generator, "match_source_len", False):
            return int(sample["net_input"]["src_lengths"].max())
        limit = LengthLimit(generator.max_len_a, generator.max_len_b, generator.max_len - 1)
        return limit.of(source_tokens(sample).size(1))

    def _hypothesis(self, fairseq_hypothesis: Dict[str, Tensor], limit: int) -> Hypothesis:
        """Converts a hypothesis of fairseq. Only the closing EOS is removed from its ids."""
        tokens = fairseq_hypothesis["tokens"].cpu().numpy()
        if len(tokens) and tokens[-1] == self.eos:
            tokens = tokens[:-1]
        return Hypothesis(
            tokens=tokens,
            score=float(fairseq_hypothesis["score"]),
            log_prob=float(fairseq_hypothesis["positional_scores"].double().sum()),
            hit_limit=len(tokens) >= limit,
        )

    @contextmanager
    def _shared_keys(self) -> Iterator[None]:
        """Shares keys among the beams of a sentence. Outside a search, a row is a sentence."""
        for module in self.cross_attentions:
            module.set_beam_size(self.generator.beam_size)
        try:
            yield
        finally:
            for module in self.cross_attentions:
                module.set_beam_size(1)


class Ensemble(EnsembleModel):
    """fairseq's ensemble, without copies of the encoder's output and without attention weights."""

    def __init__(self, models: List[FairseqModel]) -> None:
        super().__init__(models)
        self.eval()

    def forward_decoder(self, *args: Any, **kwargs: Any) -> Tuple[Tensor, None]:
        """Returns the log-probabilities of the next token, and no attention."""
        lprobs, _ = super().forward_decoder(*args, **kwargs)
        return lprobs, None

    def reorder_encoder_out(self, encoder_outs: Any, new_order: Tensor) -> Any:
        """Reorders the encoder's output, if the order changes more than beams of a sentence.

        fairseq permutes beams within their sentence, until sentences are finished: then there are
        fewer rows.
        """
        if encoder_outs and rows_of(encoder_outs[0]) == len(new_order):
            return encoder_outs
        return super().reorder_encoder_out(encoder_outs, new_order)


def rows_of(encoder_out: Any) -> Optional[int]:
    """Returns the rows of an encoder's output of (length, rows, dimension); else None."""
    states = encoder_out.get("encoder_out") if isinstance(encoder_out, dict) else None
    if not isinstance(states, list) or not states or states[0].dim() != 3:
        return None
    return states[0].size(1)
