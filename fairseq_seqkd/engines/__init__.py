"""Beam search behind one interface. Engines know models and batches; they never touch the disk."""

from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Protocol, Sequence

if TYPE_CHECKING:  # a deployed student imports this package without torch
    from torch import Tensor

    from fairseq_seqkd.corpus.nbest import NBest

Sample = Dict[str, Any]  # a batch of fairseq's LanguagePairDataset

FAIRSEQ, CTRANSLATE2 = "fairseq", "ctranslate2"
NAMES = (FAIRSEQ, CTRANSLATE2)
COMPUTE_TYPES = ("float32", "int8", "int8_float32", "bfloat16", "float16")

# Source tokens per batch at which an engine is fastest with a beam of 5. On one CPU core the
# working set must fit into the caches; a GPU needs enough work to be busy.
BEST_TOKENS = {FAIRSEQ: 3000, CTRANSLATE2: 1024}
BEST_TOKENS_QUANTISED = 512
BEST_TOKENS_GPU = 12_000
BEST_TOKENS_BEAM = 5
FEWEST_TOKENS = 128


class SearchEngine(Protocol):
    """A search over batches of sources: fairseq's, CTranslate2's, or one that wraps another."""

    def begin_part(self, seed: Optional[int]) -> None:
        """Prepares for the batches of one part of the split.

        Args:
            seed: 32-bit seed for a search that draws random numbers; None for one that does not.
        """

    def search(self, sample: Sample, prefix_tokens: "Optional[Tensor]" = None) -> "List[NBest]":
        """Translates the sources of a batch.

        Args:
            sample: a batch of fairseq's LanguagePairDataset; its targets are not read.
            prefix_tokens: (rows, n) target ids with which every hypothesis of a row begins.

        Returns:
            The n-best list of each row, in the order of the rows, best hypothesis first.

        Raises:
            Refusal: the search cannot end, e.g. because the model gives NaN.
        """
        ...


def source_tokens(sample: Sample) -> "Tensor":
    """Returns the (rows, width) padded source ids of a batch."""
    return sample["net_input"]["src_tokens"]


def default_tokens(engine: str, compute_type: str, beam: int, on_gpu: bool) -> int:
    """Returns the source tokens per batch for a user who sets no limit.

    The work for a token grows with the beam, so the limit shrinks in proportion above a beam of 5.
    """
    if on_gpu:
        tokens = BEST_TOKENS_GPU
    elif compute_type != "float32":
        tokens = BEST_TOKENS_QUANTISED
    else:
        tokens = BEST_TOKENS[engine]
    return max(tokens * BEST_TOKENS_BEAM // max(beam, BEST_TOKENS_BEAM), FEWEST_TOKENS)


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[List[int]]:
    """Groups sentences of similar length into batches, longest first.

    Args:
        lengths: tokens of each sentence; sentences of length 0 are left out.
        tokens: largest size of a padded batch. A single longer sentence is a batch of its own.

    Yields:
        The indices of the sentences of a batch.
    """
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i])
    batch: List[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
