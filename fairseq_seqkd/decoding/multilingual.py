"""Language tokens of multilingual teachers (M2M-100, NLLB, mBART-50).

fairseq's task `translation_multi_simple_epoch` adds tokens that name languages to its dictionaries.
`teacher_decoding` asks here for the teacher's dictionaries and for batches with the tokens, and
removes the tokens from hypotheses: a student's data have none. fairseq's own
MultilingualDatasetManager decides which tokens, ids and positions these are.
"""

import argparse
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset, Dictionary, LanguagePairDataset
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.data.multilingual.multilingual_utils import get_lang_tok

from fairseq_seqkd import engines
from fairseq_seqkd.checkpoint import Checkpoint, first_difference
from fairseq_seqkd.corpus.databin import LanguagePair, load_dictionary
from fairseq_seqkd.corpus.nbest import NBest
from fairseq_seqkd.corpus.settings import LanguageSettings
from fairseq_seqkd.decoding import multilingual_settings
from fairseq_seqkd.engines import Sample, SearchEngine
from fairseq_seqkd.errors import Refusal


def teacher_languages(cfg: Any, teacher: Sequence[Checkpoint]) -> Optional["LanguageTokens"]:
    """Returns the language tokens of the teacher, or None for a teacher of one language pair.

    Args:
        cfg: the task's configuration.
        teacher: the checkpoints of the ensemble.

    Raises:
        Refusal: as of language_tokens, or an option does not go with this teacher.
    """
    pair = LanguagePair(
        cfg.teacher_source_lang or cfg.source_lang, cfg.teacher_target_lang or cfg.target_lang
    )
    folder = Path(utils.split_paths(cfg.data)[0])
    dictionaries = [folder / f"dict.{lang}.txt" for lang in (cfg.source_lang, cfg.target_lang)]
    tokens = language_tokens(teacher, pair, dictionaries, cfg.common_eval.model_overrides)
    if not tokens and (cfg.teacher_source_lang or cfg.teacher_target_lang):
        raise Refusal(
            "--teacher-source-lang and --teacher-target-lang are for multilingual teachers, but "
            f"{cfg.common_eval.path} is none; leave them out"
        )
    if tokens and tokens.replace_eos and cfg.engine != engines.FAIRSEQ:
        raise Refusal(
            "engine ctranslate2 begins with EOS, this teacher with a language token instead; use "
            "--engine fairseq"
        )
    if tokens and cfg.generation.prefix_size > 0:
        raise Refusal(
            "--prefix-size replaces a multilingual teacher's language token; leave it out"
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
    replaced = multilingual_settings.parse_overrides(overrides)
    members = [
        LanguageTokens(member, pair, dictionaries, replaced) if member.is_multilingual else None
        for member in teacher
    ]
    identities = [tokens and tokens.identity for tokens in members]
    if any(identity != identities[0] for identity in identities):
        raise Refusal(
            f"the members of the ensemble {':'.join(member.path for member in teacher)} have "
            "different language tokens; decode with members of the same training settings"
        )
    return members[0]


class LanguageTokens:
    """The language tokens of one multilingual checkpoint for one language pair.

    Args:
        checkpoint: the teacher, or a member of an ensemble.
        pair, dictionaries: as of language_tokens.
        overrides: settings that replace the checkpoint's.

    Attributes:
        dictionaries: source and target: the data-bin's symbols, followed by language tokens.
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
        args = multilingual_settings.task_settings(checkpoint, overrides)
        args.langs = known = multilingual_settings.known_languages(checkpoint, args)
        unknown = [lang for lang in pair if lang not in known]
        if unknown:
            raise Refusal(
                f"{checkpoint} does not know the language {unknown[0]}; it knows "
                f"{', '.join(known)}: pass its names for the data's languages with "
                "--teacher-source-lang and --teacher-target-lang"
            )
        self.pair = pair
        args.source_lang, args.target_lang, args.lang_pairs = *pair, [str(pair)]
        args.lang_dict = args.extra_lang_pairs = None
        files = [str(file) for file in dictionaries]
        if args.fixed_dictionary:
            files = [multilingual_settings.fixed_dictionary(checkpoint, args)] * 2
        args.source_dict, args.target_dict = files
        args.fixed_dictionary = None
        _, loaded, _ = MultilingualDatasetManager.prepare(load_dictionary, args)
        self.manager = MultilingualDatasetManager.setup_data_manager(
            args, args.lang_pairs, known, loaded, args.sampling_method
        )
        source = self.manager.get_source_dictionary(pair.source)
        self.dictionaries = (source, self.manager.get_target_dictionary(pair.target))
        self.source_spec, self.target_spec = args.langtoks["main"]
        self.source_token = self.manager.get_encoder_langtok(*pair, self.source_spec)
        self.target_token = self.manager.get_decoder_langtok(pair.target, self.target_spec)
        self.replace_eos = bool(args.lang_tok_replacing_bos_eos)
        plain = [load_dictionary(file) for file in dictionaries]
        self._check(checkpoint, plain)
        self.foreign = self._foreign(args, len(plain[1]))

    def _check(self, checkpoint: Checkpoint, plain: Sequence[Dictionary]) -> None:
        """Refuses data whose dictionaries (`plain`) are not the teacher's."""
        for ours, own in zip(plain, self.dictionaries):
            index = first_difference(ours.symbols, own.symbols[: len(ours)])
            if index is not None:
                raise Refusal(
                    f"the fixed dictionary of {checkpoint} does not begin with the data's: "
                    f"symbol {index} is {own[index]!r} there and {ours[index]!r} here; binarise "
                    "the data with the teacher's dictionary"
                )
        checkpoint.check_sizes(
            self.dictionaries,
            f"the data's dictionary with the tokens of {len(self.manager.langs)} languages",
            "binarise the data with the teacher's dictionary; if that has more symbols after the "
            "language tokens, as M2M-100's model_dict.128k.txt has, pass --model-overrides "
            "\"{'fixed_dictionary': 'FILE'}\"; if the languages are others, pass --model-overrides "
            "\"{'lang_dict': 'FILE'}\", a file with one language per line",
        )
        checkpoint.check_symbols(self.pair, plain)

    def _foreign(self, args: argparse.Namespace, plain_size: int) -> Tuple[str, ...]:
        tokens = {
            get_lang_tok(lang=lang, lang_tok_style=args.lang_tok_style, spec=spec)
            for spec in args.langtoks_specs
            for lang in self.manager.langs
        }
        symbols = enumerate(self.dictionaries[1].symbols)
        return tuple(symbol for i, symbol in symbols if i >= plain_size or symbol in tokens)

    @property
    def identity(self) -> Tuple[Any, ...]:
        """What the members of an ensemble must have in common."""
        return self.describe(), self.manager.langs, self.foreign

    def describe(self) -> LanguageSettings:
        """Returns, for the manifest, which tokens the teacher sees and where."""
        source, target = self.dictionaries
        return LanguageSettings(
            encoder=self.source_token and source[self.source_token],
            encoder_id=self.source_token,
            decoder=self.target_token and target[self.target_token],
            decoder_id=self.target_token,
            replacing_bos_eos=self.replace_eos,
        )

    def for_search(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Returns the data-bin's split with the encoder's token in its sources and their sizes."""
        add_token = self.manager.src_dataset_tranform_func
        source = add_token(*self.pair, dataset.src, self.source_spec)
        pairs = self._pairs(source, dataset.tgt, dataset)
        if not self.replace_eos:
            return pairs
        source_eos, target_eos = (dictionary.eos() for dictionary in self.dictionaries)
        altered = self.manager.alter_dataset_langtok(
            pairs,
            src_eos=source_eos,
            src_lang=self.pair.source,
            tgt_eos=target_eos,
            tgt_lang=self.pair.target,
            src_langtok_spec=self.source_spec,
            tgt_langtok_spec=self.target_spec,
        )
        return AlteredPairs(pairs, altered.collater)

    def as_trained(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Returns what for_search returned with the decoder's token in its targets, too."""
        if self.replace_eos or dataset.tgt is None:
            return dataset  # the token is no part of a target, but begins its prefix
        target = self.manager.tgt_dataset_tranform_func(*self.pair, dataset.tgt, self.target_spec)
        return self._pairs(dataset.src, target, dataset)

    def _pairs(self, source: Any, target: Any, like: LanguagePairDataset) -> LanguagePairDataset:
        source_dictionary, target_dictionary = self.dictionaries
        source_id, target_id = (
            self.manager.lang_dict.index(lang) if self.manager.args.enable_lang_ids else None
            for lang in self.pair
        )
        return LanguagePairDataset(
            source,
            source.sizes,
            source_dictionary,
            target,
            None if target is None else target.sizes,
            target_dictionary,
            left_pad_source=like.left_pad_source,
            left_pad_target=like.left_pad_target,
            src_lang_id=source_id,
            tgt_lang_id=target_id,
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

    @property
    def forced_token(self) -> Optional[int]:
        """The token with which every hypothesis begins after EOS, as in fairseq's own task."""
        return None if self.replace_eos else self.target_token

    def prefix_tokens(self, sample: Sample) -> Optional[torch.Tensor]:
        """Returns the forced token for each row of a batch, (rows, 1), if there is one."""
        source = sample["net_input"]["src_tokens"]
        size, token = (len(source), 1), self.forced_token
        return None if token is None else source.new_full(size, token)


class MultilingualEngine:
    """A SearchEngine that forces the target's language token, and removes it from hypotheses.

    Scores still include the token.
    """

    def __init__(self, engine: SearchEngine, tokens: LanguageTokens) -> None:
        self.engine, self.tokens = engine, tokens

    def begin_part(self, seed: Optional[int]) -> None:
        """Begins a part of the search."""
        self.engine.begin_part(seed)

    def search(self, sample: Sample, prefix_tokens: Optional[torch.Tensor] = None) -> List[NBest]:
        """Searches a batch. Other prefixes than the language token have been refused."""
        nbests = self.engine.search(sample, self.tokens.prefix_tokens(sample))
        forced = self.tokens.forced_token
        for hypothesis in (hypothesis for nbest in nbests for hypothesis in nbest):
            if forced is not None and len(hypothesis.tokens) and hypothesis.tokens[0] == forced:
                hypothesis.tokens = hypothesis.tokens[1:]
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
