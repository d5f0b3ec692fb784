"""How a multilingual teacher was trained: settings of fairseq's translation_multi_simple_epoch."""

import argparse
import ast
from pathlib import Path
from typing import Any, Dict, List

from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.errors import Refusal

NAME_LANGUAGES = (
    "pass --model-overrides \"{'lang_dict': 'FILE'}\", a file with one language per line in the "
    "order of its training"
)


def parse_overrides(overrides: str) -> Dict[str, Any]:
    """Parses --model-overrides as fairseq-generate does."""
    try:
        return dict(ast.literal_eval(overrides or "{}"))
    except (ValueError, SyntaxError, TypeError):
        raise Refusal(
            f"--model-overrides {overrides} is no Python dictionary, e.g. \"{{'langs': 'de,en'}}\""
        ) from None


def task_settings(checkpoint: Checkpoint, overrides: Dict[str, Any]) -> argparse.Namespace:
    """Returns the task's settings: fairseq's defaults, the checkpoint's, and the overrides."""
    parser = argparse.ArgumentParser()
    TranslationMultiSimpleEpochTask.add_args(parser)
    defaults, saved = vars(parser.parse_args([""])), checkpoint.settings("task")
    args = argparse.Namespace(**{"seed": 1, **defaults, **saved, **overrides})
    for key in ("langs", "lang_pairs", "langtoks_specs"):
        if isinstance(getattr(args, key), str):
            setattr(args, key, getattr(args, key).split(","))
    # Either names the languages: one that is passed replaces the other in the checkpoint.
    for key, other in (("langs", "lang_dict"), ("lang_dict", "langs")):
        if key in overrides and other not in overrides:
            setattr(args, other, None)
    args.langtoks = dict(args.langtoks or {})
    if {"encoder_langtok", "decoder_langtok"} & set(overrides):
        args.langtoks.pop("main", None)  # it was made from these two
    return args


def known_languages(checkpoint: Checkpoint, args: argparse.Namespace) -> List[str]:
    """Returns the teacher's languages in the order in which their tokens join a dictionary."""
    if not (args.langs or args.lang_dict or args.lang_pairs):
        raise Refusal(f"{checkpoint} does not say which languages it has; {NAME_LANGUAGES}")
    try:
        return MultilingualDatasetManager.load_langs(args)
    except OSError:
        raise Refusal(
            f"{checkpoint} has its languages in {args.lang_dict}, which is not there; "
            f"{NAME_LANGUAGES}"
        ) from None


def fixed_dictionary(checkpoint: Checkpoint, args: argparse.Namespace) -> str:
    """Returns the file of fairseq's --fixed-dictionary, which has all of the teacher's symbols."""
    if Path(args.fixed_dictionary).is_file():
        return args.fixed_dictionary
    raise Refusal(
        f"{checkpoint} has its dictionary in {args.fixed_dictionary}, which is not there; pass "
        "--model-overrides \"{'fixed_dictionary': 'FILE'}\", or None if the data's dictionary and "
        "the language tokens are all its symbols"
    )
