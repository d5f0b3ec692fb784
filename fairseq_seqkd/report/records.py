"""The records of a report: its JSON has their attributes as keys."""

from typing import Any, Dict, List, Optional, Union

import msgspec
from msgspec import Struct

from fairseq_seqkd.corpus.json_text import OpenRecord, tree
from fairseq_seqkd.evaluation.records import (
    NUMBERS,
    SIGNATURES,
    Bench,
    Comparison,
    Difference,
    Measurement,
    MeasurementSettings,
)

BASELINE, SEQ_KD = "Student", "Seq-KD"  # the rows that gains and claims are about


class Row(Measurement, kw_only=True):
    """A row of Table 1: the means of the measurements of one system over its seeds.

    Attributes:
        deviations: standard deviations of columns, if there are several seeds.
        seeds: the measurements, if there are several.
        tests: BLEU minus that of the baseline, by the name of the test and by the seed.
    """

    bleu_greedy: float
    bleu_beam5: float
    ppl: float
    mode_probability: float
    deviations: Dict[str, float] = {}
    seeds: List[Measurement] = []
    tests: Dict[str, Dict[Optional[int], Difference]] = {}

    def score(self, key: str) -> float:
        """Returns a number by its key, e.g. "bleu_greedy"."""
        return float(getattr(self, key))

    def as_json(self) -> Dict[str, Any]:
        """Returns the entry of the row in the JSON of a report."""
        numbers = {key: getattr(self, key) for key in NUMBERS}
        entries: Dict[str, Any] = {"name": self.name}
        entries.update({key: value for key, value in numbers.items() if value is not None})
        entries.update({key: getattr(self, key) for key in SIGNATURES})
        entries.update({f"{key}_std": value for key, value in self.deviations.items()})
        if self.seeds:
            keys = ("seed", *NUMBERS, *SIGNATURES)
            seeds = tree(self.seeds)
            entries["seeds"] = [{key: seed[key] for key in keys if key in seed} for seed in seeds]
        for name, by_seed in self.tests.items():
            entries[f"difference_{name}"] = {seed: test.bleu for seed, test in by_seed.items()}
            entries[f"p_{name}"] = {seed: test.p for seed, test in by_seed.items()}
        return entries


class PrunedRow(Row, kw_only=True):
    """A row of Table 3.

    Attributes:
        pruned: the share of the parameters that are zero.
        ratio: the parameters of the model `ratio_to`, divided by those that are left here.
        ratio_to: the name of its row.
    """

    pruned: float
    ratio: float
    ratio_to: str

    def as_json(self) -> Dict[str, Any]:
        """Returns the entry of the row in the JSON of a report."""
        extra = {"pruned": self.pruned, "ratio": self.ratio, "ratio_to": self.ratio_to}
        return {**super().as_json(), **extra}


class Claim(Struct):
    """A claim of the paper, the numbers for it, and whether they support it."""

    claim: str
    seen: str
    holds: bool

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        return "Holds" if self.holds else "Does not hold"


class Step(Struct):
    """A step of the pipeline: what it made, where, and its settings."""

    step: str
    description: str = msgspec.field(name="what")
    where: str
    facts: Dict[str, str]


class TrainingStep(OpenRecord, kw_only=True):
    """The training of a row's first seed; `others` has its settings."""

    name: str
    log: str


class Curve(Struct):
    """Perplexity on the validation data during a training: [[updates, perplexity]]."""

    name: str
    seed: Optional[int]
    points: List[List[float]]


class DecodedData(Struct):
    """The distilled directory that statistics and beams are about."""

    folder: str
    split: str
    select: str
    similarity: str


class CorpusStatistics(Struct):
    """Statistics of the targets of a data-bin; EOS is not a token here.

    Attributes:
        tokens: the mean length of a target.
        ratio: target tokens per source token.
        vocabulary: the number of symbols that occur.
        duplicates: the share of targets that an earlier sentence has, too.
        complexity: the freedom of translation, in nats, over `aligned` sentences.
    """

    sentences: int
    tokens: float
    ratio: float
    vocabulary: int
    duplicates: float
    complexity: float
    aligned: int


class BeamPoint(Struct):
    """A hypothesis of a beam; `log_prob` is that of the whole hypothesis, in nats."""

    text: str
    score: float
    log_prob: float
    similarity: Optional[float]
    hit_limit: bool


class Beam(Struct):
    """The beam of a sentence. `seq_kd` and `seq_inter` are the ranks of their targets, from 0."""

    id: int
    source: str
    gold: str
    seq_kd: int
    seq_inter: int
    hypotheses: List[BeamPoint]


class RunDetails(Struct, kw_only=True):
    """What a run folder adds to a report."""

    pipeline: List[Step] = []
    trainings: List[TrainingStep] = []
    curves: List[Curve] = []
    decoded: List[DecodedData] = []
    corpus: Dict[str, CorpusStatistics] = {}
    beams: List[Beam] = []
    remarks: List[str] = []


class Report(Struct, kw_only=True):
    """The content of a report. A fact is a list where it differs between results."""

    title: str
    split: Optional[str] = None
    settings: Optional[MeasurementSettings] = None
    data_sha256: Optional[str] = None
    machine: Union[None, str, List[str]] = None
    date: Union[None, str, List[str]] = None
    versions: Union[None, Dict[str, str], List[Dict[str, str]]] = None
    rows: List[Row] = []
    claims: List[Claim] = []
    pairs: List[Comparison] = []
    table2: Optional[List[Bench]] = None
    table3: Optional[List[PrunedRow]] = None
    details: Optional[RunDetails] = None

    def as_json(self) -> Dict[str, Any]:
        """Returns the content of the report's JSON: the details stand beside the tables."""
        entries: Dict[str, Any] = tree(self)
        entries["rows"] = [row.as_json() for row in self.rows]
        if self.table3:
            entries["table3"] = [row.as_json() for row in self.table3]
        details = entries.pop("details", {})
        return {**entries, **details}
