"""The results file of `seqkd evaluate`: written after every system, continued if it exists."""

import contextlib
from pathlib import Path
from typing import ContextManager, Iterable, Iterator, List, Sequence, Union

import msgspec

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.records import (
    COMET,
    COMPARABLE,
    Comparison,
    Evaluation,
    Measurement,
    read_evaluation,
    still_valid,
    to_json,
)


class Results:
    """The measurements of a file, if one is named, and those that are added.

    Systems that the command does not name stay, before those that it names. A measurement replaces
    one of the same name and seed.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Union[str, Path, None] = None) -> None:
        self.path = path
        self.kept = Evaluation([])
        self.new: List[Measurement] = []
        self.checked: List[Measurement] = []
        self._read()

    def _read(self) -> None:
        """Reads what the file holds by now."""
        if self.path and Path(self.path).exists():
            self.kept = read_evaluation(self.path)

    @property
    def evaluation(self) -> Evaluation:
        """All measurements, and the comparisons of the checkpoints that they are of."""
        replaced = {measurement.identity for measurement in self.new}
        kept = [entry for entry in self.kept.results if entry.identity not in replaced]
        results = [*kept, *self.new]
        return Evaluation(results, still_valid(self.kept.pairs, results))

    def check(self, description: Measurement) -> None:
        """Checks that a measurement may stand in one table with the others, before it is made.

        Raises:
            Refusal: it is of other data, or no further seed of its name.
        """
        self._check_kept(description)
        for other in self.checked:
            if differing(other, description):
                raise Refusal(
                    f"{other.name} and {description.name} do not translate the same sentences into "
                    "the same language, so they do not belong in one table; evaluate them apart"
                )
        self._check_seed(description, self.checked)
        self.checked.append(description)

    def _check_kept(self, measurement: Measurement) -> None:
        for other in self.kept.results:
            keys = differing(other, measurement)
            if keys:
                where = "on other data" if "data_sha256" in keys else "with other settings"
                raise Refusal(
                    f"{self.path} holds results that were measured {where}; name another file with "
                    "-o, or remove it"
                )

    def _check_seed(self, measurement: Measurement, others: Sequence[Measurement]) -> None:
        kept = [entry for entry in self.kept.results if entry.identity != measurement.identity]
        reason = measurement.conflict([*kept, *others])
        if reason:
            raise Refusal(
                f"there are several of {measurement.name}: {reason}; name seeds NAME@SEED=PATH, "
                "and other systems otherwise"
            )

    def check_scorer(self, signature: str) -> None:
        """Checks that COMET of the measurements that stay is by the same model.

        Call it after `check` of all measurements to come.
        """
        replaced = {description.identity for description in self.checked}
        for other in self.kept.results:
            known = other.comet_signature
            if other.identity not in replaced and known not in (None, signature):
                raise Refusal(
                    f"{self.path} holds COMET of {other.name} by another model ({known}); name "
                    "that with --comet, or another file with -o"
                )

    def add(self, measurement: Measurement) -> None:
        """Adds a measurement, and writes the file. COMET of the same outputs is kept.

        Raises:
            Refusal: it may not stand in one table with the others.
        """
        with self._locked():
            self._check_kept(measurement)
            self._check_seed(measurement, self.new)
            for other in self.kept.results:
                same = (other.identity, other.facts) == (measurement.identity, measurement.facts)
                if same and measurement.comet_signature is None:
                    comet = {key: getattr(other, key) for key in COMET}
                    measurement = msgspec.structs.replace(measurement, **comet)
            self.new.append(measurement)

    def compare(self, comparisons: Iterable[Comparison]) -> None:
        """Adds comparisons, and writes the file."""
        with self._locked():
            self.kept.pairs = [*self.kept.pairs, *comparisons]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Reads what another process has written meanwhile, and writes the file after the block."""
        nothing: ContextManager = contextlib.nullcontext()
        with lock(Path(self.path).absolute().parent, wait=True) if self.path else nothing:
            self._read()
            yield
            if self.path:
                with whole_file(self.path) as file:
                    file.write(to_json(self.evaluation).encode())


def differing(a: Measurement, b: Measurement) -> List[str]:
    """Returns the keys of COMPARABLE in which two measurements differ."""
    return [key for key in COMPARABLE if getattr(a, key) != getattr(b, key)]
