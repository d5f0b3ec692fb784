"""fairseq's own search: any model, any ensemble, every option of fairseq-generate.

It runs the generator that fairseq-generate built, and takes ids and scores from it without making text.
"""

import torch

from fairseq_seqkd.corpus.hypotheses import Hypothesis


def search(generator, models, sample, nbest, eos, **constraints):
    """Searches a batch. Returns, row by row of the batch, the list of at most `nbest` Hypothesis, best first."""
    with torch.no_grad():
        found = generator.generate(models, sample, **constraints)
    limit = length_limit(generator, sample)
    return [[hypothesis(h, eos, limit) for h in row[:nbest]] for row in found]


def length_limit(generator, sample):
    """Tokens before the closing EOS at which fairseq ends a search: a property of the batch's longest source."""
    longest = sample["net_input"]["src_tokens"].size(1)
    if getattr(generator, "match_source_len", False):
        return int(sample["net_input"]["src_lengths"].max())
    return min(int(generator.max_len_a * longest + generator.max_len_b), generator.max_len - 1)


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
