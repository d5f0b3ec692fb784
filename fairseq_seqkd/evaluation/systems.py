"""The system to be measured: a checkpoint that was checked against a data-bin.

`prepare` refuses whatever can be refused in a second, before any checkpoint is measured.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Protocol, Tuple, Union

import torch

from fairseq_seqkd import compat
from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus.databin import LanguagePair, Split, load_dictionary
from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_REFERENCE, Detokeniser, resolve_post_process
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.plan import DEFAULT_MAX_TOKENS, too_long
from fairseq_seqkd.engines.length_limit import check_length_options
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.evaluation.provenance import distillation_signature
from fairseq_seqkd.evaluation.records import Identity, Measurement, MeasurementSettings
from fairseq_seqkd.selection.similarity import tokenizer_for
from fairseq_seqkd.version import __version__

if TYPE_CHECKING:
    from fairseq.data import LanguagePairDataset
    from fairseq.models import FairseqModel
    from fairseq.tasks import FairseqTask

SOURCE, TARGET = 0, 1
ADVICE = "name with --data a folder that fairseq-preprocess made"


class TextDecoders(Protocol):
    """fairseq's --bpe and --tokenizer, for any language pair."""

    @property
    def words(self) -> str:
        """The options as one string, "" without any; results keep it."""
        ...

    def build(self, languages: LanguagePair, side: int) -> Tuple[Any, Any]:
        """Builds the BPE and the tokenizer of a side, each None if it is not named."""
        ...


class Options(NamedTuple):
    """The choices of a user that decide the numbers."""

    split: str = "test"
    max_len_a: float = 1.2  # an output has at most max_len_a * source tokens + max_len_b tokens
    max_len_b: int = 10
    post_process: Optional[str] = None  # fairseq's --post-process; None: each dictionary decides
    decoders: Optional[TextDecoders] = None


DEFAULTS = Options()


class TextSide(NamedTuple):
    """How the ids of one side become text."""

    post_process: Optional[str]
    bpe: Any = None
    tokenizer: Any = None


class Loaded(NamedTuple):
    """The model of a system, in evaluation mode, its task, and every sentence of the split."""

    model: "FairseqModel"
    task: "FairseqTask"
    dataset: "LanguagePairDataset"


@dataclass
class System:
    """A checkpoint that has been checked against the data that it will be measured on."""

    identity: Identity
    checkpoint: Checkpoint
    split: Split
    settings: MeasurementSettings
    sides: Tuple[TextSide, TextSide]  # source, target
    checkpoint_sha256: str  # as it was when it was checked
    data_sha256: str
    distillation_signature: Optional[str]

    @property
    def path(self) -> str:
        """The checkpoint's file, as the user named it."""
        return self.checkpoint.path

    def describe(self, device: torch.device) -> Measurement:
        """Returns the measurement without its numbers: what will be measured, and how."""
        return Measurement(
            name=self.identity.name,
            seed=self.identity.seed,
            checkpoint=self.path,
            distillation_signature=self.distillation_signature,
            checkpoint_sha256=self.checkpoint_sha256,
            data_sha256=self.data_sha256,
            settings=self.settings,
            versions=software(),
            machine=machine(device),
        )

    def detokeniser(self, side: int, unknown: str) -> Detokeniser:
        """Returns the Detokeniser of a side; `unknown` replaces unknown words."""
        dictionary = load_dictionary(self.split.dictionaries[side])
        return Detokeniser(dictionary, *self.sides[side], unknown=unknown)

    def texts(self) -> Tuple[List[str], List[str]]:
        """Returns the sources and the references as text, in which unknown words match nothing."""
        sides = []
        for side, language in enumerate(self.split.languages):
            detokenise = self.detokeniser(side, UNKNOWN_IN_REFERENCE)
            tokens = self.split.read(language)
            sides.append([detokenise(tokens[row]) for row in range(len(tokens))])
        return sides[SOURCE], sides[TARGET]

    def check_lengths(self, limits: Tuple[Optional[int], Optional[int]]) -> None:
        """Checks that the model can read every sentence: without the long ones, BLEU is another.

        Args:
            limits: the positions for the (source, target), None where that is not known.

        Raises:
            Refusal: a sentence has more tokens.
        """
        sides = zip(("source", "target"), self.split.languages, limits)
        for side, language, limit in sides:
            count = int(too_long([self.split.sizes(language)], [limit]).sum())
            if count:
                raise Refusal(
                    f"{count:,} sentences of split {self.split.name!r} have more {side} tokens "
                    f"than {self.path} reads ({limit:,}); take them out of the split for all "
                    "systems, or the systems cannot be compared"
                )

    def check_unchanged(self) -> None:
        """Checks that the checkpoint still is what was measured, before the numbers are kept."""
        if not Path(self.path).is_file() or sha256(self.path) != self.checkpoint_sha256:
            raise Refusal(
                f"{self.path} was written anew while it was measured, perhaps by a training that "
                "goes on; copy it, and measure the copy"
            )


def prepare(
    checkpoint: Checkpoint,
    data: Union[str, Path],
    options: Options = DEFAULTS,
    identity: Optional[Identity] = None,
) -> System:
    """Checks everything about a system that can be checked without running it.

    Args:
        checkpoint: the model.
        data: a data-bin in its language pair, with its dictionaries.
        options: what to measure, and how text is made.
        identity: the name and seed of its row (default: its path).

    Raises:
        Refusal: fairseq cannot build the checkpoint, or the data are absent or belong to another.
    """
    check_length_options(options.max_len_a, options.max_len_b)
    checkpoint.check_known()
    languages = find_languages(checkpoint, data)
    split = Split(data, options.split, languages)
    if not split.has(languages.target):
        raise Refusal(
            f"split {split.name!r} in {data} has no {languages.target} side; BLEU and perplexity "
            "need a reference"
        )
    for file in split.dictionaries:
        if not file.is_file():
            raise Refusal(f"{file} is missing; {ADVICE}")
    source, target = map(load_dictionary, split.dictionaries)
    checkpoint.check_dictionaries(languages, (source, target))
    split.check_symbols((len(source), len(target)))
    decoders = options.decoders if options.decoders and options.decoders.words else None
    sides = []
    for side, dictionary in enumerate((source, target)):
        post_process = resolve_post_process(options.post_process, dictionary)
        sides.append(TextSide(post_process, *decoders.build(languages, side) if decoders else ()))
    settings = MeasurementSettings(
        split=split.name,
        source_lang=languages.source,
        target_lang=languages.target,
        max_len_a=options.max_len_a,
        max_len_b=options.max_len_b,
        post_process=sides[TARGET].post_process,
        bleu_tokenizer=tokenizer_for(languages.target),
        max_tokens=DEFAULT_MAX_TOKENS,
        threads=1,
        undone=decoders.words if decoders else None,
    )
    files = (*split.files(languages.source), *split.files(languages.target), *split.dictionaries)
    system = System(
        identity=identity or Identity(checkpoint.path, None),
        checkpoint=checkpoint,
        split=split,
        settings=settings,
        sides=(sides[SOURCE], sides[TARGET]),
        checkpoint_sha256=checkpoint.sha256,
        data_sha256=sha256(*files),
        distillation_signature=distillation_signature(checkpoint),
    )
    model = checkpoint.settings("model")
    system.check_lengths((model.get("max_source_positions"), model.get("max_target_positions")))
    return system


def find_languages(checkpoint: Checkpoint, data: Union[str, Path]) -> LanguagePair:
    """Returns the languages that a checkpoint was trained on; if it names none, those of the data.

    Raises:
        Refusal: the data do not exist, or are of other languages.
    """
    from fairseq.data.data_utils import infer_language_pair

    if not Path(data).is_dir():
        raise Refusal(f"the data directory {data} does not exist; {ADVICE}")
    source, target = infer_language_pair(str(data))
    if not source or not target:
        raise Refusal(f"{data} holds no binarised text; {ADVICE}")
    trained = checkpoint.languages
    for language in trained or ():
        if not (Path(data) / f"dict.{language}.txt").is_file():
            raise Refusal(
                f"{checkpoint} translates {trained}, but {data} is {source}-{target} (it has no "
                f"dict.{language}.txt); use a checkpoint of that direction"
            )
    return trained or LanguagePair(source, target)


def load(system: System) -> Tuple["FairseqModel", "FairseqTask"]:
    """Builds the model, on the CPU, and its task. The criterion of its training is not needed."""
    return system.checkpoint.load(system.split.folder, system.split.languages)


def load_with_split(system: System) -> Loaded:
    """Builds the model, on the CPU, its task, and the dataset of the split in the file's order.

    Raises:
        Refusal: the split cannot be read, is empty, or has sentences that are too long.
    """
    model, task = load(system)
    split = system.split
    try:
        task.load_dataset(split.name)
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        raise Refusal(
            f"split {split.name!r} in {split.folder} cannot be read ({first_line(error)}); "
            "run fairseq-preprocess again"
        ) from error
    dataset = task.dataset(split.name)
    if getattr(dataset, "src_sizes", None) is None or getattr(dataset, "tgt", None) is None:
        name = getattr(getattr(task, "cfg", None), "_name", None) or type(task).__name__
        raise Refusal(
            f"{system.path} is of task {name}, which has no sentence pairs; evaluate translation "
            "models"
        )
    if not len(dataset):
        raise Refusal(f"split {split.name!r} in {split.folder} has no sentences")
    system.check_lengths(model.max_positions())
    return Loaded(model, task, dataset)


def choose_device(cpu: bool = False) -> torch.device:
    """Returns the GPU if there is one, unless the user wants the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def software() -> Dict[str, str]:
    """Returns the versions that a measurement depends on."""
    import sacrebleu

    return {**compat.versions(), "sacrebleu": sacrebleu.__version__, "fairseq_seqkd": __version__}


def machine(device: torch.device) -> str:
    """Returns the name of the GPU or of the processor. Speeds depend on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts: Dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        facts.setdefault(key.strip(), value.strip())  # of the first processor
    name = facts.get("model name") or platform.processor() or platform.machine()
    # A name may stand for several generations, one twice as fast as another.
    numbers = {"family": facts.get("cpu family"), "model": facts.get("model")}
    generation = ", ".join(f"{key} {number}" for key, number in numbers.items() if number)
    return f"{name}{f' ({generation})' if generation else ''}, one thread"
