"""Multilingual teachers, of fairseq's task `translation_multi_simple_epoch` (M2M-100, NLLB, mBART-50): their language tokens.

Such a teacher reads and writes tokens that name languages, and fairseq adds them to its dictionaries when it sets up that
task. `teacher_decoding` asks here for the teacher's dictionaries, for batches with the tokens where the teacher was trained
to see them, and takes them off what it stores: a student's data have none. Which tokens, ids and places these are is worked
out by fairseq's own MultilingualDatasetManager from the settings in the checkpoint.
"""

import argparse
import ast
from pathlib import Path

import torch
from fairseq.data import BaseWrapperDataset, LanguagePairDataset
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.data.multilingual.multilingual_utils import get_lang_tok
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_seqkd import checkpoint as checkpoints
from fairseq_seqkd.corpus.databin import load_dictionary
from fairseq_seqkd.errors import Refusal

NAME_LANGUAGES = "pass --model-overrides \"{'lang_dict': 'FILE'}\", a language a line in the order of its training"


def of_teacher(paths, pair, data, overrides="{}"):
    """The Languages of a teacher, or None for a teacher of one pair of languages.

    Args:
        paths: checkpoints, one for each member of the ensemble.
        pair: (source, target) as the teacher spells them.
        data: (source, target) dictionary files of the data-bin: the teacher's without its language tokens.
        overrides: fairseq-generate's --model-overrides: settings of the checkpoints to replace.

    Raises Refusal for members that do not go together, a language that the teacher does not know, other dictionaries, and a
    checkpoint that does not say which languages it has.
    """
    found, replaced = [], parse(overrides)
    for path in paths:
        state = checkpoints.read(path)
        found.append(
            Languages(path, state, pair, data, replaced)
            if checkpoints.is_multilingual(state)
            else None
        )
    if any((one and one.identity()) != (found[0] and found[0].identity()) for one in found):
        raise Refusal(
            f"the members of the ensemble {':'.join(map(str, paths))} have different language tokens; "
            "decode with members that were trained with the same settings"
        )
    return found[0]


def parse(overrides):
    """--model-overrides as a dictionary, read as fairseq-generate reads it."""
    try:
        return dict(ast.literal_eval(overrides or "{}"))
    except (ValueError, SyntaxError, TypeError):
        raise Refusal(
            f"--model-overrides {overrides} is no Python dictionary, such as \"{{'langs': 'de,en'}}\""
        ) from None


class Languages:
    """A multilingual teacher's language tokens for one pair of languages.

    source_dictionary, target_dictionary: the data-bin's symbols, the language tokens after them.
    source_token, target_token: ids of the tokens that the encoder and the decoder see; None where it sees none.
    """

    def __init__(self, path, state, pair, data, overrides):
        args = settings(state, overrides)
        args.langs = known = languages(path, args)
        strangers = [lang for lang in pair if lang not in known]
        if strangers:
            raise Refusal(
                f"the teacher {path} does not know the language {strangers[0]}; it knows {', '.join(known)}: say with "
                "--teacher-source-lang and --teacher-target-lang how it spells those of the data"
            )
        self.languages = pair
        args.source_lang, args.target_lang, args.lang_pairs = *pair, [str(pair)]
        args.lang_dict = args.extra_lang_pairs = None
        args.source_dict, args.target_dict = (
            [fixed_dictionary(path, args)] * 2 if args.fixed_dictionary else data
        )
        args.fixed_dictionary = None
        _, dicts, _ = MultilingualDatasetManager.prepare(load_dictionary, args)
        self.manager = MultilingualDatasetManager.setup_data_manager(
            args, args.lang_pairs, known, dicts, args.sampling_method
        )
        self.source_dictionary = self.manager.get_source_dictionary(pair.source)
        self.target_dictionary = self.manager.get_target_dictionary(pair.target)
        self.source_spec, self.target_spec = args.langtoks["main"]
        self.source_token = self.manager.get_encoder_langtok(*pair, self.source_spec)
        self.target_token = self.manager.get_decoder_langtok(pair.target, self.target_spec)
        self.replacing = args.lang_tok_replacing_bos_eos
        plain = [load_dictionary(file) for file in data]
        self._check(path, state, plain)
        self.foreign = self._foreign(args, plain[1])

    def _check(self, path, state, plain):
        """Refuses data whose dictionaries are not the teacher's. plain: the data-bin's (source, target)."""
        for ours, theirs in zip(plain, (self.source_dictionary, self.target_dictionary)):
            wrong = checkpoints.first_difference(ours.symbols, theirs.symbols[: len(ours)])
            if wrong is not None:
                raise Refusal(
                    f"the fixed dictionary of the teacher {path} does not begin with the data's: symbol {wrong} is "
                    f"{theirs[wrong]!r} there and {ours[wrong]!r} here; binarise the data with the teacher's dictionary"
                )
        checkpoints.check_sizes(
            path,
            state,
            (self.source_dictionary, self.target_dictionary),
            f"the data's dictionary with the tokens of {len(self.manager.langs)} languages",
            "binarise the data with the teacher's dictionary; if that has more symbols after the language tokens, as "
            "M2M-100's model_dict.128k.txt has, pass --model-overrides \"{'fixed_dictionary': 'FILE'}\"; if the languages are "
            "others, pass --model-overrides \"{'lang_dict': 'FILE'}\", a language a line",
        )
        checkpoints.check_symbols(
            path,
            state,
            self.languages,
            plain,
            checkpoints.rebinarise("teacher"),
        )

    def _foreign(self, args, plain):
        """The target symbols that no hypothesis may hold: language tokens, and what the data-bin's dictionary lacks."""
        tokens = {
            get_lang_tok(lang=lang, lang_tok_style=args.lang_tok_style, spec=spec)
            for spec in args.langtoks_specs
            for lang in self.manager.langs
        }
        return tuple(
            symbol
            for i, symbol in enumerate(self.target_dictionary.symbols)
            if i >= len(plain) or symbol in tokens
        )

    def identity(self):
        """What members of an ensemble must have in common."""
        return self.describe(), self.manager.langs, self.foreign

    def describe(self):
        """For the manifest: which tokens the teacher sees, and where."""
        return {
            "encoder": self.source_token and self.source_dictionary[self.source_token],
            "encoder_id": self.source_token,
            "decoder": self.target_token and self.target_dictionary[self.target_token],
            "decoder_id": self.target_token,
            "replacing_bos_eos": bool(self.replacing),
        }

    # The teacher's view of the data.

    def for_search(self, dataset):
        """The pair dataset with the encoder's token in its sources, counted in their sizes; the targets stay as they are."""
        pair, manager = self.languages, self.manager
        source = manager.src_dataset_tranform_func(*pair, dataset.src, self.source_spec)
        found = self._pairs(source, dataset.tgt, dataset)
        if not self.replacing:
            return found
        altered = manager.alter_dataset_langtok(
            found, src_eos=self.source_dictionary.eos(), src_lang=pair[0], tgt_eos=self.target_dictionary.eos(),
            tgt_lang=pair[1], src_langtok_spec=self.source_spec, tgt_langtok_spec=self.target_spec,
        )  # fmt: skip
        return AlteredPairs(found, altered.collater)

    def as_trained(self, dataset):
        """What `for_search` returned with the decoder's token in its targets too, as the teacher saw its training data."""
        if self.replacing or dataset.tgt is None:
            return (
                dataset  # there the token is no part of a target, but what its prefix begins with
            )
        pair = self.languages
        return self._pairs(
            dataset.src,
            self.manager.tgt_dataset_tranform_func(*pair, dataset.tgt, self.target_spec),
            dataset,
        )

    def _pairs(self, source, target, like):
        lang_dict, numbered = self.manager.lang_dict, self.manager.args.enable_lang_ids
        return LanguagePairDataset(
            source,
            source.sizes,
            self.source_dictionary,
            target,
            None if target is None else target.sizes,
            self.target_dictionary,
            left_pad_source=like.left_pad_source,
            left_pad_target=like.left_pad_target,
            src_lang_id=lang_dict.index(self.languages.source) if numbered else None,
            tgt_lang_id=lang_dict.index(self.languages.target) if numbered else None,
        )

    # The search.

    def generator_options(self):
        """What fairseq's generator is built with, so that no hypothesis holds a symbol that the student's data lack.

        It ranks as if these symbols had no probability, where the stock task would let one into a hypothesis.
        """
        return {"tokens_to_suppress": self.foreign}

    def forced(self, sample):
        """How the search of a batch begins, as TranslationMultiSimpleEpochTask.inference_step has it."""
        if self.replacing:
            return {
                "bos_token": self.target_dictionary.eos()
                if self.target_token is None
                else self.target_token
            }
        if self.target_token is None:
            return {}
        source = sample["net_input"]["src_tokens"]
        return {"prefix_tokens": torch.full((len(source), 1), self.target_token).to(source)}

    def remove_forced(self, nbests):
        """Takes the forced token off hypotheses, in place. Their scores stay those of the search, the token's included."""
        if self.target_token is None or self.replacing:
            return
        for hypothesis in (hypothesis for nbest in nbests for hypothesis in nbest):
            if len(hypothesis.tokens) and hypothesis.tokens[0] == self.target_token:
                hypothesis.tokens = hypothesis.tokens[1:]


class MultilingualEngine:
    """An engine whose hypotheses begin with the target's language token, and are returned without it."""

    def __init__(self, engine, languages):
        self.engine, self.languages = engine, languages

    def begin_part(self, seed):
        self.engine.begin_part(seed)

    def search(self, sample):
        nbests = self.engine.search(sample, **self.languages.forced(sample))
        self.languages.remove_forced(nbests)
        return nbests


class AlteredPairs(BaseWrapperDataset):
    """A pair dataset whose batches another dataset makes: fairseq's TransformEosLangPairDataset hides sizes and targets."""

    def __init__(self, dataset, collater):
        super().__init__(dataset)
        self.collater = collater

    def __getattr__(self, name):
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def settings(state, overrides):
    """The task's settings of a checkpoint as fairseq's namespace: its defaults, what is saved, what is replaced."""
    parser = argparse.ArgumentParser()
    TranslationMultiSimpleEpochTask.add_args(parser)
    saved = checkpoints.settings(state, "task")
    args = argparse.Namespace(**{"seed": 1, **vars(parser.parse_args([""])), **saved, **overrides})
    for key in ("langs", "lang_pairs", "langtoks_specs"):
        if isinstance(getattr(args, key), str):
            setattr(args, key, getattr(args, key).split(","))
    for told, other in (("langs", "lang_dict"), ("lang_dict", "langs")):
        if told in overrides and other not in overrides:
            setattr(args, other, None)
    args.langtoks = dict(args.langtoks or {})
    if {"encoder_langtok", "decoder_langtok"} & set(overrides):
        args.langtoks.pop("main", None)  # it was made from these two
    return args


def languages(path, args):
    """The teacher's languages, in the order in which their tokens are added to a dictionary."""
    if not (args.langs or args.lang_dict or args.lang_pairs):
        raise Refusal(f"the teacher {path} does not say which languages it has: {NAME_LANGUAGES}")
    try:
        return MultilingualDatasetManager.load_langs(args)
    except OSError:
        raise Refusal(
            f"the teacher {path} has its languages in {args.lang_dict}, which is not there: {NAME_LANGUAGES}"
        ) from None


def fixed_dictionary(path, args):
    """The file of fairseq's --fixed-dictionary, which has all of the teacher's symbols."""
    if Path(args.fixed_dictionary).is_file():
        return args.fixed_dictionary
    raise Refusal(
        f"the teacher {path} has its dictionary in {args.fixed_dictionary}, which is not there: pass --model-overrides "
        "\"{'fixed_dictionary': 'FILE'}\", or None if the data's dictionary and the language tokens are all it has"
    )
