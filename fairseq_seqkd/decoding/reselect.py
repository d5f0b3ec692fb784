"""The views of a finished decode made anew, without a search: other similarity, shorter lists, other filters (`seqkd select`).

The new directory is, byte for byte, the one that decoding with the new options would have left.
"""

import copy
from dataclasses import fields

import numpy as np
from fairseq import options
from fairseq.data import encoders
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.translation import TranslationTask
from hydra.errors import MissingConfigException

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import LanguagePair, Split
from fairseq_seqkd.corpus.distilled import check_disk_space, check_store
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.corpus.plan import plan_of
from fairseq_seqkd.decoding.config import OF_SELECTION, TeacherDecodingConfig, check_selection
from fairseq_seqkd.decoding.nbest_recorder import Recorder
from fairseq_seqkd.decoding.settings import filter_settings, similarity_settings
from fairseq_seqkd.engines.options import WITHOUT_EFFECT
from fairseq_seqkd.errors import Refusal

AT_A_TIME = 64  # sentences that are handed to the scorer together


def reselect(folder, data, out, nbest, words, show=iter):
    """Writes the distilled directory `out`; returns its manifest.

    Args:
        folder: a finished decode. data: the data-bin that was decoded.
        nbest: so many hypotheses of each list, the first ones; None: all.
        words: options of `teacher_decoding` that are about similarity, selection, filters and text, as on a command line.
        show: (parts) -> the parts, for a progress bar.

    Raises Refusal for a directory that is not finished, other data, and options that are about the decode.
    """
    found = finished(folder)
    settings = copy.deepcopy(found["settings"])
    about = settings["data"]
    gold = Split(data, about["split"], LanguagePair(about["source_lang"], about["target_lang"]))
    if not gold.holds(about):
        raise Refusal(f"--data {data} is not the data-bin that {folder} was decoded from")
    settings["search"]["nbest"] = shorter(nbest, settings["search"]["nbest"], folder)
    cfg = configuration(gold, out, settings["search"], words)
    task = TranslationTask.setup_task(cfg.task)
    task.load_dataset(gold.name)
    dataset = task.dataset(gold.name)
    settings["similarity"] = similarity_settings(cfg.task, dataset)
    settings.update(select=str(cfg.task.select), filters=filter_settings(cfg.task))
    check_text(found["settings"]["similarity"] or {}, settings["similarity"] or {})
    plan = plan_of(settings)
    recorder = Recorder(cfg.task, gold, dataset, settings, plan)
    recorder.engine = StoredLists(NBestStore(folder), settings["search"]["nbest"])
    check_store(folder, found)
    recorder.bpe, recorder.tokenizer = (
        encoders.build_bpe(cfg.bpe),
        encoders.build_tokenizer(cfg.tokenizer),
    )
    try:
        fill(recorder, plan, show)
    finally:
        recorder.close()
    recorder.finished()
    return manifest.read(out)


class StoredLists:
    """Instead of a search, what a search has found. Args: store: NBestStore; nbest: how many of each list."""

    def __init__(self, store, nbest):
        self.store, self.nbest = store, nbest

    def begin_part(self, seed):
        """Nothing is random here."""

    def search(self, sample):
        return [self.store[sentence][: self.nbest] for sentence in sample["id"].tolist()]


def fill(recorder, plan, show):
    """Commits every part that is not there, and finishes the directory; several processes may do so at once."""
    distilled = recorder.distilled
    distilled.look()
    if not distilled.complete:
        check_disk_space("-o", distilled.folder, recorder.expected_bytes())
    distilled.begin()
    for part in show(range(plan.parts)):
        with distilled.claim(part) as mine:
            if mine:
                first, last = plan.bounds(part)
                recorder.begin_part(first)
                for start in range(first, last, AT_A_TIME):
                    recorder.record({"id": np.arange(start, min(start + AT_A_TIME, last))})
                distilled.commit(part, recorder.block(first, last))
    if not distilled.finish(recorder.finish):
        raise Refusal(
            f"{distilled.folder} is not complete: another process is at it; run this again when it has ended"
        )


def finished(folder):
    """The manifest of a finished decode."""
    found = manifest.read(folder)
    if not found or found.get("kind") != manifest.DISTILLED or not found.get("complete"):
        raise Refusal(
            f"{folder} holds no finished n-best lists; name the --distill-dir of a finished decode"
        )
    manifest.check_signature(folder, found)
    return found


def shorter(nbest, there, folder):
    if nbest is None:
        return there
    if not 1 <= nbest <= there:
        raise Refusal(
            f"--nbest is {nbest}, it must be between 1 and {there}, what {folder} has of each sentence"
        )
    return nbest


def configuration(gold, out, search, words):
    """fairseq's configuration of the task, from the options that are about selection. Refuses those of a decode."""
    given = {
        "source_lang": gold.languages.source,
        "target_lang": gold.languages.target,
        "distill_dir": str(out),
    }
    given |= {key: search[key] for key in ("beam", "nbest")}
    mine = [word for name, value in given.items() for word in (option_of(name), str(value))]
    parser = options.get_generation_parser(default_task="teacher_decoding")
    parser.prog = "seqkd select"
    args = options.parse_args_and_arch(
        parser, [str(gold.folder), "--path", "none", "--gen-subset", gold.name, *mine, *words]
    )
    try:
        cfg = convert_namespace_to_omegaconf(args)
    except MissingConfigException as error:
        raise Refusal(
            f"fairseq cannot be set up with these options ({error}); its --bpe and --tokenizer have other names"
        ) from None
    of_decode = [
        (cfg.task, o)
        for o in fields(TeacherDecodingConfig)
        if o.name not in OF_SELECTION and is_own(o)
    ]
    of_decode += [(cfg.generation, o) for o in fields(GenerationConfig) if o.name in cfg.generation]
    for group, option in of_decode:
        if option.name in WITHOUT_EFFECT - {"score_reference"}:
            continue
        if group[option.name] != given.get(option.name, option.default):
            raise Refusal(
                f"{option_of(option.name)} is about the decode, which is over; decode into another directory, or leave it out"
            )
    check_selection(cfg.task)
    return cfg


def option_of(name):
    return f"--{name.replace('_', '-')}"


def is_own(option):
    """Whether a field of the task's configuration is an option of its own, neither the data nor another group's value."""
    return option.name != "data" and not str(option.default).startswith("${")


def check_text(before, now):
    """Refuses to undo less than the decode did: similarity would be that of pieces of words."""
    for key, option in (("bpe", "--bpe"), ("tokenizer_undone", "--tokenizer")):
        if before.get(key) and now and not now.get(key):
            raise Refusal(
                f"these data were decoded with {option} {before[key]}: name it here too, with its options"
            )
