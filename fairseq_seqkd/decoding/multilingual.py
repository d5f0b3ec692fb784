"""Language tokens of multilingual teachers (M2M-100, NLLB, mBART-50).

fairseq's task `translation_multi_simple_epoch` adds tokens that name languages to its dictionaries.
`teacher_decoding` asks here for the teacher's dictionaries and for batches with the tokens, and
removes the tokens from hypotheses: a student's data have none. fairseq's own
MultilingualDatasetManager decides which tokens, ids and positions these are.
"""

import argparse
import ast
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset, Dictionary, LanguagePairDataset
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.data.multilingual.multilingual_utils import get_lang_tok
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_seqkd import engines
from fairseq_seqkd.checkpoint import Checkpoint, first_difference
from fairseq_seqkd.corpus.databin import LanguagePair, load_dictionary
from fairseq_seqkd.corpus.nbest import NBest
from fairseq_seqkd.corpus.settings import LanguageSettings
from fairseq_seqkd.engines import Sample, SearchEngine
from fairseq_seqkd.errors import Refusal

NAME_LANGUAGES = (
    "pass --model-overrides \"{'lang_dict': 'FILE'}\", a file with one language per line in the "
    "order of its training"
)


def teacher_languages(cfg: Any, teacher: Sequence[Checkpoint]) -> Optional["LanguageTokens"]:
    """Returns the language tokens of the teacher, or None for a teacher of one language pair.

    Args:
        cfg: the task's configuration.
        teacher: the checkpoints of the ensemble.

    Raises:
        Refusal: other options do not go with this teacher, and as of language_tokens.
    """
    pair = LanguagePair(
        cfg.teacher_source_lang or cfg.source_lang, cfg.teacher_target_lang or cfg.target_lang
    )
    folder = Path(utils.split_paths(cfg.data)[0])
    dictionaries = [folder / f"dict.{lang}.txt" for lang in (cfg.source_lang, cfg.target_lang)]
    tokens = language_tokens(teacher, pair, dictionaries, cfg.common_eval.model_overrides)
    if tokens is None:
        if cfg.teacher_source_lang or cfg.teacher_target_lang:
            raise Refusal(
                "--teacher-source-lang and --teacher-target-lang are for multilingual teachers, "
                f"but {cfg.common_eval.path} is none; leave them out"
            )
        return None
    if tokens.replace_eos and cfg.engine != engines.FAIRSEQ:
        raise Refusal(
            "engine ctranslate2 begins with EOS, this teacher with a language token instead; use "
            "--engine fairseq"
        )
    if cfg.generation.prefix_size > 0:
        raise Refusal(
            "--prefix-size replaces the token with which a multilingual teacher begins; leave it "
            "out"
        )
    return tokens


def language_tokens(
    teacher: Sequence[Checkpoint],
    pair: LanguagePair,
    dictionaries: Sequence[Path],
    overrides: str = "{}",
) -> Optional["LanguageTokens"]:
    """Returns the language tokens of a teacher, or None for a teacher of one language pair.

    Args:
        teacher: the checkpoints of the ensemble.
        pair: source and target language as the teacher names them.
        dictionaries: source and target dictionary file of the data-bin, which hold the symbols of
            the teacher without its language tokens.
        overrides: fairseq-generate's --model-overrides, settings that replace the checkpoints'.

    Raises:
        Refusal: the members of the ensemble differ, the teacher does not know a language, has
            other dictionaries, or does not say which languages it has.
    """
    replaced = parse_overrides(overrides)
    members: List[Optional[LanguageTokens]] = []
    for checkpoint in teacher:
        is_multilingual = checkpoint.is_multilingual
        members.append(
            LanguageTokens(checkpoint, pair, dictionaries, replaced) if is_multilingual else None
        )
    identities = [member and member.identity() for member in members]
    if any(identity != identities[0] for identity in identities):
        raise Refusal(
            f"the members of the ensemble {':'.join(member.path for member in teacher)} have "
            "different language tokens; decode with members of the same training settings"
        )
    return members[0]


def parse_overrides(overrides: str) -> Dict[str, Any]:
    """Parses --model-overrides as fairseq-generate does."""
    try:
        return dict(ast.literal_eval(overrides or "{}"))
    except (ValueError, SyntaxError, TypeError):
        raise Refusal(
            f"--model-overrides {overrides} is no Python dictionary, e.g. \"{{'langs': 'de,en'}}\""
        ) from None


class LanguageTokens:
    """The language tokens of one multilingual checkpoint for one language pair.

    Args:
        checkpoint: the teacher, or a member of an ensemble.
        pair, dictionaries: as of language_tokens.
        overrides: settings that replace the checkpoint's.

    Attributes:
        source_dictionary, target_dictionary: the data-bin's symbols, followed by language tokens.
        source_token, target_token: ids of the tokens that encoder and decoder see, or None.
        replace_eos: whether the tokens stand in place of EOS.
        foreign: target symbols that no hypothesis may hold: language tokens, and symbols that the
            data-bin's dictionary lacks.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        pair: LanguagePair,
        dictionaries: Sequence[Path],
        overrides: Dict[str, Any],
    ) -> None:
        args, path = task_settings(checkpoint, overrides), checkpoint.path
        args.langs = known = known_languages(path, args)
        unknown = [lang for lang in pair if lang not in known]
        if unknown:
            raise Refusal(
                f"the teacher {path} does not know the language {unknown[0]}; it knows "
                f"{', '.join(known)}: pass its names for the data's languages with "
                "--teacher-source-lang and --teacher-target-lang"
            )
        self.pair = pair
        args.source_lang, args.target_lang, args.lang_pairs = *pair, [str(pair)]
        args.lang_dict = args.extra_lang_pairs = None
        files = [str(file) for file in dictionaries]
        if args.fixed_dictionary:
            files = [fixed_dictionary(path, args)] * 2
        args.source_dict, args.target_dict = files
        args.fixed_dictionary = None
        _, loaded, _ = MultilingualDatasetManager.prepare(load_dictionary, args)
        self.manager = MultilingualDatasetManager.setup_data_manager(
            args, args.lang_pairs, known, loaded, args.sampling_method
        )
        self.source_dictionary = self.manager.get_source_dictionary(self.pair.source)
        self.target_dictionary = self.manager.get_target_dictionary(self.pair.target)
        self.source_spec, self.target_spec = args.langtoks["main"]
        self.source_token = self.manager.get_encoder_langtok(*pair, self.source_spec)
        self.target_token = self.manager.get_decoder_langtok(self.pair.target, self.target_spec)
        self.replace_eos = bool(args.lang_tok_replacing_bos_eos)
        plain = [load_dictionary(file) for file in dictionaries]
        self._check(checkpoint, plain)
        self.foreign = self._foreign(args, len(plain[1]))

    def _check(self, checkpoint: Checkpoint, plain: Sequence[Dictionary]) -> None:
        """Refuses data with other dictionaries than the teacher's.

        Args:
            plain: source and target dictionary of the data-bin.
        """
        for ours, own in zip(plain, (self.source_dictionary, self.target_dictionary)):
            index = first_difference(ours.symbols, own.symbols[: len(ours)])
            if index is not None:
                raise Refusal(
                    f"the fixed dictionary of {checkpoint} does not begin with the data's: "
                    f"symbol {index} is {own[index]!r} there and {ours[index]!r} here; binarise "
                    "the data with the teacher's dictionary"
                )
        checkpoint.check_sizes(
            (self.source_dictionary, self.target_dictionary),
            f"the data's dictionary with the tokens of {len(self.manager.langs)} languages",
            "binarise the data with the teacher's dictionary; if that has more symbols after the "
            "language tokens, as M2M-100's model_dict.128k.txt has, pass --model-overrides "
            "\"{'fixed_dictionary': 'FILE'}\"; if the languages are others, pass --model-overrides "
            "\"{'lang_dict': 'FILE'}\", a file with one language per line",
        )
        checkpoint.check_symbols(self.pair, plain)

    def _foreign(self, args: argparse.Namespace, plain_size: int) -> Tuple[str, ...]:
        """Returns the target symbols that no hypothesis may hold."""
        tokens = {
            get_lang_tok(lang=lang, lang_tok_style=args.lang_tok_style, spec=spec)
            for spec in args.langtoks_specs
            for lang in self.manager.langs
        }
        return tuple(
            symbol
            for i, symbol in enumerate(self.target_dictionary.symbols)
            if i >= plain_size or symbol in tokens
        )

    def identity(self) -> Tuple[Any, ...]:
        """Returns what the members of an ensemble must have in common."""
        return self.describe(), self.manager.langs, self.foreign

    def describe(self) -> LanguageSettings:
        """Returns, for the manifest, which tokens the teacher sees and where."""
        return LanguageSettings(
            encoder=self.source_token and self.source_dictionary[self.source_token],
            encoder_id=self.source_token,
            decoder=self.target_token and self.target_dictionary[self.target_token],
            decoder_id=self.target_token,
            replacing_bos_eos=self.replace_eos,
        )

    def for_search(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Returns the data-bin's split with the encoder's token in its sources and their sizes."""
        manager = self.manager
        source = manager.src_dataset_tranform_func(*self.pair, dataset.src, self.source_spec)
        pairs = self._pairs(source, dataset.tgt, dataset)
        if not self.replace_eos:
            return pairs
        altered = manager.alter_dataset_langtok(
            pairs,
            src_eos=self.source_dictionary.eos(),
            src_lang=self.pair.source,
            tgt_eos=self.target_dictionary.eos(),
            tgt_lang=self.pair.target,
            src_langtok_spec=self.source_spec,
            tgt_langtok_spec=self.target_spec,
        )
        return AlteredPairs(pairs, altered.collater)

    def as_trained(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Returns what the teacher was trained on: the decoder's token in the targets, too.

        Args:
            dataset: as returned by for_search.
        """
        if self.replace_eos or dataset.tgt is None:
            return dataset  # the token is no part of a target, but begins its prefix
        target = self.manager.tgt_dataset_tranform_func(*self.pair, dataset.tgt, self.target_spec)
        return self._pairs(dataset.src, target, dataset)

    def _pairs(self, source: Any, target: Any, like: LanguagePairDataset) -> LanguagePairDataset:
        lang_dict, has_ids = self.manager.lang_dict, self.manager.args.enable_lang_ids
        return LanguagePairDataset(
            source,
            source.sizes,
            self.source_dictionary,
            target,
            None if target is None else target.sizes,
            self.target_dictionary,
            left_pad_source=like.left_pad_source,
            left_pad_target=like.left_pad_target,
            src_lang_id=lang_dict.index(self.pair.source) if has_ids else None,
            tgt_lang_id=lang_dict.index(self.pair.target) if has_ids else None,
        )

    def generator_options(self) -> Dict[str, Any]:
        """Returns options of fairseq's generator that keep foreign symbols out of hypotheses.

        It ranks as if these symbols had no probability. fairseq's own task would let one in.
        """
        return {"tokens_to_suppress": self.foreign}

    @property
    def first_token(self) -> Optional[int]:
        """The token that the decoder reads first in place of EOS; None if it reads EOS."""
        return self.target_token if self.replace_eos else None

    def prefix_tokens(self, sample: Sample) -> Optional[torch.Tensor]:
        """Returns the (rows, 1) tokens with which the hypotheses of a batch begin, if any.

        The search of fairseq's own task begins in the same way.
        """
        if self.replace_eos or self.target_token is None:
            return None
        source = sample["net_input"]["src_tokens"]
        return torch.full((len(source), 1), self.target_token).to(source)

    def remove_forced(self, nbests: List[NBest]) -> None:
        """Removes the forced token from hypotheses, in place. Scores still include it."""
        if self.target_token is None or self.replace_eos:
            return
        for hypothesis in (hypothesis for nbest in nbests for hypothesis in nbest):
            if len(hypothesis.tokens) and hypothesis.tokens[0] == self.target_token:
                hypothesis.tokens = hypothesis.tokens[1:]


class MultilingualEngine:
    """A SearchEngine that forces the target's language token, and removes it from hypotheses."""

    def __init__(self, engine: SearchEngine, tokens: LanguageTokens) -> None:
        self.engine, self.tokens = engine, tokens

    def begin_part(self, seed: Optional[int]) -> None:
        """Begins a part of the search."""
        self.engine.begin_part(seed)

    def search(
        self, sample: Dict[str, Any], prefix_tokens: Optional[torch.Tensor] = None
    ) -> List[NBest]:
        """Searches a batch. Other prefixes than the language token have been refused."""
        nbests = self.engine.search(sample, self.tokens.prefix_tokens(sample))
        self.tokens.remove_forced(nbests)
        return nbests


class AlteredPairs(BaseWrapperDataset):
    """A pair dataset whose batches another dataset collates.

    fairseq's TransformEosLangPairDataset, which does, hides sizes and targets.
    """

    def __init__(self, dataset: LanguagePairDataset, collater: Any) -> None:
        super().__init__(dataset)
        self.collater = collater

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def task_settings(checkpoint: Checkpoint, overrides: Dict[str, Any]) -> argparse.Namespace:
    """Returns the task's settings: fairseq's defaults, the checkpoint's, and the overrides."""
    parser = argparse.ArgumentParser()
    TranslationMultiSimpleEpochTask.add_args(parser)
    saved = checkpoint.settings("task")
    args = argparse.Namespace(**{"seed": 1, **vars(parser.parse_args([""])), **saved, **overrides})
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


def known_languages(path: str, args: argparse.Namespace) -> List[str]:
    """Returns the teacher's languages in the order in which their tokens join a dictionary."""
    if not (args.langs or args.lang_dict or args.lang_pairs):
        raise Refusal(f"the teacher {path} does not say which languages it has; {NAME_LANGUAGES}")
    try:
        return MultilingualDatasetManager.load_langs(args)
    except OSError:
        raise Refusal(
            f"the teacher {path} has its languages in {args.lang_dict}, which is not there; "
            f"{NAME_LANGUAGES}"
        ) from None


def fixed_dictionary(path: str, args: argparse.Namespace) -> str:
    """Returns the file of fairseq's --fixed-dictionary, which has all of the teacher's symbols."""
    if Path(args.fixed_dictionary).is_file():
        return args.fixed_dictionary
    raise Refusal(
        f"the teacher {path} has its dictionary in {args.fixed_dictionary}, which is not there; "
        "pass --model-overrides \"{'fixed_dictionary': 'FILE'}\", or None if the data's "
        "dictionary and the language tokens are all its symbols"
    )
