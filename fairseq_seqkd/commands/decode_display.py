"""What ``seqkd decode`` shows while its workers decode."""

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from fairseq_seqkd.corpus.progress import Progress

LINE_INTERVAL = 10  # seconds between two lines, where standard error is no terminal


class Display:
    """Shows a progress bar on a terminal, and a line now and then elsewhere.

    The rate counts the sentences decoded since the start.

    Args:
        before: the state of the directory at the start, or None if it does not exist yet.
    """

    def __init__(self, before: "Optional[Progress]") -> None:
        self.first = before.done if before else 0
        self.done = self.first
        self.start = self.last_line = time.time()
        self.bar: Any = None  # a tqdm

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def print(self, text: str) -> None:
        """Prints a line on standard error, above the bar."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    def update(self, state: "Optional[Progress]") -> None:
        """Shows the state of the directory, if there is one."""
        if state is None:
            return
        self.done = max(self.done, state.done)  # parts are removed when they are merged
        if sys.stderr.isatty():
            self._draw(state.sentences)
        elif time.time() - self.last_line >= LINE_INTERVAL:
            self.last_line = time.time()
            self.print(self.line(state.sentences, time.time() - self.start))

    def line(self, sentences: int, seconds: float) -> str:
        """Returns the line to print after some seconds.

        Args:
            sentences: the number of sentences of the split.
            seconds: the time since the start.
        """
        from tqdm import tqdm

        if self.done == sentences:
            return f"{self.done:,} of {sentences:,} sentences; checking and merging the parts"
        rate = (self.done - self.first) / seconds if seconds else 0.0
        left = tqdm.format_interval((sentences - self.done) / rate) if rate else "?"
        return f"{self.done:,} of {sentences:,} sentences, {rate:.1f} per second, {left} left"

    def _draw(self, sentences: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            # 80 x 24 if a terminal does not know its size, where tqdm would show nothing.
            width, height = shutil.get_terminal_size()
            self.bar = tqdm(
                total=sentences,
                initial=self.first,
                unit=" sentences",
                smoothing=0,
                ncols=width,
                nrows=height,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} "
                "[{elapsed}<{remaining}, {rate_noinv_fmt}]",
            )
            self.bar.start_t = self.start
        self.bar.n = self.done
        self.bar.refresh()
