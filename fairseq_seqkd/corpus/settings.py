"""The settings of a decode or a scoring: everything that its result depends on.

Attributes are named like the keys in manifest.json. Two runs with equal settings write the same
bytes, and a directory can only be continued with the settings that it was begun with.
"""

import json
from typing import Annotated, Any, Dict, List, Optional, Union

from msgspec import Meta, Struct

from fairseq_seqkd.corpus.databin import LanguagePair, Split, SplitHashes
from fairseq_seqkd.corpus.json_text import OpenRecord, tree
from fairseq_seqkd.corpus.plan import Plan

SHORT_HASH = 12  # digits of a hash in a signature: enough to tell files apart

Count = Annotated[int, Meta(ge=0, lt=1 << 48)]
Size = Annotated[int, Meta(gt=0, lt=1 << 48)]


class DataSettings(Struct):
    """The split that was decoded or scored."""

    split: str
    source_lang: str
    target_lang: str
    sentences: Count
    source_sha256: str
    target_sha256: Optional[str]  # None: monolingual data, without a target side
    dictionaries_sha256: List[str]  # source, target

    @classmethod
    def of(cls, split: Split) -> "DataSettings":
        """Describes a split."""
        source, target = split.languages
        return cls(split.name, source, target, split.sentences(source), *split.hashes)

    @property
    def languages(self) -> LanguagePair:
        """The source language and the target language."""
        return LanguagePair(self.source_lang, self.target_lang)

    @property
    def hashes(self) -> SplitHashes:
        """The content of the split."""
        return SplitHashes(self.source_sha256, self.target_sha256, self.dictionaries_sha256)


class LanguageSettings(Struct):
    """The language tokens of a multilingual teacher: symbols and ids, None where it has none."""

    encoder: Optional[str]
    encoder_id: Optional[int]
    decoder: Optional[str]
    decoder_id: Optional[int]
    replacing_bos_eos: bool


class TeacherSettings(Struct):
    """The checkpoints of the ensemble, in the order in which they were given."""

    sha256: List[str]
    overrides: Optional[str] = None  # fairseq-generate's --model-overrides
    languages: Optional[LanguageSettings] = None

    @property
    def short_hash(self) -> str:
        """The beginnings of the hashes, joined by "+"."""
        return "+".join(digest[:SHORT_HASH] for digest in self.sha256)


class EngineSettings(OpenRecord, kw_only=True):
    """The engine that computed. `others` has the versions of the libraries, by name."""

    name: str
    precision: str


class PlanSettings(Struct):
    """The grouping of the sentences into parts and batches."""

    part_size: Size
    max_tokens: Optional[Size]
    max_sentences: Optional[Size]

    @classmethod
    def of(cls, plan: Plan) -> "PlanSettings":
        """Describes a plan."""
        return cls(plan.part_size, plan.max_tokens, plan.max_sentences)


class SearchSettings(OpenRecord, kw_only=True):
    """The options of the search that change its output.

    `others` has the rest of fairseq's generation options, which depend on its version.
    """

    beam: Size
    nbest: Size
    lenpen: Union[int, float]
    sampling: bool
    seed: Optional[int]  # None: the search uses no random numbers
    longest_source: Count  # tokens that the teacher can read
    retain_dropout: bool = False


class SimilaritySettings(Struct):
    """The comparison of hypotheses with the reference, and how text is made for it."""

    metric: str
    sacrebleu: str  # its version
    settings: str  # sacrebleu's signature of the metric
    post_process: Optional[str]
    bpe: Optional[str]
    tokenizer_undone: Optional[str]
    decoders: Optional[Dict[str, Any]] = None  # the options of --bpe and --tokenizer


class ScoringSettings(Struct):
    """The scoring of given targets."""

    topk: Count
    vocabulary: Count
    dtype: str
    positions: Annotated[List[Count], Meta(min_length=2, max_length=2)]  # of source and target
    too_long: Count  # sentences that the teacher cannot read
    left_pad_source: bool
    left_pad_target: bool


class WorkSettings(Struct, kw_only=True):
    """The settings of both kinds of work. Two runs with equal settings write the same bytes."""

    data: DataSettings
    teacher: TeacherSettings
    engine: EngineSettings
    plan: PlanSettings

    def batch_plan(self) -> Plan:
        """Returns the plan of the work."""
        plan = self.plan
        return Plan(self.data.sentences, plan.part_size, plan.max_tokens, plan.max_sentences)

    @property
    def stored_sentences(self) -> int:
        """The number of sentences in the store when the work is complete."""
        return self.data.sentences


class DecodeSettings(WorkSettings, kw_only=True):
    """Everything that n-best lists and views depend on."""

    search: SearchSettings
    similarity: Optional[SimilaritySettings]  # None: there is nothing to compare with
    select: Annotated[str, Meta(pattern="^(mode|mbr)$")]
    filters: Dict[str, Any] = {}  # the values of those that are on


class ScoreSettings(WorkSettings, kw_only=True):
    """Everything that stored distributions depend on."""

    scoring: ScoringSettings

    @property
    def stored_sentences(self) -> int:
        """The number of sentences that the teacher can read."""
        return self.data.sentences - self.scoring.too_long


def differences(before: Any, now: Any, prefix: str = "") -> List[str]:
    """Returns sentences that say where settings differ, e.g. "search.beam was 5, now 10"."""
    before, now = tree(before), tree(now)
    changes = []
    for key in sorted(set(before) | set(now)):
        old, new, name = before.get(key), now.get(key), prefix + key
        if isinstance(old, dict) and isinstance(new, dict):
            changes += differences(old, new, name + ".")
        elif old != new:
            changes.append(f"{name} was {_shorten(old)}, now {_shorten(new)}")
    return changes


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


AnySettings = Union[DecodeSettings, ScoreSettings]


def signature(settings: AnySettings, version: Optional[str]) -> str:
    """Returns one line, in sacrebleu's manner, that says how pseudo-targets were made.

    Example: teacher:3f2a5c0b9d11|beam:5|nbest:5|lenpen:1.0|engine:fairseq-0.12.3/float32|data:...
    """
    engine = settings.engine
    engine_version = str(engine.others.get(engine.name)).rpartition(" ")[2]
    common = {
        "engine": f"{engine.name}-{engine_version}/{engine.precision}",
        "data": settings.data.source_sha256[:SHORT_HASH],
    }
    fields: Dict[str, Any] = {"teacher": settings.teacher.short_hash}
    if isinstance(settings, DecodeSettings):
        search = settings.search
        fields.update(beam=search.beam, nbest=search.nbest, lenpen=search.lenpen)
        fields.update(sampling="yes" if search.sampling else None, **common)
        filters = (f"{name}={value}" for name, value in sorted(settings.filters.items()))
        fields.update(
            similarity=settings.similarity.metric if settings.similarity else None,
            select=None if settings.select == "mode" else settings.select,
            filters=",".join(filters) or None,
        )
    else:
        fields.update(topk=settings.scoring.topk, store=settings.scoring.dtype, **common)
        fields.update(targets=(settings.data.target_sha256 or "")[:SHORT_HASH])
    fields.update(version=version)
    return "|".join(f"{key}:{value}" for key, value in fields.items() if value is not None)
