"""Makes up measurements, for tests of tables, pages and readers of results."""

from typing import Any, Dict, Optional

from fairseq_seqkd.evaluation import records
from fairseq_seqkd.evaluation.records import Measurement


def result(name: str, seed: Optional[int] = None, **changes: Any) -> Dict[str, Any]:
    """Returns a measurement; its numbers are those of the paper's student where it has them."""
    return {
        "name": name,
        "seed": seed,
        "params": 84_000_000,
        "bleu_greedy": 14.7,
        "bleu_beam5": 17.6,
        "ppl": 8.2,
        "mode_probability": 0.009,
        "sentences_per_second_greedy": 1234.5,
        "sentences_per_second_beam5": 55.5,
        "length_ratio_greedy": 1.02,
        "length_ratio_beam5": 0.98,
        "hit_limit_greedy": 3,
        "hit_limit_beam5": 0,
        "sentences": 2737,
        "sacrebleu_signature": "nrefs:1|tok:13a",
        "distillation_signature": None,
        "settings": {"split": "test", "post_process": None, "max_len_a": 1.2, "max_len_b": 10},
        "data_sha256": "d",
        "machine": "a toaster",
        "versions": {"torch": "2"},
        "date": "2026-01-01",
        **changes,
    }


def measurement(name: str, seed: Optional[int] = None, **changes: Any) -> Measurement:
    """Returns `result` as the record that is read from a file."""
    evaluation = records.decode({"results": [result(name, seed, **changes)]})
    return evaluation.results[0]
