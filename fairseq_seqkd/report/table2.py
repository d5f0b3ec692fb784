"""Table 2 of Kim & Rush (2016) from measurements of `seqkd bench`: source words per second."""

from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from fairseq_seqkd.engines import FAIRSEQ
from fairseq_seqkd.engines.int8_support import WITHOUT_VNNI
from fairseq_seqkd.evaluation.records import Bench, Speed
from fairseq_seqkd.report import formatting
from fairseq_seqkd.report.formatting import Column, Note


class SpeedRow(NamedTuple):
    """A row: one model in one engine, and its measurements by beam."""

    first: Speed
    beams: Dict[int, Speed]


def reference(bench: Bench) -> Speed:
    """Returns what the others are compared with: the first model and engine, the widest beam."""
    first = bench.speeds[0]
    same = [s for s in bench.speeds if (s.name, s.engine) == (first.name, first.engine)]
    return max(same, key=lambda speed: speed.beam)


def spread(speed: Speed) -> float:
    """Returns how much faster the fastest round was than the slowest, as a share."""
    return max(speed.words_per_second_rounds) / min(speed.words_per_second_rounds) - 1


def make_rows(bench: Bench) -> List[SpeedRow]:
    """Returns a row for each model and engine, in order of first appearance."""
    rows: Dict[Tuple[str, str], SpeedRow] = {}
    for speed in bench.speeds:
        row = rows.setdefault((speed.name, speed.engine), SpeedRow(speed, {}))
        row.beams[speed.beam] = speed
    return list(rows.values())


def make_columns(bench: Bench) -> List[Column]:
    """Returns the columns: each measured number for each beam."""
    base = reference(bench).words_per_second
    columns = [
        Column("Model", lambda row: str(row.first.name)),
        Column("engine", lambda row: str(row.first.engine)),
        Column("non-zero", lambda row: formatting.millions(row.first.nonzero_params)),
        Column("MB on disk", lambda row: f"{row.first.size_bytes / 1e6:.2f}"),
    ]
    numbers: List[Tuple[str, Callable[[Speed], Optional[float]], str]] = [
        (f"{bench.counted}/s", lambda speed: speed.words_per_second, "{:,.0f}"),
        ("spread", spread, "{:.0%}"),
        ("times", lambda speed: speed.words_per_second / base, "{:.1f}"),
        ("BLEU", lambda speed: speed.bleu, "{:.2f}"),
        ("peak MB", lambda speed: speed.peak_memory_mb, "{:,.0f}"),
    ]
    for title, value, form in numbers:
        for beam in sorted({speed.beam for speed in bench.speeds}):
            columns.append(_beam_column(f"{title} K={beam}", beam, value, form))
    return columns


def _beam_column(
    title: str, beam: int, value: Callable[[Speed], Optional[float]], form: str
) -> Column:
    def text(row: SpeedRow) -> str:
        number = value(row.beams[beam]) if beam in row.beams else None
        return "-" if number is None else form.format(number)

    return Column(title, text)


def markdown(bench: Bench) -> str:
    """Returns the table with its notes."""
    return formatting.with_notes(make_columns(bench), make_rows(bench), notes(bench))


def notes(bench: Bench) -> List[Note]:
    """Returns the notes on the columns, and on how they were measured."""
    base, counted, settings = reference(bench), bench.counted, bench.settings
    rounds = len(bench.speeds[0].words_per_second_rounds)
    median = "1 round" if rounds == 1 else f"the median of {rounds} rounds in turn"
    computed_in = {
        speed.engine: speed.computed_in
        for speed in bench.speeds
        if speed.engine != FAIRSEQ and not speed.engine.endswith(speed.computed_in or "")
    }
    distilled = {
        speed.name: speed.distillation_signature
        for speed in bench.speeds
        if speed.distillation_signature
    }
    base_name = f"{base.name} with beam {base.beam} in {base.engine}"
    return [
        Note(f"{counted}/s", f"source {counted} per second of search on one thread; {median}."),
        Note("spread", "how much faster the fastest round was than the slowest."),
        Note("times", f"{counted} per second divided by those of {base_name}."),
        *(Note(engine, f"computed in {kind}: {WITHOUT_VNNI}.")
          for engine, kind in computed_in.items()),
        Note("BLEU", f"sacrebleu {formatting.text_of(settings)}, of the same run's translations."),
        Note("peak MB", "resident memory of the process that translated, libraries included."),
        Note("MB on disk", "what the engine loads; for fairseq without the optimizer's state."),
        Note("non-zero", "parameters that are not zero."),
        Note("Split", f"{settings.split}, at most {formatting.length_limit_of(settings)}"),
        Note("Machine", f"{bench.machine}; {formatting.flat(bench.versions)}; {bench.date}"),
        Note("Scores", code=[*dict.fromkeys(s.sacrebleu_signature for s in bench.speeds)]),
        *(Note(name, code=[signature]) for name, signature in distilled.items()),
    ]  # fmt: skip
