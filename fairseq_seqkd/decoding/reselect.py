"""Rebuilds the views of a finished decode with other selection options (`seqkd select`).

The new directory is identical, byte for byte, to one decoded with these options.
"""

from dataclasses import fields
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from fairseq import options
from fairseq.data import encoders
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.translation import TranslationTask
from hydra.errors import MissingConfigException
from msgspec.structs import replace
from torch import Tensor

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.distilled import check_disk_space
from fairseq_seqkd.corpus.manifest import DecodeManifest
from fairseq_seqkd.corpus.nbest import NBest
from fairseq_seqkd.corpus.nbest_store import NBestStore
from fairseq_seqkd.corpus.plan import Plan
from fairseq_seqkd.corpus.settings import SearchSettings, SimilaritySettings
from fairseq_seqkd.corpus.stores import check_store
from fairseq_seqkd.decoding.checks import check_selection
from fairseq_seqkd.decoding.config import (
    OF_SEARCH,
    OF_SELECTION,
    TeacherDecodingConfig,
    changed_options,
    option_name,
)
from fairseq_seqkd.decoding.nbest_recorder import NBestRecorder
from fairseq_seqkd.decoding.parts import PartLoop
from fairseq_seqkd.decoding.settings import DecodeInputs, TextDecoders, similarity_settings
from fairseq_seqkd.engines import Sample
from fairseq_seqkd.errors import Problems, Refusal
from fairseq_seqkd.selection import filters

# Options about the decode, which is over. --score-reference would make it another kind of work.
OF_DECODE = {declared.name for declared in fields(TeacherDecodingConfig)} | OF_SEARCH
OF_DECODE = (OF_DECODE | {"score_reference"}) - OF_SELECTION - {"data", "_name"}


def reselect(
    folder: str,
    data: str,
    output: str,
    nbest: Optional[int],
    words: Sequence[str],
    show: Callable[[PartLoop], Iterable[Any]] = iter,
) -> DecodeManifest:
    """Writes a new distilled directory, and returns its manifest.

    Args:
        folder: a finished decode.
        data: the data-bin that was decoded.
        output: the directory to write.
        nbest: number of hypotheses to keep per sentence; None keeps all.
        words: options of `teacher_decoding` about selection and text, as on a command line.
        show: wraps the batches in a progress bar.

    Raises:
        Refusal: the directory is not finished, the data are others, or an option concerns the
            search.
    """
    decoded = read_finished(folder)
    before = decoded.settings
    gold = Split(data, before.data.split, before.data.languages)
    if not gold.has_hashes(before.data.hashes):
        raise Refusal(f"--data {data} is not the data-bin that {folder} was decoded from")
    stored = before.search.nbest
    if nbest is not None and not 1 <= nbest <= stored:
        raise Refusal(
            f"--nbest is {nbest}, it must be between 1 and {stored}, the number of hypotheses per "
            f"sentence in {folder}"
        )
    search = replace(before.search, nbest=nbest or stored)
    cfg = configuration(gold, output, search, words)
    task = TranslationTask.setup_task(cfg.task)
    task.load_dataset(gold.name)
    dataset = task.dataset(gold.name)
    settings = replace(
        before,
        search=search,
        similarity=similarity_settings(cfg.task, dataset),
        select=str(cfg.task.select),
        filters=filters.limits_of(cfg.task),
    )
    check_text(before.similarity, settings.similarity)
    plan = settings.batch_plan()
    text = TextDecoders(encoders.build_bpe(cfg.bpe), encoders.build_tokenizer(cfg.tokenizer))
    recorder = NBestRecorder(DecodeInputs(cfg.task, gold, dataset), settings, plan, text)
    recorder.search_with(StoredLists(NBestStore(folder), search.nbest))
    check_store(folder, decoded)
    try:
        fill(recorder, plan, show)
    finally:
        recorder.close()
    return read_finished(output)


class StoredLists:
    """A SearchEngine that returns what a search has found before.

    Args:
        store: of the finished decode.
        nbest: number of hypotheses per sentence.
    """

    def __init__(self, store: NBestStore, nbest: int) -> None:
        self.store, self.nbest = store, nbest

    def begin_part(self, seed: Optional[int]) -> None:
        """Prepares nothing: no random numbers are drawn."""

    def search(self, sample: Sample, prefix_tokens: Optional[Tensor] = None) -> List[NBest]:
        """Returns the stored lists of the sentences of a batch."""
        return [self.store[sentence][: self.nbest] for sentence in sample["id"].tolist()]


def fill(recorder: NBestRecorder, plan: Plan, show: Callable[[PartLoop], Iterable[Any]]) -> None:
    """Commits every missing part and finishes the directory, beside other processes if any."""
    loop, folder = PartLoop(recorder, plan), recorder.distilled.folder
    if loop.remaining:
        check_disk_space("-o", folder, recorder.expected_bytes())
    loop.begin()
    for ids in show(loop):
        recorder.record({"id": ids})
    if not loop.finish():
        raise Refusal(
            f"{folder} is not complete: another process works on it; run this command again when "
            "it has ended"
        )


def read_finished(folder: str) -> DecodeManifest:
    """Returns the manifest of a finished decode."""
    content = manifest.read(folder)
    if not isinstance(content, DecodeManifest) or not content.complete:
        raise Refusal(
            f"{folder} holds no finished n-best lists; pass the --distill-dir of a finished decode"
        )
    manifest.check_signature(folder, content)
    return content


def configuration(gold: Split, output: str, search: SearchSettings, words: Sequence[str]) -> Any:
    """Returns fairseq's configuration of the task, from the options about selection.

    Args:
        gold: the split that was decoded.
        output: the directory to write.
        search: the settings of the search.
        words: options, as on a command line.

    Raises:
        Refusal: an option is wrong, or concerns the search.
    """
    given: Dict[str, Any] = {
        "source_lang": gold.languages.source,
        "target_lang": gold.languages.target,
        "distill_dir": str(output),
        "beam": search.beam,
        "nbest": search.nbest,
    }
    command = [str(gold.folder), "--path", "none", "--gen-subset", gold.name]
    for name, value in given.items():
        command += [option_name(name), str(value)]
    parser = options.get_generation_parser(default_task="teacher_decoding")
    parser.prog = "seqkd select"
    try:
        cfg = convert_namespace_to_omegaconf(
            options.parse_args_and_arch(parser, [*command, *words])
        )
    except MissingConfigException as error:
        raise Refusal(
            f"fairseq cannot be set up with these options ({error}); its --bpe and --tokenizer "
            "have other names"
        ) from None
    problems = Problems()
    for option in changed_options(cfg.task, OF_DECODE, given):
        problems.add(
            f"{option} cannot be changed after decoding; leave it out, or decode into another "
            "directory"
        )
    check_selection(cfg.task, problems)
    problems.refuse()
    return cfg


def check_text(before: Optional[SimilaritySettings], now: Optional[SimilaritySettings]) -> None:
    """Refuses to undo less than the decode did: similarity would be that of subwords."""
    for key, option in (("bpe", "--bpe"), ("tokenizer_undone", "--tokenizer")):
        used = getattr(before, key, None)
        if used and now and not getattr(now, key):
            raise Refusal(
                f"these data were decoded with {option} {used}; pass it here, too, with its options"
            )
