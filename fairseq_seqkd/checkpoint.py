"""A fairseq checkpoint: read and verified once, then asked what it was trained with.

Example::

    teacher = Checkpoint("teacher.pt", role="teacher")
    teacher.check_dictionaries(LanguagePair("de", "en"), (source_dictionary, target_dictionary))
    models, task = load_ensemble([teacher], data="data-bin", languages=teacher.languages)
"""

import logging
from argparse import Namespace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union

import torch

from fairseq_seqkd import compat
from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.corpus.databin import LanguagePair, load_dictionary
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.errors import Refusal, first_line

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from fairseq.models import BaseFairseqModel
    from fairseq.tasks import FairseqTask

logger = logging.getLogger(__name__)

EMBEDDINGS = {"source": "encoder.embed_tokens.weight", "target": "decoder.embed_tokens.weight"}
MULTILINGUAL_TASK = "translation_multi_simple_epoch"

# Options that name files of pretrained embeddings. Their vectors are in the checkpoint.
EMBEDDING_FILES = ("encoder_embed_path", "decoder_embed_path")
# Settings that are replaced when a checkpoint is loaded, because they concern its training: how it
# read its own data (elsewhere sentences are whole, and each one is read once), and side effects.
NOT_FOR_TRAINING = {
    "dataset_impl": None,
    "num_batch_buckets": 0,
    "required_seq_len_multiple": 1,  # padding would count in the length limit of a translation
    "upsample_primary": 1,
    "truncate_source": False,
    "load_alignments": False,
    "eval_bleu": False,  # it would build a generator
    **dict.fromkeys(EMBEDDING_FILES),
}
# fairseq raises any of these when it cannot build the model or the task of a checkpoint.
BUILD_ERRORS = (
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


class Checkpoint:
    """A checkpoint file written by ``fairseq-train``.

    The file is verified and its tensors are memory-mapped on construction. Every later question
    is answered from memory.

    Args:
        path: the checkpoint file.
        role: what the checkpoint is to the user ("teacher", "student"). Error messages use it.

    Raises:
        Refusal: the file is missing or damaged, holds no model, or would run code when loaded.
    """

    def __init__(self, path: Union[str, Path], role: str = "checkpoint") -> None:
        self.path = str(path)  # as it was given: results keep it
        self.role = role
        self.state: Dict[str, Any] = compat.read_checkpoint(path)
        if not isinstance(self.state, dict) or not isinstance(self.state.get("model"), dict):
            raise Refusal(
                f"{path} is not a fairseq checkpoint: it holds no model; "
                "pass a file written by fairseq-train"
            )

    def __str__(self) -> str:
        return f"the {self.role} {self.path}"

    @property
    def weights(self) -> Dict[str, torch.Tensor]:
        """The parameters of the model, by name."""
        return self.state["model"]

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal. It is computed when it is first asked for."""
        return sha256(self.path)

    def settings(self, group: str) -> Dict[str, Any]:
        """Returns the settings of one configuration group ("model", "task", "criterion", ...).

        fairseq has two formats. Recent checkpoints hold a nested configuration. Older ones hold
        one flat namespace for all groups, where the name of the task or criterion is stored
        under its group.
        """
        if self.state.get("cfg"):
            settings = self.state["cfg"].get(group) or {}
            if isinstance(settings, str):
                return {"_name": settings}
            return dict(vars(settings) if isinstance(settings, Namespace) else settings)
        arguments = self.state.get("args")
        flat = {} if arguments is None else dict(vars(arguments))
        return {**flat, "_name": flat.get(group)}

    @property
    def is_multilingual(self) -> bool:
        """Whether fairseq's multilingual task trained it, with language tokens."""
        return self.settings("task").get("_name") == MULTILINGUAL_TASK

    @property
    def data_folders(self) -> List[Path]:
        """The data directories used for training. They may no longer exist."""
        folders = str(self.settings("task").get("data") or "")
        return [Path(folder) for folder in folders.split(":") if folder]

    @cached_property
    def languages(self) -> Optional[LanguagePair]:
        """The languages of the training data, or None if they cannot be determined.

        The checkpoint's own settings come first. If they name no languages, the file names in the
        training data are used, provided that its dictionaries belong to this checkpoint.
        """
        from fairseq.data.data_utils import infer_language_pair

        task = self.settings("task")
        source, target = task.get("source_lang"), task.get("target_lang")
        if source and target:
            return LanguagePair(source, target)
        for folder in filter(Path.is_dir, self.data_folders):
            source, target = infer_language_pair(str(folder))
            if (
                source
                and target
                and self._training_symbols(folder, "source", source)
                and self._training_symbols(folder, "target", target)
            ):
                return LanguagePair(source, target)
        return None

    def check_known(self, *groups: str) -> None:
        """Checks that fairseq knows the architecture and the task of the checkpoint.

        Args:
            groups: what will be built: "model", "task" or, by default, both.

        Raises:
            Refusal: the architecture or the task belongs to a plugin that is not imported.
        """
        from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
        from fairseq.tasks import TASK_REGISTRY

        registries = {
            "model": ("arch", {*ARCH_MODEL_REGISTRY, *MODEL_REGISTRY}),
            "task": ("task", {*TASK_REGISTRY}),
        }
        for group in groups or registries:
            kind, names = registries[group]
            settings = self.settings(group)
            name = settings.get("_name") or settings.get(kind)
            if name and name not in names:
                raise Refusal(
                    f"{self} has the {kind} {name}, which belongs to a plugin and not to fairseq; "
                    "pass fairseq's commands a --user-dir whose __init__.py imports that plugin "
                    "and fairseq_seqkd"
                )

    def check_embeddings(self, overrides: str) -> None:
        """Checks that files of pretrained embeddings, which fairseq-generate reads, still exist.

        Args:
            overrides: fairseq's --model-overrides, as text. It can replace the names of the files.

        Raises:
            Refusal: a file is missing.
        """
        for option in EMBEDDING_FILES:
            file = self.settings("model").get(option)
            if file and option not in overrides and not Path(file).is_file():
                raise Refusal(
                    f"{self} was initialised with embeddings from {file}, which no longer exists; "
                    "the checkpoint holds them too, so pass "
                    f"--model-overrides \"{{'{option}': None}}\" (name both files if there are two)"
                )

    def check_dictionaries(
        self,
        languages: LanguagePair,
        dictionaries: Sequence["Dictionary"],
        alternative: str = "",
    ) -> None:
        """Checks that the model was trained with these dictionaries.

        Sizes are always compared. Symbols are compared if the training dictionaries still exist.

        Args:
            languages: the languages of the data at hand.
            dictionaries: their source and target dictionaries.
            alternative: another way out, which ends the sentence of an error.

        Raises:
            Refusal: a dictionary has another size, or another symbol at some index.
        """
        self.check_sizes(dictionaries, "the data's dictionary", self._advice + alternative)
        self.check_symbols(languages, dictionaries, alternative)

    def check_sizes(self, dictionaries: Sequence["Dictionary"], owner: str, advice: str) -> None:
        """Checks that the embeddings have one row for each symbol of the dictionaries.

        Args:
            dictionaries: the source and the target dictionary.
            owner: whose dictionaries they are, for the sentence of an error.
            advice: what to do about an error.

        Raises:
            Refusal: a dictionary has another size.
        """
        for side, dictionary in zip(EMBEDDINGS, dictionaries):
            rows = self._rows(side)
            if rows not in (None, len(dictionary)):
                raise Refusal(
                    f"{self} has {rows:,} {side} symbols, {owner} has {len(dictionary):,}; {advice}"
                )

    def check_symbols(
        self,
        languages: LanguagePair,
        dictionaries: Sequence["Dictionary"],
        alternative: str = "",
    ) -> None:
        """Compares dictionaries with those beside the training data, where these still exist.

        Args:
            languages: the languages of the data at hand.
            dictionaries: their source and target dictionaries.
            alternative: another way out, which ends the sentence of an error.

        Raises:
            Refusal: a dictionary has another symbol at some index.
        """
        folder = next(iter(self.data_folders), None)
        for side, language, dictionary in zip(EMBEDDINGS, languages, dictionaries):
            trained = self._training_symbols(folder, side, language) if folder else None
            if folder is None or trained is None:
                logger.warning(
                    "%s: its training dictionaries no longer exist (%s); only sizes were compared",
                    self, folder or "it names no training data",
                )  # fmt: skip
                return
            index = first_difference(trained, dictionary.symbols)
            if index is not None:
                raise Refusal(
                    f"the {self.role}'s dictionary {folder / f'dict.{language}.txt'} differs from "
                    f"the data's: symbol {index} is {_symbol(trained, index)} there and "
                    f"{_symbol(dictionary.symbols, index)} here; {self._advice}{alternative}"
                )

    def load(
        self, data: Union[str, Path], languages: LanguagePair, **overrides: object
    ) -> Tuple["BaseFairseqModel", "FairseqTask"]:
        """Builds the model and its task; see :func:`load_ensemble`."""
        (model,), task = load_ensemble([self], data, languages, **overrides)
        return model, task

    @property
    def _advice(self) -> str:
        return (
            f"binarise the data with the {self.role}'s dictionaries "
            "(fairseq-preprocess --srcdict, --tgtdict)"
        )

    def _rows(self, side: str) -> Optional[int]:
        """Returns the rows of a side's embeddings, or None if the model names them otherwise."""
        weight = self.weights.get(EMBEDDINGS[side])
        return None if weight is None else len(weight)

    def _training_symbols(self, folder: Path, side: str, language: str) -> Optional[List[str]]:
        """Returns the symbols that a side was trained with, or None if they are not in a folder.

        A relative path may point to other data today: a dictionary whose size differs from the
        embeddings is not the checkpoint's. (A multilingual checkpoint has more symbols than its
        file: the language tokens.)
        """
        file = folder / f"dict.{language}.txt"
        if not file.is_file():
            return None
        symbols = load_dictionary(file).symbols
        belongs = self._rows(side) in (None, len(symbols)) or self.is_multilingual
        return symbols if belongs else None


def load_ensemble(
    checkpoints: Sequence[Checkpoint],
    data: Union[str, Path],
    languages: LanguagePair,
    **overrides: object,
) -> Tuple[List["BaseFairseqModel"], "FairseqTask"]:
    """Builds the models of checkpoints, and one task for their data, with fairseq.

    Args:
        checkpoints: the members of the ensemble.
        data: data-bin to set the task up with (several are separated by colons).
        languages: the language pair of the data. In a data-bin of several pairs, fairseq would
            take the first one.
        overrides: further settings to replace.

    Returns:
        The models, on the CPU and in evaluation mode, and the task of the first one.

    Raises:
        Refusal: fairseq cannot build a model or the task.
    """
    from fairseq import checkpoint_utils

    settings = {
        "data": str(data),
        "source_lang": languages.source,
        "target_lang": languages.target,
        **NOT_FOR_TRAINING,
        **overrides,
    }
    paths = [checkpoint.path for checkpoint in checkpoints]
    try:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task(
            paths, arg_overrides=settings
        )
    except BUILD_ERRORS as error:
        raise Refusal(
            f"the {checkpoints[0].role} {':'.join(paths)} cannot be loaded: {first_line(error)}"
        ) from error
    for model in models:
        model.eval()
    return models, task


def write(path: Union[str, Path], state: Dict[str, Any]) -> None:
    """Writes the state of a checkpoint atomically.

    Raises:
        Refusal: the file cannot be written.
    """
    with whole_file(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch complains that its archive is incomplete, and hides the reason in the context.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def first_difference(left: Sequence[str], right: Sequence[str]) -> Optional[int]:
    """Returns the first index at which two lists of symbols differ, or None."""
    pairs = enumerate(zip_longest(left, right))
    return next((index for index, (one, other) in pairs if one != other), None)


def _symbol(symbols: Sequence[str], index: int) -> str:
    return repr(symbols[index]) if index < len(symbols) else "missing"
