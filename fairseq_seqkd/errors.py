"""Errors for the person at the keyboard: one sentence that says what is wrong and what to do."""

from contextlib import contextmanager
from typing import Iterator, List, Sequence


class Refusal(SystemExit):
    """Stops the program with exit code 1 and one line on standard error.

    It is a SystemExit because fairseq has no other way to end a run without a traceback. Library
    code catches it by name, and reads `sentence`.

    Args:
        sentence: what is wrong and what to do, without a prefix and without a final period.
        sentences: the same, one by one, where several things are wrong.
    """

    def __init__(self, sentence: str, sentences: Sequence[str] = ()) -> None:
        super().__init__(f"fairseq_seqkd: {sentence}")
        self.sentence = sentence
        self.sentences = list(sentences) or [sentence]


class Problems:
    """Collects what is wrong with a command line, so that all of it is reported at once.

    Example::

        problems = Problems()
        with problems.collect():
            check_alpha(alpha)
        with problems.collect():
            check_temperature(temperature)
        problems.refuse()
    """

    def __init__(self) -> None:
        self.sentences: List[str] = []

    def add(self, sentence: str) -> None:
        """Adds a sentence; one that is there already is not repeated."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def require(self, condition: object, sentence: str) -> None:
        """Adds a sentence unless a condition holds."""
        if not condition:
            self.add(sentence)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Runs a block of checks, and keeps the sentences of a Refusal instead of stopping."""
        try:
            yield
        except Refusal as refusal:
            for sentence in refusal.sentences:
                self.add(sentence)

    def refuse(self) -> None:
        """Stops the program if there are problems.

        Raises:
            Refusal: with the sentence itself if there is one, else with a line for each.
        """
        if len(self.sentences) == 1:
            raise Refusal(self.sentences[0])
        if self.sentences:
            lines = "".join(f"\n  {sentence}" for sentence in self.sentences)
            raise Refusal(f"{len(self.sentences)} problems:{lines}", self.sentences)


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or its name if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
