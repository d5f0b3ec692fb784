"""The statistics of gold and of the teacher's translations, as a table."""

from typing import Dict, List, NamedTuple

from fairseq_seqkd.report.formatting import Column, Note, table, with_notes
from fairseq_seqkd.report.records import CorpusStatistics


class CorpusRow(NamedTuple):
    """A row: gold or a view, and its statistics."""

    name: str
    targets: CorpusStatistics


COLUMNS = (
    Column("Targets", lambda row: str(row.name)),
    Column("sentences", lambda row: f"{row.targets.sentences:,}"),
    Column("tokens", lambda row: f"{row.targets.tokens:.1f}"),
    Column("to source", lambda row: f"{row.targets.ratio:.2f}"),
    Column("vocabulary", lambda row: f"{row.targets.vocabulary:,}"),
    Column("duplicates", lambda row: f"{row.targets.duplicates:.1%}"),
    Column("complexity", lambda row: f"{row.targets.complexity:.2f}"),
)


def make_rows(corpus: Dict[str, CorpusStatistics]) -> List[CorpusRow]:
    """Returns a row for each set of targets."""
    return [CorpusRow(name, targets) for name, targets in corpus.items()]


def notes(corpus: Dict[str, CorpusStatistics]) -> List[Note]:
    """Returns the notes on the columns."""
    aligned = next(iter(corpus.values())).aligned
    return [
        Note("tokens", "mean length of a target, without EOS."),
        Note("to source", "target tokens per source token."),
        Note("vocabulary", "target symbols that occur."),
        Note("duplicates", "targets that an earlier sentence has, too."),
        Note("complexity", "freedom of translation: mean over source symbols of the entropy, in "
             "nats, of the target symbols aligned to them (Zhou et al. 2020; alignments by IBM "
             "Model 1). Less is easier to learn."),
        Note("aligned", f"the same {aligned:,} sentences of all; more of them increase the "
             "complexity."),
    ]  # fmt: skip


def markdown(corpus: Dict[str, CorpusStatistics]) -> str:
    """Returns the table with its notes."""
    return with_notes(table(COLUMNS, make_rows(corpus)), notes(corpus))
