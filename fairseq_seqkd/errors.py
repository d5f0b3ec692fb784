"""The one error that is meant for the person at the keyboard: a sentence that says what is wrong and what to do."""


class Refusal(SystemExit):
    """Stops the program with exit code 1 and one line on standard error.

    It is a SystemExit because fairseq has no other way to end a run without a traceback. Library code catches it by
    name.
    """

    def __init__(self, sentence):
        super().__init__(f"fairseq_seqkd: {sentence}")

    @property
    def sentence(self):
        return self.code


def first_line(error):
    """The first line of an exception's message, or its name: what fits into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
