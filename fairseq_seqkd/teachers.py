"""A frozen teacher for the criterions: loaded with a task of its own, checked, and kept out of everybody's sight.

A teacher is deliberately no torch module. fairseq puts a criterion's modules into the optimizer, the checkpoint and
DDP, and calls train() on them at every step, which would switch dropout back on.
"""

import logging
import math
from pathlib import Path

import torch

from fairseq_seqkd import compat
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.losses import average_probabilities, negative_log_likelihood

logger = logging.getLogger(__name__)

PROBE_SENTENCES = 64  # enough to tell a teacher from a coin, and less than a second of work


class Teacher:
    """An ensemble of frozen encoder-decoder models, averaged in probability space."""

    def __init__(self, models):
        self.models = list(models)
        for model in self.models:
            model.eval()
            model.requires_grad_(False)

    @torch.no_grad()
    def log_probs(self, sample, like):
        """The teacher's log-probabilities for every target position of a batch.

        Args:
            sample: a batch of fairseq's LanguagePairDataset, whose prefix the teacher reads.
            like: a parameter of the student; the teacher follows its device, and its precision on a GPU.

        Returns: (batch, length, vocabulary), float32.
        """
        members = []
        for model in self.models:
            self._follow(model, like)
            net_output = model(**sample["net_input"])
            members.append(model.get_normalized_probs(net_output, log_probs=True, sample=sample).float())
        return average_probabilities(members)

    @staticmethod
    def _follow(model, like):
        """Moves a model once: fairseq moves and halves only what it knows of. On a CPU half precision gains nothing."""
        dtype = like.dtype if like.device.type != "cpu" else torch.float32
        mine = next(model.parameters())
        if mine.device != like.device or mine.dtype != dtype:
            model.to(device=like.device, dtype=dtype)


def load_teacher(paths, data, source_dictionary, target_dictionary, languages=None, overrides=None):
    """Loads and checks the checkpoints of a teacher for a student's data. Returns (Teacher, the teacher's own task).

    Args:
        paths: checkpoint files, one for each member of the ensemble.
        data: the student's data directory: the teacher's task is set up there.
        source_dictionary, target_dictionary: the student's, which must be the teacher's, symbol by symbol.
        languages: (source, target) of the student's data, compared with the teacher's; None: not compared.
        overrides: settings of the checkpoint to replace, as fairseq-generate's --model-overrides.

    Raises Refusal for a file that cannot be loaded safely, another language pair, or other dictionaries.
    """
    from fairseq import checkpoint_utils

    for path in paths:
        check_checkpoint(path, source_dictionary, target_dictionary, languages)
    # A teacher that was trained with --eval-bleu would build a generator for itself.
    overrides = {"data": str(data), "eval_bleu": False, **(overrides or {})}
    try:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(p) for p in paths], arg_overrides=overrides)
    except (RuntimeError, KeyError, AttributeError, ValueError, TypeError) as error:
        raise Refusal(f"the teacher {':'.join(map(str, paths))} cannot be loaded: {first_line(error)}") from error
    return Teacher(models), task


def check_checkpoint(path, source_dictionary, target_dictionary, languages=None):
    """Refuses, before any long work, a checkpoint that is not a teacher for these dictionaries.

    Args: languages: (source, target) of the data, compared with what the checkpoint was trained on; None: not compared.
    """
    state = compat.read_checkpoint(path)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise Refusal(f"{path} is no fairseq checkpoint: it holds no model; name a file that fairseq-train wrote")
    settings = task_settings(state)
    theirs = trained_languages(settings)
    if languages and all(theirs) and theirs != tuple(languages):
        raise Refusal(
            f"the teacher {path} translates {'-'.join(theirs)}, the data are {'-'.join(languages)}; "
            "use a teacher of that direction"
        )
    for side, dictionary in (("encoder", source_dictionary), ("decoder", target_dictionary)):
        weight = state["model"].get(f"{side}.embed_tokens.weight")
        if weight is not None and len(weight) != len(dictionary):
            raise Refusal(
                f"the teacher {path} has {len(weight):,} symbols on its {side}'s side, the data's dictionary has "
                f"{len(dictionary):,}; teacher and student need the same dictionaries: binarise the student's data "
                "with the teacher's, --srcdict and --tgtdict of fairseq-preprocess"
            )
    check_dictionaries(path, settings, theirs, source_dictionary, target_dictionary)


def task_settings(state):
    """The task settings that a checkpoint was trained with, as a dictionary, from either of fairseq's two formats."""
    if state.get("cfg"):
        return dict(state["cfg"].get("task") or {})
    args = state.get("args")
    return dict(vars(args)) if args is not None else {}


def trained_languages(settings):
    """(source, target) that a checkpoint was trained on: as it was told, else as its data directory's files say."""
    from fairseq.data.data_utils import infer_language_pair

    told = (settings.get("source_lang"), settings.get("target_lang"))
    folder = data_folder(settings)
    if all(told) or not folder.is_dir():
        return told
    return tuple(infer_language_pair(str(folder)))


def data_folder(settings):
    """The data directory that a checkpoint was trained on; it may be gone, or on another machine."""
    return Path(str(settings.get("data") or "/nonexistent").split(":")[0])


def check_dictionaries(path, settings, languages, source_dictionary, target_dictionary):
    """Compares the dictionaries beside the teacher's own training data with ours, where those are still there."""
    from fairseq.data import Dictionary

    folder = data_folder(settings)
    for lang, ours in zip(languages, (source_dictionary, target_dictionary)):
        file = folder / f"dict.{lang}.txt"
        if not file.is_file():
            logger.warning(
                "the dictionaries that the teacher %s was trained with are not at %s any more: only their sizes and "
                "the teacher's likelihood can be compared", path, folder
            )  # fmt: skip
            return
        theirs = Dictionary.load(str(file))
        wrong = first_difference(theirs.symbols, ours.symbols)
        if wrong is not None:
            raise Refusal(
                f"the teacher's dictionary {file} is not the data's: symbol {wrong} is {at(theirs.symbols, wrong)} there "
                f"and {at(ours.symbols, wrong)} here; binarise the student's data with the teacher's dictionaries"
            )


def check_positions(teacher, dataset, task_positions, name):
    """Refuses training data with sentences that the teacher cannot read, although the student's task admits them."""
    for model in teacher.models:
        for side, sizes, limit, allowed in zip(
            ("source", "target"), (dataset.src_sizes, dataset.tgt_sizes), model.max_positions(), task_positions
        ):
            if limit is None or sizes is None or limit >= allowed or not len(sizes):
                continue
            longest = int(sizes[sizes <= allowed].max(initial=0))
            if longest > limit:
                raise Refusal(
                    f"a training sentence has {longest:,} {side} tokens, the teacher {name} reads {limit:,}; "
                    f"pass --max-{side}-positions {limit} --skip-invalid-size-inputs-valid-test"
                )


def check_better_than_guessing(teacher, dataset, dictionary, name):
    """Refuses a teacher whose NLL on the first sentences is no better than a uniform guess, log(vocabulary).

    A dictionary in another order, another direction or a broken checkpoint all show here. Returns the NLL in nats a
    token, or None where the data have no target side.

    Args: dataset: LanguagePairDataset; dictionary: of the target; name: of the teacher, for the message.
    """
    like = next(teacher.models[0].parameters())
    first = [dataset[i] for i in range(min(PROBE_SENTENCES, len(dataset)))]
    sample = dataset.collater(first)
    if not sample or sample.get("target") is None:
        return None
    sample["net_input"] = {k: v.to(like.device) if torch.is_tensor(v) else v for k, v in sample["net_input"].items()}
    target = sample["target"].to(like.device).view(-1)
    lprobs = teacher.log_probs(sample, like)
    keep = target.ne(dictionary.pad())
    nll = negative_log_likelihood(lprobs.view(-1, lprobs.size(-1)), target, keep).item() / max(int(keep.sum()), 1)
    guess = math.log(len(dictionary))
    if not nll < guess:  # a NaN is no better either
        raise Refusal(
            f"the teacher {name} is no better than guessing on the first {len(first)} sentences ({nll:.2f} nats a token, "
            f"a uniform guess among {len(dictionary):,} symbols costs {guess:.2f}): it was trained with other dictionaries, on "
            "another language pair, or not at all"
        )
    logger.info("teacher %s: %.2f nats a token on the first %d sentences (a guess costs %.2f)", name, nll, len(first), guess)
    return nll


def first_difference(left, right):
    """The first index at which two lists of symbols differ, or None."""
    for i in range(max(len(left), len(right))):
        if at(left, i) != at(right, i):
            return i
    return None


def at(symbols, i):
    return repr(symbols[i]) if i < len(symbols) else "missing"


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
