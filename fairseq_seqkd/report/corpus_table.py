"""The statistics of gold and of the teacher's translations, as a table."""

from typing import Dict, List

from fairseq_seqkd.report.formatting import Column, Note, with_notes
from fairseq_seqkd.report.records import CorpusStatistics

# Rows are items of a dictionary: the name of the targets, and their statistics.
COLUMNS = (
    Column("Targets", lambda row: str(row[0])),
    Column("sentences", lambda row: f"{row[1].sentences:,}"),
    Column("tokens", lambda row: f"{row[1].tokens:.1f}"),
    Column("to source", lambda row: f"{row[1].ratio:.2f}"),
    Column("vocabulary", lambda row: f"{row[1].vocabulary:,}"),
    Column("duplicates", lambda row: f"{row[1].duplicates:.1%}"),
    Column("complexity", lambda row: f"{row[1].complexity:.2f}"),
)


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
    return with_notes(COLUMNS, [*corpus.items()], notes(corpus))
