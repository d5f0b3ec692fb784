"""How a beam search is run. Engines know models and batches, and no disk.

An engine has two methods:
    begin_part(seed)    called before the first batch of a part; seed: 32 bits where the search draws random numbers, else None
    search(sample, **begin)   row by row of a batch of fairseq's LanguagePairDataset, the n-best list of Hypothesis; begin:
                              prefix_tokens, (rows, n) ids with which every hypothesis begins, or nothing
"""

FAIRSEQ, CTRANSLATE2 = "fairseq", "ctranslate2"
NAMES = (FAIRSEQ, CTRANSLATE2)
COMPUTE_TYPES = ("float32", "int8", "int8_float32", "bfloat16", "float16")

# Source tokens of a batch at which an engine is fastest with a beam of 5. On a core of a CPU the working set must stay in
# its caches, on a GPU there must be enough of it.
BEST_TOKENS = {FAIRSEQ: 3000, CTRANSLATE2: 1024}
BEST_TOKENS_QUANTISED = 512
BEST_TOKENS_GPU = 12_000
BEAM_OF_BEST = 5


def default_tokens(engine, compute_type, beam, on_gpu):
    """Source tokens of a batch where the user names no limit: a beam of 10 does twice the work of 5 for each of them."""
    if on_gpu:
        tokens = BEST_TOKENS_GPU
    elif compute_type != "float32":
        tokens = BEST_TOKENS_QUANTISED
    else:
        tokens = BEST_TOKENS[engine]
    return max(tokens * BEAM_OF_BEST // max(beam, BEAM_OF_BEST), 128)


def by_length(lengths, tokens):
    """Lists of indices of like lengths, longest first, each of at most `tokens` when padded; length 0 is left out."""
    batch = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
