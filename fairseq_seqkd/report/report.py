"""A whole report: Table 1 from evaluations, Table 2 from speeds, Table 3 if models are pruned."""

from typing import Iterator, List, Optional, Sequence

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.records import Bench, Comparison, Measurement
from fairseq_seqkd.report import corpus_table, table1, table2, table3
from fairseq_seqkd.report.records import Report, RunDetails


def make_report(
    measurements: Sequence[Measurement],
    benches: Sequence[Bench] = (),
    title: Optional[str] = None,
    comparisons: Sequence[Comparison] = (),
) -> Report:
    """Makes a report.

    Args:
        measurements: results of `seqkd evaluate`; may be empty if there are speeds.
        benches: results of `seqkd bench`.
        title: its title.
        comparisons: the bootstrap tests of `seqkd evaluate`.

    Raises:
        Refusal: there is nothing to report, or the measurements do not belong together.
    """
    for bench in benches if measurements else ():
        _check_same(bench, measurements[0])
    if benches and not measurements:
        report = Report(title=title or "Speed")
    else:
        report = table1.make_report(measurements, title, comparisons)
    report.table2 = list(benches) or None
    report.table3 = table3.make_rows(report.rows) or None
    return report


def _check_same(bench: Bench, measurement: Measurement) -> None:
    """Refuses speeds that were measured on other data or with other options than the results."""
    if bench.data_sha256 != measurement.data_sha256:
        raise Refusal(
            "the speeds were measured on other data than the results; evaluate and bench on the "
            "same split"
        )
    settings = measurement.settings
    name = bench.settings.first_difference(settings) if settings else None
    if name is not None:
        speed, result = (getattr(each, name, None) for each in (bench.settings, settings))
        raise Refusal(
            f"the speeds were measured with {name} {speed}, the results with {result}; evaluate "
            "and bench with the same options"
        )


def to_markdown(report: Report) -> str:
    """Returns the report for reading."""
    details = report.details or RunDetails()
    parts = [table1.to_markdown(report) if report.rows else f"# {report.title}\n"]
    parts += [f"## Speed\n\n{table2.markdown(bench)}" for bench in report.table2 or ()]
    if report.table3:
        parts.append(f"## Pruning\n\n{table3.markdown(report.table3)}")
    if details.corpus:
        parts.append(f"## The training targets\n\n{corpus_table.markdown(details.corpus)}")
    steps: List[str] = [*pipeline_lines(details)]
    if steps:
        parts.append("## The pipeline\n\n" + "\n".join(steps) + "\n")
    if details.remarks:
        remarks = "\n".join(f"- {remark}" for remark in details.remarks)
        parts.append(f"## Left out\n\n{remarks}\n")
    return "\n".join(parts)


def pipeline_lines(details: RunDetails) -> Iterator[str]:
    """Yields a line for each step of the pipeline, and for each training."""
    for step in details.pipeline:
        facts = ", ".join(f"{name} {value}" for name, value in step.facts.items())
        line = f"- **{step.step}**: {step.description} (`{step.where}`)"
        yield f"{line}: {facts}" if facts else line
    for training in details.trainings:
        facts = ", ".join(f"{name} {value}" for name, value in training.others.items())
        yield f"- **Training: {training.name}** (`{training.log}`): {facts}"
