"""Whether stored distributions belong to the data and the dictionary of a student."""

from typing import Any, Dict, List, NamedTuple, Sequence

from fairseq import utils
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.databin import LanguagePair, Split, SplitHashes, training_splits
from fairseq_seqkd.corpus.distribution_store import DistributionStore
from fairseq_seqkd.corpus.plan import too_long
from fairseq_seqkd.corpus.stores import check_store
from fairseq_seqkd.errors import Refusal


class Scoring(NamedTuple):
    """A finished directory of distributions."""

    folder: str
    manifest: manifest.DistributionsManifest


def check(folders: Sequence[str], task: TranslationTask, thorough: bool) -> List[Scoring]:
    """Checks directories of distributions, and returns them with their manifests.

    Args:
        folders: the directories.
        task: the student's.
        thorough: whether to compare the hashes of the data, which reads all of them.

    Raises:
        Refusal: a directory is not finished, or not of this student's data and dictionary.
    """
    scorings = [Scoring(folder, _read_finished(folder)) for folder in folders]
    _check_task(task)
    _check_alike(scorings)
    for scoring in scorings:
        vocabulary = scoring.manifest.settings.scoring.vocabulary
        if vocabulary != len(task.target_dictionary):
            raise Refusal(
                f"{scoring.folder} is of a vocabulary of {vocabulary:,} symbols, the student's has "
                f"{len(task.target_dictionary):,}; score with the student's dictionaries"
            )
    if thorough:
        _check_data(scorings, task)
    return scorings


def _read_finished(folder: str) -> manifest.DistributionsManifest:
    content = manifest.read(folder)
    if not isinstance(content, manifest.DistributionsManifest):
        raise Refusal(
            f"--teacher-distributions {folder} holds no distributions; make them with "
            "fairseq-generate --task teacher_decoding --score-reference --topk 8 --distill-dir "
            "DIR, and name that directory"
        )
    if not content.complete or content.counts is None:
        raise Refusal(
            f"--teacher-distributions {folder} is not finished; run the fairseq-generate command "
            "that makes it again: it continues"
        )
    return content


def open_store(scoring: Scoring, thorough: bool) -> DistributionStore:
    """Opens the store of a directory.

    Args:
        scoring: the directory.
        thorough: whether to read all of the store.

    Raises:
        Refusal: it is damaged, or not the one that its manifest describes.
    """
    store, content = DistributionStore(scoring.folder), scoring.manifest
    settings, counts = content.settings, content.counts
    tokens = counts.tokens if counts else 0
    expected = (settings.scoring.topk, settings.stored_sentences, tokens)
    if (store.k, len(store), store.tokens_stored) != expected:
        raise Refusal(
            f"{store.path} is not the file that its manifest describes; copy the whole directory "
            "again"
        )
    if thorough:
        check_store(scoring.folder, content)
    return store


def _check_task(task: TranslationTask) -> None:
    """Refuses tasks and options that change sentences between the disk and the batch."""
    if type(task) is not TranslationTask:
        raise Refusal(
            "--teacher-distributions is for the task translation, which leaves sentences as they "
            f"are on disk; with {type(task).__name__} use --teacher-path"
        )
    if task.cfg.truncate_source:
        raise Refusal(
            "--truncate-source changes the sources, but stored distributions are of the whole "
            "ones; leave it out"
        )


def _check_alike(scorings: Sequence[Scoring]) -> None:
    """Refuses several directories that are not of one teacher and one k."""
    settings = [scoring.manifest.settings for scoring in scorings]
    properties: Dict[str, List[Any]] = {
        "teacher": [of.teacher for of in settings],
        "number of symbols": [of.scoring.topk for of in settings],
    }
    for name, values in properties.items():
        if any(value != values[0] for value in values):
            raise Refusal(
                f"the distributions in {_names(scorings)} differ in their {name}; several "
                "directories are several splits (train, train1) scored alike, and an ensemble is "
                "scored as one: --path a.pt:b.pt"
            )


def _names(scorings: Sequence[Scoring]) -> str:
    return ":".join(str(scoring.folder) for scoring in scorings)


def _check_data(scorings: Sequence[Scoring], task: TranslationTask) -> None:
    """Refuses distributions of other data than the student's, and data that are not all scored."""
    cfg, used = task.cfg, set()
    languages = LanguagePair(cfg.source_lang, cfg.target_lang)
    subset = cfg.train_subset.split(",")[0]
    scored = [scoring.manifest.settings.data.hashes for scoring in scorings]
    for folder in utils.split_paths(cfg.data):
        for split in training_splits(folder, subset, languages):
            matching = [i for i, hashes in enumerate(scored) if hashes == split.hashes]
            if not matching:
                raise Refusal(
                    f"split {split.name!r} of {folder} is not what the distributions in "
                    f"{_names(scorings)} were made of ({_difference(split.hashes, scored)}); score "
                    "it, and name its directory too, separated by a colon"
                )
            if len(matching) > 1:
                names = " and ".join(str(scorings[i].folder) for i in matching)
                raise Refusal(
                    f"{names} are both of split {split.name!r} of {folder}; name one of them"
                )
            used.update(matching)
            _check_lengths(scorings[matching[0]], split, task)
    for i in set(range(len(scorings))) - used:
        raise Refusal(
            f"{scorings[i].folder} is of no split that the student is trained on; leave it out"
        )


def _difference(own: SplitHashes, scored: Sequence[SplitHashes]) -> str:
    """Returns what differs from the nearest of the scored splits, in words."""
    names = ("sources", "targets", "dictionaries")
    others = [[name for name, a, b in zip(names, own, hashes) if a != b] for hashes in scored]
    return f"other {' and '.join(sorted(others, key=len)[0])}"


def _check_lengths(scoring: Scoring, split: Split, task: TranslationTask) -> None:
    """Refuses sentences that the student's task admits and that the teacher could not read."""
    settings = scoring.manifest.settings.scoring
    if not settings.too_long:
        return
    sides = zip(("source", "target"), split.languages)
    for (side, lang), limit, allowed in zip(sides, settings.positions, task.max_positions()):
        sizes = [split.sizes(lang)]
        if (too_long(sizes, [limit]) & ~too_long(sizes, [allowed])).any():
            raise Refusal(
                f"{scoring.folder} lacks training sentences of more than {limit:,} {side} tokens, "
                f"which its teacher cannot read; pass --max-{side}-positions {limit} "
                "--skip-invalid-size-inputs-valid-test"
            )
