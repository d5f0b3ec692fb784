"""The search options of fairseq-generate: which change the result, and which CTranslate2 supports.

No option is ignored. Each field of fairseq's "generation" group is supported, or has no effect on a
hypothesis, or has its default value, or is refused by name. An option that a later fairseq adds is
therefore refused until it has been examined.
"""

import math
from dataclasses import fields
from typing import TYPE_CHECKING

from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Options about printing, of other tasks, and those that the task refuses for every engine.
WITHOUT_EFFECT = {
    "beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt", "no_early_stop", "no_beamable_mm",
    "replace_unk", "sacrebleu", "score_reference", "print_alignment", "print_step",
    "retain_iter_history", "no_seed_provided", "eos_token", "_name",
}  # fmt: skip

# CTranslate2 also forbids repeated n-grams, but before the softmax, which often changes the 1-best.
# So no_repeat_ngram_size is not here.
SUPPORTED = {
    "beam", "nbest", "lenpen", "unnormalized", "max_len_a", "max_len_b", "min_len", "unkpen",
    "sampling", "sampling_topk", "sampling_topp", "temperature",
}  # fmt: skip


def check_for_ctranslate2(search: "DictConfig") -> None:
    """Checks that CTranslate2 supports the options of a search.

    Args:
        search: fairseq's "generation" group.

    Raises:
        Refusal: names every option that it does not support.
    """
    from fairseq.dataclass.configs import GenerationConfig

    known = SUPPORTED | WITHOUT_EFFECT
    unsupported = [
        f"--{field.name.replace('_', '-')}"
        for field in fields(GenerationConfig)
        if field.name not in known and field.name in search and search[field.name] != field.default
    ]
    if search.unkpen not in (0, math.inf):
        unsupported.append(f"--unkpen {search.unkpen} (only 0 or inf)")
    if search.temperature != 1 and not search.sampling:
        unsupported.append("--temperature without --sampling")
    if unsupported:
        raise Refusal(
            f"engine ctranslate2 does not support {', '.join(unsupported)}; use --engine fairseq"
        )
