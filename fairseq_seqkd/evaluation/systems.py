"""Which system is measured on what: checks a checkpoint against a data-bin and loads it, for `seqkd evaluate`.

What can be refused is refused by `prepare`, in a second and for all checkpoints, before any of them is measured.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

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
from fairseq_seqkd.selection.similarity import tokenizer_for
from fairseq_seqkd.version import __version__

BEAM = 5  # the paper's K = 5
LENPEN = 1.0
FACTS = (
    "checkpoint_sha256",
    "data_sha256",
    "settings",
    "versions",
    "machine",
)  # what decides a measurement


@dataclass
class System:
    """A checkpoint that has been checked against the data that it will be measured on."""

    checkpoint: Checkpoint
    split: Split
    settings: dict  # everything that decides the numbers, besides the checkpoint, the data and the software
    checkpoint_sha256: str  # as it was when it was checked
    data_sha256: str
    distillation_signature: str  # or None
    source_join: str  # how the source's subwords are joined, or None: its dictionary alone tells; the target's is a setting
    decoders: tuple  # fairseq's (BPE, tokenizer) of source and target, as Detokeniser takes them

    @property
    def path(self):
        """The checkpoint's file, as the user named it."""
        return self.checkpoint.path

    def facts(self, device):
        """What makes a measurement the same measurement when it is run again."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "data_sha256": self.data_sha256,
            "settings": self.settings,
            "versions": software(),
            "machine": machine(device),
        }


def prepare(
    checkpoint, data, split="test", post_process=None, max_len_a=1.2, max_len_b=10, decoders=None
):
    """Checks everything about a system that can be checked without running it, and returns the System.

    Args:
        checkpoint: a Checkpoint; data: a data-bin in its language pair, with its dictionaries.
        split: a split with a target side; post_process: as fairseq's --post-process; None: seen from the dictionary.
        max_len_a, max_len_b: a search ends after max_len_a * (source tokens) + max_len_b tokens.
        decoders: (languages, side) -> (BPE, tokenizer) as Detokeniser takes them, with `words` for the settings.

    Raises Refusal for a checkpoint that fairseq cannot build, and for data that are absent or not the checkpoint's.
    """
    check_length_options(max_len_a, max_len_b)
    checkpoint.check_known()
    languages = find_languages(checkpoint, data)
    files = Split(data, split, languages)
    if not files.has(languages.target):
        raise Refusal(
            f"split {split!r} in {data} has no {languages.target} side; BLEU and perplexity need a reference"
        )
    dictionary_files = [Path(data) / f"dict.{lang}.txt" for lang in languages]
    for file in dictionary_files:
        if not file.is_file():
            raise Refusal(
                f"{file} is missing; name with --data a folder that fairseq-preprocess made"
            )
    dictionaries = [load_dictionary(file) for file in dictionary_files]
    checkpoint.check_dictionaries(languages, dictionaries)
    files.check_symbols([*map(len, dictionaries)])
    model = checkpoint.settings("model")
    limits = [model.get(f"max_{side}_positions") for side in ("source", "target")]
    check_lengths(checkpoint.path, files, limits)
    undone = {"undone": decoders.words} if decoders and decoders.words else {}
    sides = (
        tuple(decoders(languages, i) for i in (0, 1)) if undone else ((None, None), (None, None))
    )
    return System(
        checkpoint=checkpoint,
        split=files,
        settings={
            "split": split,
            "source_lang": languages.source,
            "target_lang": languages.target,
            "beam": BEAM,
            "lenpen": LENPEN,
            "max_len_a": max_len_a,
            "max_len_b": max_len_b,
            "post_process": resolve_post_process(post_process, dictionaries[1]),
            "bleu_tokenizer": tokenizer_for(languages.target),
            "max_tokens": DEFAULT_MAX_TOKENS,
            "threads": 1,
            **undone,
        },
        checkpoint_sha256=checkpoint.sha256,
        data_sha256=sha256(
            *files.files(languages.source), *files.files(languages.target), *dictionary_files
        ),
        distillation_signature=distillation_signature(checkpoint),
        source_join=None if sides[0][0] else resolve_post_process(None, dictionaries[0]),
        decoders=sides,
    )


def check_lengths(path, split, limits):
    """Refuses a split with sentences that the model cannot read: leaving them out would make BLEU another one.

    Args: limits: tokens of a (source, target) that it has positions for, None where that is not known.
    """
    for side, lang, limit in zip(("source", "target"), split.languages, limits):
        count = int(too_long([split.sizes(lang)], [limit]).sum())
        if count:
            raise Refusal(
                f"{count:,} sentences of split {split.name!r} have more {side} tokens than {path} reads ({limit:,}); take "
                "them out of the split for all systems, or they cannot be compared"
            )


def find_languages(checkpoint, data):
    """The LanguagePair: what the checkpoint was trained on, where that can still be told; else what the data are."""
    from fairseq.data.data_utils import infer_language_pair

    if not Path(data).is_dir():
        raise Refusal(
            f"the data directory {data} does not exist; name with --data a folder that fairseq-preprocess made"
        )
    found = infer_language_pair(str(data))
    trained = checkpoint.languages
    if not all(found):
        raise Refusal(
            f"{data} holds no binarised text; name with --data a folder that fairseq-preprocess made"
        )
    if trained is None:
        return LanguagePair(*found)
    missing = [lang for lang in trained if not (Path(data) / f"dict.{lang}.txt").is_file()]
    if missing:
        raise Refusal(
            f"{checkpoint} translates {trained}, but {data} is {'-'.join(found)} (it has no "
            f"dict.{missing[0]}.txt); use a checkpoint of that direction"
        )
    return trained


def load(system):
    """(model, task) of a System, on the CPU and in evaluation mode. The criterion it was trained with is not needed."""
    return system.checkpoint.load(system.split.folder, system.split.languages)


def check_unchanged(system):
    """Refuses a checkpoint that is another one by now: what was measured might be kept under the name of what was not."""
    if not Path(system.path).is_file() or sha256(system.path) != system.checkpoint_sha256:
        raise Refusal(
            f"{system.path} was written anew while it was measured, perhaps by a training that goes on; copy it, and measure "
            "the copy"
        )


def load_split(system, task):
    """fairseq's dataset of the System's split: every sentence, in the order of the file."""
    try:
        task.load_dataset(system.split.name)
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        raise Refusal(
            f"split {system.split.name!r} in {system.split.folder} cannot be read ({first_line(error)}); "
            "run fairseq-preprocess again"
        ) from error
    dataset = task.dataset(system.split.name)
    if getattr(dataset, "src_sizes", None) is None or getattr(dataset, "tgt", None) is None:
        raise Refusal(
            f"{system.path} is of task {task_name(task)}, which has no sentence pairs; evaluate translation models"
        )
    if not len(dataset):
        raise Refusal(f"split {system.split.name!r} in {system.split.folder} has no sentences")
    return dataset


def texts(system):
    """(sources, references) of the split as detokenised text; an unknown word is nobody's."""
    found = []
    for i, lang in enumerate(system.split.languages):
        detokenise, side = detokeniser(system, i, UNKNOWN_IN_REFERENCE), system.split.read(lang)
        found.append([detokenise(side[row]) for row in range(len(side))])
    return tuple(found)


def detokeniser(system, i, unknown):
    """The Detokeniser of one side: 0 the source, 1 the target."""
    lang = system.split.languages[i]
    join = (system.source_join, system.settings["post_process"])[i]
    return Detokeniser(
        load_dictionary(system.split.folder / f"dict.{lang}.txt"),
        join,
        *system.decoders[i],
        unknown=unknown,
    )


def task_name(task):
    return getattr(getattr(task, "cfg", None), "_name", None) or type(task).__name__


def choose_device(cpu=False):
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def software():
    """Versions that a measurement depends on."""
    import sacrebleu

    return {**compat.versions(), "sacrebleu": sacrebleu.__version__, "fairseq_seqkd": __version__}


def machine(device):
    """What did the work, for the columns that are speeds: a GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = [[word.strip() for word in line.split(":", 1)] for line in lines if ":" in line]
    said = dict(reversed(pairs))  # of the first processor
    name = said.get("model name") or platform.processor() or platform.machine()
    # A name may stand for several generations, one twice as fast as another.
    model = ", ".join(
        f"{word} {said[key]}"
        for word, key in (("family", "cpu family"), ("model", "model"))
        if key in said
    )
    return f"{name}{f' ({model})' if model else ''}, one thread"
