"""Opens the teacher of a training, live or stored, and checks it against the student's data."""

from typing import Any, List, Union

from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.checkpoint import Checkpoint, load_ensemble
from fairseq_seqkd.corpus.databin import LanguagePair, check_files
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import teacher_checks
from fairseq_seqkd.training.checks import is_first_process
from fairseq_seqkd.training.stored_teacher import StoredTeacher
from fairseq_seqkd.training.teacher import Teacher


def open_teacher(cfg: Any, task: TranslationTask) -> Union[Teacher, StoredTeacher]:
    """Opens the teacher that the options of a criterion name.

    Args:
        cfg: a WordKDConfig.
        task: the student's.

    Raises:
        Refusal: it does not belong to the student's data.
    """
    if cfg.teacher_distributions:
        folders = utils.split_paths(cfg.teacher_distributions)
        return StoredTeacher(folders, task, str(cfg.tail), is_first_process())
    return open_live(cfg.teacher_path, task)


def open_live(path: str, task: TranslationTask) -> Teacher:
    """Loads the teacher, and checks its dictionaries, lengths and first sentences.

    Args:
        path: its checkpoint; the members of an ensemble are separated by colons.
        task: the student's.
    """
    languages = LanguagePair(task.cfg.source_lang, task.cfg.target_lang)
    dictionaries = (task.source_dictionary, task.target_dictionary)
    checkpoints = [Checkpoint(member, role="teacher") for member in utils.split_paths(path)]
    for checkpoint in checkpoints:
        checkpoint.check_known()
        teacher_checks.check_teacher(
            checkpoint, languages, dictionaries, teacher_checks.OWN_VOCABULARY
        )
    subset = task.cfg.train_subset.split(",")[0]
    # fairseq reads all data directories of the task's own training subset, and only the first
    # directory of another subset.
    models, own_task = load_ensemble(
        checkpoints,
        task.cfg.data,
        languages,
        train_subset=subset,
        dataset_impl=task.cfg.dataset_impl,
    )
    teacher = Teacher(models)
    datasets = training_data(own_task, subset, utils.split_paths(task.cfg.data))
    for dataset in datasets:
        teacher_checks.check_positions(
            teacher, dataset, task.max_positions(), path, task.cfg.truncate_source
        )
    teacher_checks.check_better_than_guessing(teacher, datasets[0], task.target_dictionary, path)
    return teacher


def training_data(
    task: TranslationTask, subset: str, folders: List[str]
) -> List[LanguagePairDataset]:
    """Loads the training subset of each data directory. fairseq-train gives an epoch to each.

    Raises:
        Refusal: a directory lacks the subset.
    """
    datasets = []
    for epoch, folder in enumerate(folders, start=1):
        check_files(folder, subset)  # fairseq would end with a traceback
        try:
            task.load_dataset(subset, epoch=epoch, combine=True)
        except FileNotFoundError:
            raise Refusal(
                f"there is no split {subset!r} in {folder}; name it with --train-subset"
            ) from None
        datasets.append(task.dataset(subset))
    return datasets
