"""A split of a data-bin as two aligned text files, for other toolkits and vocabularies.

Sentences are written one after the other, so memory does not grow with the corpus.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from fairseq.data import Dictionary, FairseqDataset

# The characters that some program takes for the end of a line (those of str.splitlines).
LINE_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")


class Side:
    """One language of a split, as lines of text.

    Args:
        dataset: sentence id to token ids, from `Split.read`.
        dictionary: the dictionary of the ids.
        detokenise: token ids to text.
        name: the file of the side, for error messages.

    Attributes:
        unknown: unknown words in the lines so far.
        line_breaks: lines so far in which a line break became a space.
        empty: empty lines so far.
    """

    def __init__(
        self,
        dataset: "FairseqDataset",
        dictionary: "Dictionary",
        detokenise: Callable[[np.ndarray], str],
        name: str,
    ) -> None:
        self.dataset, self.dictionary = dataset, dictionary
        self.detokenise, self.name = detokenise, name
        self.unknown = self.line_breaks = self.empty = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def line(self, row: int) -> str:
        """Returns a sentence as one line, and counts what is odd about it.

        Raises:
            Refusal: the data are damaged.
        """
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
        text = self.detokenise(tokens)
        line = text.translate(LINE_BREAKS)
        self.unknown += int((tokens == self.dictionary.unk()).sum())
        self.line_breaks += line != text
        self.empty += not line.strip()
        return line


def write(
    sides: Tuple[Side, Side],
    paths: Tuple[Union[str, Path], Union[str, Path]],
    rows: Callable[[int], Iterable[int]] = range,
) -> int:
    """Writes source and target, one sentence per line. Both files appear at the end.

    Args:
        sides: source and target.
        paths: the files to write.
        rows: given the number of sentences, the rows in order, e.g. with a progress bar.

    Returns:
        The number of lines of each file.

    Raises:
        Refusal: the sides differ in length, the data are damaged, or a file cannot be written.
    """
    source, target = sides
    if len(source) != len(target):
        raise Refusal(
            f"{source.name} has {len(source):,} sentences, {target.name} has {len(target):,}: they "
            "do not belong together; make them anew"
        )
    with whole_file(paths[0]) as source_file, whole_file(paths[1]) as target_file:
        for row in rows(len(source)):
            source_file.write(f"{source.line(row)}\n".encode())
            target_file.write(f"{target.line(row)}\n".encode())
        # One of the files appears first: a full disk must show before that, and no old file may
        # stand beside a new one.
        for file in (source_file, target_file):
            file.flush()
            os.fsync(file.fileno())
        for path in paths:
            Path(path).unlink(missing_ok=True)
    return len(source)
