"""A split of a data-bin written as two files of text, line by line aligned: what another toolkit, or another vocabulary, reads.

Sentences are made one after the other, so memory does not grow with the corpus.
"""

import os
from collections import Counter
from pathlib import Path

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

# Everything that some reader of text takes for the end of a line (the set of str.splitlines), to be written as a space.
LINE_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")


class Side:
    """One language of a split: sentence id -> one line of text. Counts what a user should know about in `counts`.

    Args: dataset: sentence id -> ids (databin.Split.read); dictionary: theirs; detokenise: ids -> text; name: for errors.
    """

    def __init__(self, dataset, dictionary, detokenise, name):
        self.dataset, self.dictionary, self.detokenise, self.name = (
            dataset,
            dictionary,
            detokenise,
            name,
        )
        self.counts = Counter()

    def __len__(self):
        return len(self.dataset)

    def line(self, row):
        try:
            tokens = self.dataset[row].numpy()
        except (ValueError, IndexError) as error:  # the index points outside of the data
            raise Refusal(
                f"{self.name} is damaged at sentence {row:,} ({error}); restore it or make it anew"
            ) from None
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < len(self.dictionary):
            raise Refusal(
                f"{self.name} is damaged at sentence {row:,}, or its dictionary is another one: "
                "it holds ids that are no symbols; restore it or make it anew"
            )
        self.counts["unknown"] += int((tokens == self.dictionary.unk()).sum())
        text = self.detokenise(tokens)
        line = text.translate(LINE_BREAKS)
        self.counts["line_breaks"] += line != text
        self.counts["empty"] += not line.strip()
        return line


def write(source, target, source_path, target_path, rows=range):
    """Writes two Sides, UTF-8, n sentences as n lines each. Both appear when all is written. Returns n.

    Args: rows: n -> an iterable of the rows in order; a progress bar wraps it.

    Raises Refusal for sides of different lengths, for damaged data and for a file that cannot be written.
    """
    if len(source) != len(target):
        raise Refusal(
            f"{source.name} has {len(source):,} sentences, {target.name} has {len(target):,}: they do not belong together; "
            "make them anew"
        )
    with whole_file(source_path) as source_file, whole_file(target_path) as target_file:
        for row in rows(len(source)):
            source_file.write(f"{source.line(row)}\n".encode())
            target_file.write(f"{target.line(row)}\n".encode())
        # Of two renames one comes first: a full disk must show before it, and an old file never stand beside a new one.
        for file in (source_file, target_file):
            file.flush()
            os.fsync(file.fileno())
        for path in (source_path, target_path):
            Path(path).unlink(missing_ok=True)
    return len(source)
