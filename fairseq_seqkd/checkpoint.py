"""What a checkpoint of fairseq says of itself, and whether it belongs to given data. Used for teachers and in evaluation."""

import logging
from argparse import Namespace
from pathlib import Path

from fairseq_seqkd import compat
from fairseq_seqkd.corpus.databin import LanguagePair, load_dictionary
from fairseq_seqkd.errors import Refusal

logger = logging.getLogger(__name__)

SIDES = ("encoder", "decoder")
# What fairseq ends with where it cannot build a checkpoint's model or task.
LOADING = (
    RuntimeError,
    KeyError,
    AttributeError,
    ValueError,
    TypeError,
    AssertionError,
    IndexError,
    ImportError,
    OSError,
)
# Files that a training began with; their vectors are in the checkpoint.
EMBEDDINGS = ("encoder_embed_path", "decoder_embed_path")
# What is overridden whenever a checkpoint is loaded.
WITHOUT_TRAINING = {
    "eval_bleu": False,
    **dict.fromkeys(EMBEDDINGS),
}  # the first would build a generator for itself
# How a checkpoint read its training data, which says nothing about other data: sentences are whole, and each is there once.
AS_DATA_ARE = {
    "dataset_impl": None,
    "num_batch_buckets": 0,
    "required_seq_len_multiple": 1,  # padding would count in the limit of a translation's length
    "upsample_primary": 1,
    "truncate_source": False,
    "load_alignments": False,
}


def read(path):
    """The state of a checkpoint that holds a model. Raises Refusal for any other file, and for one that carries code."""
    state = compat.read_checkpoint(path)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise Refusal(
            f"{path} is no fairseq checkpoint: it holds no model; name a file that fairseq-train wrote"
        )
    return state


def write(path, state):
    """Writes a checkpoint, whole or not at all."""
    import torch

    from fairseq_seqkd.corpus.atomic import whole_file

    with whole_file(path) as file:
        try:
            torch.save(state, file)
        except (
            RuntimeError
        ) as error:  # torch's complaint that its file is cut, raised over the reason
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def settings(state, group):
    """The settings of a group ("task", "criterion", "checkpoint") as a dictionary, from either of fairseq's formats.

    Older checkpoints hold one flat namespace for all groups; there the name of a criterion or task is under its group.
    """
    if state.get("cfg"):
        found = state["cfg"].get(group) or {}
        return (
            {"_name": found}
            if isinstance(found, str)
            else dict(vars(found) if isinstance(found, Namespace) else found)
        )
    flat = dict(vars(state["args"])) if state.get("args") is not None else {}
    return {**flat, "_name": flat.get(group)}


def data_folders(state):
    """The data directories that a checkpoint was trained on; they may be gone, or on another machine."""
    return [
        Path(folder)
        for folder in str(settings(state, "task").get("data") or "").split(":")
        if folder
    ]


def is_multilingual(state):
    """Whether the checkpoint was trained by fairseq's task for many languages, with language tokens in its dictionaries."""
    return settings(state, "task").get("_name") == "translation_multi_simple_epoch"


def check_known(path, state, what="teacher", groups=("model", "task")):
    """Refuses a checkpoint whose architecture or task is another plugin's, which is not there."""
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    known = {
        "model": ("arch", {*ARCH_MODEL_REGISTRY, *MODEL_REGISTRY}),
        "task": ("task", {*TASK_REGISTRY}),
    }
    for group in groups:
        found, (kind, names) = settings(state, group), known[group]
        name = found.get("_name") or found.get(kind)
        if name and name not in names:
            raise Refusal(
                f"the {what} {path} is of {kind} {name}, which is not fairseq's but a plugin's; for fairseq's commands name "
                "a --user-dir whose __init__.py imports that plugin and fairseq_seqkd"
            )


def check_embeddings(path, state, overrides):
    """Refuses a checkpoint that fairseq-generate would build from a file of embeddings that is gone.

    Args: overrides: fairseq's --model-overrides, as text.
    """
    for name in EMBEDDINGS:
        file = settings(state, "model").get(name)
        if file and name not in overrides and not Path(file).is_file():
            raise Refusal(
                f"the teacher {path} was begun with embeddings from {file}, which is not there any more; they are in the "
                f"checkpoint too: pass --model-overrides \"{{'{name}': None}}\" (of two such files name both)"
            )


def trained_languages(state):
    """The LanguagePair that a checkpoint was trained on: as it was told, else as its data say; None if unknown."""
    from fairseq.data.data_utils import infer_language_pair

    task = settings(state, "task")
    pair = LanguagePair(task.get("source_lang"), task.get("target_lang"))
    if all(pair):
        return pair
    for folder in data_folders(state):
        found = LanguagePair(
            *(infer_language_pair(str(folder)) if folder.is_dir() else (None, None))
        )
        if all(found) and all(
            own_symbols(state, folder, side, lang) for side, lang in zip(SIDES, found)
        ):
            return found
    return None


def check_dictionaries(path, state, languages, dictionaries, what="teacher", otherwise=""):
    """Refuses a checkpoint that was trained with other dictionaries than these: every number would be noise.

    Sizes are compared always, symbols where the dictionaries beside the checkpoint's own training data are still there.

    Args:
        languages, dictionaries: (source, target) of the data at hand.
        what: what the checkpoint is, for the sentence; otherwise: another way out, which ends the sentence.
    """
    mend = f"{rebinarise(what)}{otherwise}"
    check_sizes(
        path,
        state,
        dictionaries,
        "the data's dictionary",
        f"both need the same dictionaries: {mend}",
        what,
    )
    check_symbols(path, state, languages, dictionaries, mend, what)


def rebinarise(what):
    return f"binarise the data with the {what}'s dictionaries, --srcdict and --tgtdict of fairseq-preprocess"


def check_sizes(path, state, dictionaries, whose, mend, what="teacher"):
    """Refuses a checkpoint whose embeddings have another number of rows than the (source, target) dictionaries.

    Args: whose: whose dictionaries they are; mend: what to do, both for the sentence.
    """
    for side, ours in zip(SIDES, dictionaries):
        rows = symbols_of(state, side)
        if rows not in (None, len(ours)):
            raise Refusal(
                f"the {what} {path} has {rows:,} symbols on its {side}'s side, {whose} has {len(ours):,}; {mend}"
            )


def symbols_of(state, side):
    """How many symbols the embeddings of a side hold; None for a model that calls them otherwise."""
    weight = state["model"].get(f"{side}.embed_tokens.weight")
    return None if weight is None else len(weight)


def own_symbols(state, folder, side, lang):
    """The symbols that a checkpoint was trained with, by the folder that it names; None where they are not there any more.

    A relative path may be another corpus here: a dictionary of another size is none of the checkpoint's. (A multilingual
    checkpoint has more symbols than its file: language tokens.)
    """
    file = folder / f"dict.{lang}.txt"
    if not file.is_file():
        return None
    symbols = load_dictionary(file).symbols
    return (
        symbols
        if symbols_of(state, side) in (None, len(symbols)) or is_multilingual(state)
        else None
    )


def check_symbols(path, state, languages, dictionaries, mend, what="teacher"):
    """Refuses a checkpoint whose dictionaries differ from these, where those beside its training data are still there."""
    folder = next(iter(data_folders(state)), None)
    for side, lang, ours in zip(SIDES, languages, dictionaries):
        theirs = own_symbols(state, folder, side, lang) if folder else None
        if theirs is None:
            logger.warning(
                "the dictionaries that the %s %s was trained with are not there any more (%s): only their sizes can be compared",
                what, path, folder or "it names no data",
            )  # fmt: skip
            return
        wrong = first_difference(theirs, ours.symbols)
        if wrong is not None:
            file = folder / f"dict.{lang}.txt"
            raise Refusal(
                f"the {what}'s dictionary {file} is not the data's: symbol {wrong} is {at(theirs, wrong)} there and "
                f"{at(ours.symbols, wrong)} here; {mend}"
            )


def first_difference(left, right):
    """The first index at which two lists of symbols differ, or None."""
    for i in range(max(len(left), len(right))):
        if at(left, i) != at(right, i):
            return i
    return None


def at(symbols, i):
    return repr(symbols[i]) if i < len(symbols) else "missing"
