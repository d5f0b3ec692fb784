"""The claims of Kim & Rush (2016) about their Table 1, judged on measured rows."""

from dataclasses import dataclass
from typing import List, Sequence

from fairseq_seqkd.report.formatting import percent
from fairseq_seqkd.report.records import BASELINE, SEQ_KD, Claim, Row

SHARE_OF_GAP = 1 / 3
ROUNDING = 1e-9  # 17.3 is 0.3 below 17.6 for a reader, and a little more for a computer


@dataclass(frozen=True)
class Thresholds:
    """The borders of the claims.

    Args:
        bleu: how far below beam search greedy search still counts as equally good, in BLEU.
        mode_ratio: what "many times more" means.
    """

    bleu: float
    mode_ratio: float

    @property
    def of_gap(self) -> str:
        """The border of the second claim in words."""
        return f"a third of that{f', or {self.bleu} BLEU' if self.bleu else ''}"


LENIENT = Thresholds(bleu=0.3, mode_ratio=3.0)  # leaves room for small corpora and a single seed


def make_claims(rows: Sequence[Row], thresholds: Thresholds = LENIENT) -> List[Claim]:
    """Judges the claims. The list is empty if a row for it is missing."""
    by_name = {row.name: row for row in rows}
    if BASELINE not in by_name or SEQ_KD not in by_name:
        return []
    base, distilled = by_name[BASELINE], by_name[SEQ_KD]
    return [
        _claim_greedy(base, distilled, thresholds),
        _claim_same_as_beam(base, distilled, thresholds),
        Claim(
            f"{SEQ_KD} has a worse perplexity on gold than {BASELINE}",
            f"{distilled.ppl:.2f} against {base.ppl:.2f} (holds above it)",
            distilled.ppl > base.ppl,
        ),
        _claim_mode(base, distilled, thresholds),
    ]


def _claim_greedy(base: Row, distilled: Row, thresholds: Thresholds) -> Claim:
    difference = distilled.bleu_greedy - base.bleu_beam5
    return Claim(
        f"{SEQ_KD} with greedy search is as good as {BASELINE} with beam 5",
        f"{distilled.bleu_greedy:.2f} against {base.bleu_beam5:.2f} BLEU, {difference:+.2f} "
        f"(holds from {-thresholds.bleu or 0:g}{_chance(distilled)})",
        difference >= -thresholds.bleu - ROUNDING,
    )


def _chance(distilled: Row) -> str:
    """Returns the p-values of the seeds in words; with the differences if their signs differ."""
    by_seed = distilled.tests.get("greedy_against_beam5", {})
    tests = [by_seed[seed] for seed in sorted(by_seed, key=str)]
    if not tests:
        return ""
    if len({test.bleu > 0 for test in tests}) == 1:
        values = ", ".join(f"{test.p:.3f}" for test in tests)
        return f"; p {'of the seeds ' if len(tests) > 1 else '= '}{values}"
    return "; seeds: " + ", ".join(f"{test.bleu:+.2f} with p = {test.p:.3f}" for test in tests)


def _claim_same_as_beam(base: Row, distilled: Row, thresholds: Thresholds) -> Claim:
    gap, base_gap = (abs(row.bleu_beam5 - row.bleu_greedy) for row in (distilled, base))
    return Claim(
        f"After {SEQ_KD}, greedy search nearly equals beam 5",
        f"{gap:.2f} BLEU apart, {base_gap:.2f} for {BASELINE} (holds up to {thresholds.of_gap})",
        gap <= max(base_gap * SHARE_OF_GAP, thresholds.bleu) + ROUNDING,
    )


def _claim_mode(base: Row, distilled: Row, thresholds: Thresholds) -> Claim:
    p, base_p = distilled.mode_probability, base.mode_probability
    ratio = f"{p / base_p:.1f} times as much" if base_p else "and nothing to compare it with"
    return Claim(
        f"{SEQ_KD} puts many times more probability on its own greedy output than {BASELINE}",
        f"{percent(p)} against {percent(base_p)}, {ratio} "
        f"(holds from {thresholds.mode_ratio:g} times)",
        p > 0 and p >= thresholds.mode_ratio * base_p * (1 - ROUNDING),
    )
