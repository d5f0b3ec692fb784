"""Which of fairseq-generate's search options change the result, and which of those CTranslate2 can honour.

Nothing is ignored: an option of the "generation" group is honoured, or has no effect on any hypothesis, or stands at its
default, or is refused by name. So an option that a later fairseq adds is refused until somebody has looked at it.
"""

import math
from dataclasses import fields

from fairseq_seqkd.errors import Refusal

# What is printed, other tasks' options, and those that the task refuses for every engine.
WITHOUT_EFFECT = {
    "beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt", "no_early_stop", "no_beamable_mm", "replace_unk", "sacrebleu",
    "score_reference", "print_alignment", "print_step", "retain_iter_history", "no_seed_provided",
    "eos_token", "_name",
}  # fmt: skip

# CTranslate2 also forbids repeated n-grams, but before the softmax, and so often finds another best hypothesis: not here.
HONOURED = {
    "beam", "nbest", "lenpen", "unnormalized", "max_len_a", "max_len_b", "min_len", "unkpen", "sampling", "sampling_topk",
    "sampling_topp", "temperature",
}  # fmt: skip


def check_for_ctranslate2(search):
    """Refuses an option of the search that CTranslate2 does not have; `search` is fairseq's "generation" group."""
    from fairseq.dataclass.configs import GenerationConfig

    instead = "use --engine fairseq"
    for option in fields(GenerationConfig):
        name = option.name
        if name in HONOURED or name in WITHOUT_EFFECT or name not in search:
            continue
        if search[name] != option.default:
            raise Refusal(
                f"--{name.replace('_', '-')} is not among the options that engine ctranslate2 has; {instead}"
            )
    if search.unkpen not in (0, math.inf):
        raise Refusal(
            f"--unkpen {search.unkpen}: engine ctranslate2 has 0 and inf (no unknown words) only; {instead}"
        )
    if search.temperature != 1 and not search.sampling:
        raise Refusal(
            f"--temperature in a beam search is not among the options that engine ctranslate2 has; {instead}"
        )
