"""The records of a file of `seqkd evaluate` or `seqkd bench`.

Attributes are named like the keys of the JSON. A field that is None by default is absent from the
file: the file is an old one, or the measurement was not wanted.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, NamedTuple, Optional, Sequence, Union

import msgspec
from msgspec import Meta, Struct

from fairseq_seqkd.corpus.json_text import OpenRecord, gather, tree
from fairseq_seqkd.corpus.settings import Count, Size
from fairseq_seqkd.errors import Refusal

SEARCHES = ("greedy", "beam5")
Counted = Literal["words", "characters"]
WORDS: Counted = "words"
CHARACTERS: Counted = "characters"

# Columns of Measurement.
NUMBERS = (
    "params", "nonzero_params", "bleu_greedy", "bleu_beam5", "chrf_greedy", "chrf_beam5",
    "comet_greedy", "comet_beam5", "ppl", "mode_probability",
    "sentences_per_second_greedy", "sentences_per_second_beam5",
    "length_ratio_greedy", "length_ratio_beam5", "hit_limit_greedy", "hit_limit_beam5",
    "greedy_equals_beam5", "sentences",
)  # fmt: skip
SCORERS = ("sacrebleu_signature", "chrf_signature", "comet_signature")
SIGNATURES = (*SCORERS, "distillation_signature")
COMPARABLE = ("data_sha256", "settings")  # equal in all rows of a table
COMET = ("comet_greedy", "comet_beam5", "comet_signature")
FACTS = ("checkpoint_sha256", "data_sha256", "settings", "versions", "machine")

LARGEST = 1e300  # sums of such numbers are finite
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]


class MeasurementSettings(OpenRecord, kw_only=True):
    """What decides the numbers, besides the checkpoint, the data and the software."""

    split: str
    source_lang: Optional[str] = None
    target_lang: Optional[str] = None
    beam: Size = 5  # the paper's K
    lenpen: Number = 1.0
    max_len_a: Union[int, Number]  # an integer stays one, because settings are hashed
    max_len_b: int
    post_process: Optional[str] = msgspec.field(default_factory=lambda: None)  # always in the file
    bleu_tokenizer: str = "13a"
    max_tokens: Optional[Size] = None
    threads: Optional[Size] = None
    undone: Optional[str] = None  # the options of BPE and tokenizer

    def first_difference(self, other: "MeasurementSettings") -> Optional[str]:
        """Returns the first key in which two measurements differ, or None.

        Tokens per batch are not compared: each engine has its own.
        """
        entries, others = tree(self), tree(other)
        keys = sorted({*entries, *others} - {"max_tokens"})
        return next((key for key in keys if entries.get(key) != others.get(key)), None)


class Identity(NamedTuple):
    """The name of a measurement in a table: one row, one seed."""

    name: str
    seed: Optional[int]

    def __str__(self) -> str:
        return self.name if self.seed is None else f"{self.name}@{self.seed}"


class Measurement(OpenRecord, kw_only=True):
    """The measurements of one checkpoint on one split."""

    name: str
    seed: Optional[Count] = msgspec.field(default_factory=lambda: None)  # always in the file
    checkpoint: Optional[str] = None  # the path
    sentences: Optional[Count] = None
    params: Optional[Count] = None
    nonzero_params: Optional[Count] = None
    ppl: Optional[Number] = None
    bleu_greedy: Optional[Number] = None
    chrf_greedy: Optional[Number] = None
    length_ratio_greedy: Optional[Number] = None
    hit_limit_greedy: Optional[Count] = None
    sentences_per_second_greedy: Optional[Number] = None
    bleu_beam5: Optional[Number] = None
    chrf_beam5: Optional[Number] = None
    length_ratio_beam5: Optional[Number] = None
    hit_limit_beam5: Optional[Count] = None
    sentences_per_second_beam5: Optional[Number] = None
    mode_probability: Optional[Number] = None
    greedy_equals_beam5: Optional[Number] = None  # share of the sentences
    sacrebleu_signature: Optional[str] = None
    chrf_signature: Optional[str] = None
    distillation_signature: Optional[str] = msgspec.field(default_factory=lambda: None)
    date: Optional[str] = None
    comet_signature: Optional[str] = None
    comet_greedy: Optional[Number] = None
    comet_beam5: Optional[Number] = None
    checkpoint_sha256: Optional[str] = None
    data_sha256: Optional[str] = None
    settings: Optional[MeasurementSettings] = None
    versions: Optional[Dict[str, str]] = None
    machine: Optional[str] = None

    @property
    def identity(self) -> Identity:
        """The name and the seed."""
        return Identity(self.name, self.seed)

    @property
    def facts(self) -> Dict[str, Any]:
        """What makes a measurement the same measurement when it is run again."""
        return {fact: tree(getattr(self, fact)) for fact in FACTS}

    def conflict(self, others: Sequence["Measurement"]) -> Optional[str]:
        """Returns why this is not a further seed of the measurements of its name, or None."""
        for other in others:
            if other.name != self.name:
                continue
            if (other.seed is None) != (self.seed is None):
                return "one has a seed, and one has none"
            if None not in (self.params, other.params) and self.params != other.params:
                return f"one has {other.params:,} parameters, and one has {self.params:,}"
        return None


class Comparison(Struct, kw_only=True):
    """A bootstrap test of the outputs of two systems."""

    a: str
    search_a: str
    b: str
    search_b: str
    seed: Optional[Count]
    checkpoint_a: Optional[str]
    checkpoint_b: Optional[str]
    difference: Number  # BLEU of a minus BLEU of b
    p_value: Number
    signature: Optional[str] = None

    @property
    def identity(self) -> tuple:
        """Everything but the outcome."""
        sides = (self.a, self.search_a, self.checkpoint_a, self.b, self.search_b, self.checkpoint_b)
        return (*sides, self.seed)


class Difference(NamedTuple):
    """BLEU of one system minus BLEU of another, and its p-value."""

    bleu: float
    p: float


class Evaluation(Struct):
    """The content of a file of `seqkd evaluate`."""

    results: List[Measurement]
    pairs: List[Comparison] = []


class Speed(Struct, kw_only=True):
    """The speed of one model under one engine with one beam."""

    name: str
    engine: str
    beam: Count
    batch_tokens: Optional[Count] = None
    computed_in: Optional[str] = None  # "float32", "int8"
    words_per_second: Positive  # the median
    words_per_second_rounds: Annotated[List[Positive], Meta(min_length=1)]
    sentences_per_second: Optional[Number] = None
    peak_memory_mb: Optional[Number] = None
    size_bytes: Count
    bleu: Number
    sacrebleu_signature: str
    params: Optional[Count] = None
    nonzero_params: Count
    distillation_signature: Optional[str]
    checkpoint_sha256: Optional[str] = None


class Bench(Struct, kw_only=True):
    """The content of a file of `seqkd bench`."""

    speeds: Annotated[List[Speed], Meta(min_length=1)]
    data_sha256: str
    settings: MeasurementSettings
    counted: Counted = WORDS  # of the sources
    machine: str
    versions: Dict[str, str]
    date: str


def read(path: Union[str, Path]) -> Union[Evaluation, Bench]:
    """Reads a file of `seqkd evaluate` or `seqkd bench`.

    Raises:
        Refusal: the file cannot be read, is damaged, or is something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(
            f"there is no {path}; `seqkd evaluate` and `seqkd bench` write such a file with -o"
        ) from None
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path} is not JSON ({error}); remove it and measure again") from None
    try:
        return decode(content)
    except msgspec.ValidationError as error:
        raise Refusal(
            f"{path} holds no results of `seqkd evaluate` or `seqkd bench` ({error}); "
            "name another file, or measure again"
        ) from None


def read_evaluation(path: Union[str, Path]) -> Evaluation:
    """Reads a file of `seqkd evaluate`; raises as `read` does."""
    content = read(path)
    if isinstance(content, Bench):
        raise Refusal(f"{path} is a file of `seqkd bench`; name a file of `seqkd evaluate`")
    return content


def decode(content: Any) -> Union[Evaluation, Bench]:
    """Converts the JSON of a file to records.

    Raises:
        msgspec.ValidationError: a value is missing or out of range; the message has its place.
    """
    if not isinstance(content, dict):
        return msgspec.convert(content, Evaluation)
    kind: Any = Bench if "speeds" in content else Evaluation
    content = _gather_settings(content)
    if isinstance(content.get("results"), list):
        results = [gather(_gather_settings(entry), Measurement) for entry in content["results"]]
        content = {**content, "results": results}
    return msgspec.convert(content, kind)


def _gather_settings(entries: Any) -> Any:
    if not isinstance(entries, dict) or "settings" not in entries:
        return entries
    return {**entries, "settings": gather(entries["settings"], MeasurementSettings)}


def to_json(content: Any) -> str:
    """Formats records or trees as the text of a file of results, of speeds or of a report."""
    return json.dumps(tree(content), ensure_ascii=False, indent=1) + "\n"


def still_valid(
    comparisons: Sequence[Comparison], measurements: Sequence[Measurement]
) -> List[Comparison]:
    """Returns the comparisons of checkpoints that are measured under the same names.

    Of several with one identity, the last one counts.
    """
    known = {(measurement.name, measurement.checkpoint_sha256) for measurement in measurements}
    latest = {comparison.identity: comparison for comparison in comparisons}
    return [
        comparison
        for comparison in latest.values()
        if (comparison.a, comparison.checkpoint_a) in known
        and (comparison.b, comparison.checkpoint_b) in known
    ]


def differences(
    comparisons: Sequence[Comparison], a: str, search_a: str, b: str, search_b: str
) -> Dict[Optional[int], Difference]:
    """Returns the difference of two systems for each seed, whichever of them was named first."""
    by_seed = {}
    for test in comparisons:
        sides = (test.a, test.search_a, test.b, test.search_b)
        if sides == (a, search_a, b, search_b):
            by_seed[test.seed] = Difference(test.difference, test.p_value)
        elif sides == (b, search_b, a, search_a):
            by_seed[test.seed] = Difference(-test.difference, test.p_value)
    return by_seed
