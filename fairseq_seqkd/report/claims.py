"""What Kim & Rush (2016) claim of their Table 1, judged on rows that were measured here."""

from dataclasses import dataclass

from fairseq_seqkd.report.formatting import percent

BASELINE, SEQ_KD = "Student", "Seq-KD"  # the names of the rows that gains and claims are about

SHARE_OF_GAP = 1 / 3
ROUNDING = 1e-9  # 17.3 is 0.3 below 17.6 for a reader, and a little more for a computer


@dataclass(frozen=True)
class Thresholds:
    """From when on a claim counts as seen.

    Args:
        bleu: how far below a beam's BLEU greedy search still is "as good"; a distance to beam search that is "nearly equal".
        mode_ratio: "many times more".
    """

    bleu: float
    mode_ratio: float

    @property
    def of_gap(self):
        return f"a third of that{f', or {self.bleu} BLEU' if self.bleu else ''}"


LENIENT = Thresholds(bleu=0.3, mode_ratio=3.0)  # leaves room for small corpora and a single seed


def make_claims(rows, thresholds=LENIENT):
    """What the paper's Table 1 shows, judged on these rows: [{"claim", "seen", "holds"}]; empty without the rows for it."""
    by_name = {row["name"]: row for row in rows}
    if BASELINE not in by_name or SEQ_KD not in by_name:
        return []
    base, taught = by_name[BASELINE], by_name[SEQ_KD]
    return [
        claim_greedy(base, taught, thresholds),
        claim_same_as_beam(base, taught, thresholds),
        claim_ppl(base, taught),
        claim_mode(base, taught, thresholds),
    ]


def verdict(claim):
    return "Holds" if claim["holds"] else "Does not hold"


def claim_greedy(base, taught, thresholds):
    difference = taught["bleu_greedy"] - base["bleu_beam5"]
    p, differences = (
        taught.get("p_greedy_against_beam5"),
        taught.get("difference_greedy_against_beam5"),
    )
    seeds, chance = sorted(p or (), key=str), ""
    if p and len({differences[seed] > 0 for seed in seeds}) == 1:
        chance = f"; p {'of the seeds ' if len(p) > 1 else '= '}" + ", ".join(
            f"{p[seed]:.3f}" for seed in seeds
        )
    elif p:
        chance = "; seeds: " + ", ".join(
            f"{differences[seed]:+.2f} with p = {p[seed]:.3f}" for seed in seeds
        )
    return {
        "claim": f"{SEQ_KD} with greedy search is as good as {BASELINE} with beam 5",
        "seen": f"{taught['bleu_greedy']:.2f} against {base['bleu_beam5']:.2f} BLEU, {difference:+.2f} "
        f"(holds from {-thresholds.bleu or 0:g}{chance})",
        "holds": difference >= -thresholds.bleu - ROUNDING,
    }


def claim_same_as_beam(base, taught, thresholds):
    gaps = [abs(row["bleu_beam5"] - row["bleu_greedy"]) for row in (base, taught)]
    return {
        "claim": f"After {SEQ_KD}, greedy search nearly equals beam 5",
        "seen": f"{gaps[1]:.2f} BLEU apart, {gaps[0]:.2f} for {BASELINE} (holds up to {thresholds.of_gap})",
        "holds": gaps[1] <= max(gaps[0] * SHARE_OF_GAP, thresholds.bleu) + ROUNDING,
    }


def claim_ppl(base, taught):
    return {
        "claim": f"{SEQ_KD} has a worse perplexity on gold than {BASELINE}",
        "seen": f"{taught['ppl']:.2f} against {base['ppl']:.2f} (holds above it)",
        "holds": taught["ppl"] > base["ppl"],
    }


def claim_mode(base, taught, thresholds):
    mine, theirs = taught["mode_probability"], base["mode_probability"]
    ratio = f"{mine / theirs:.1f} times as much" if theirs else "and nothing to compare it with"
    return {
        "claim": f"{SEQ_KD} puts many times more probability on its own greedy output than {BASELINE}",
        "seen": f"{percent(mine)} against {percent(theirs)}, {ratio} (holds from {thresholds.mode_ratio:g} times)",
        "holds": mine > 0 and mine >= thresholds.mode_ratio * theirs * (1 - ROUNDING),
    }
