"""Measures similarity with sacrebleu itself, for comparison with ours."""


def sentence_bleu(output: str, reference: str, tokenize: str = "13a") -> float:
    """Returns sacrebleu's sentence BLEU of one output.

    sacrebleu has no value for an empty reference: then it is 100 for an empty output, else 0.
    """
    import sacrebleu

    if not reference.strip():
        return 0.0 if output.strip() else 100.0
    bleu = sacrebleu.sentence_bleu(output, [reference], tokenize=tokenize, use_effective_order=True)
    return bleu.score
