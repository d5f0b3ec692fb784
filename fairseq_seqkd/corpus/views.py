"""Views: distilled data sets, i.e. data-bins whose targets are hypotheses of the teacher.

The view ``seq_kd`` holds the 1-best, ``seq_inter`` the hypothesis closest to gold. A view is copied
from gold, never linked to it, so that it can be moved and used alone; its valid and test splits are
gold. If sentences were left out, ``rows.npy`` maps its rows to gold's sentence ids.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Iterable, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from msgspec.structs import replace

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.atomic import whole_folder
from fairseq_seqkd.corpus.databin import Split
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.manifest import DecodeManifest, FileFacts, ViewManifest
from fairseq_seqkd.corpus.mmap_format import Writer
from fairseq_seqkd.corpus.nbest_store import Block, NBestStore
from fairseq_seqkd.errors import Refusal

ROWS = "rows.npy"
COPY_BLOCK = 1024  # sentences copied at a time
CONTINUE = "is not finished; run the fairseq-generate command that makes it again, it continues"


class Choice(NamedTuple):
    """A view that is to be written."""

    manifest: ViewManifest  # `files` and `complete` are set when it is written
    ranks: np.ndarray  # (sentences,) rank of the hypothesis to take; -1 leaves the sentence out


def targets(block: Block, ranks: np.ndarray, eos: int) -> Tuple[np.ndarray, np.ndarray]:
    """Returns the chosen hypotheses of a block, each closed by EOS.

    Args:
        block: n sentences.
        ranks: (n,) rank of the hypothesis to take; -1 for none.
        eos: the id of EOS.

    Returns:
        The token ids, concatenated, and the number of tokens of each hypothesis.
    """
    tokens, lengths = block.tokens_of(block.picked(ranks))
    return np.insert(tokens, np.cumsum(lengths), eos), lengths + 1


def build(
    folder: Union[str, Path], choices: Sequence[Choice], store: NBestStore, gold: Split, eos: int
) -> None:
    """Writes views into a distilled directory in one pass over the store: all of them, or none.

    Args:
        folder: the distilled directory.
        choices: the views. Each has at least one sentence.
        store: the n-best lists.
        gold: the split that was decoded, whose sources are copied.
        eos: the id of EOS in the target dictionary.

    Raises:
        Refusal: gold has changed since its hashes were computed.
    """
    with contextlib.ExitStack() as stack:
        places = [Path(folder) / choice.manifest.view for choice in choices]
        outs = [stack.enter_context(whole_folder(place)) for place in places]
        try:
            _write_targets(outs, choices, store, gold, eos)
            for choice, out in zip(choices, outs):
                _complete(out, choice, gold)
        except Exception:
            gold.check_unchanged(folder)  # the likely reason
            raise
        gold.check_unchanged(folder)


def _write_targets(
    outs: Sequence[Path], choices: Sequence[Choice], store: NBestStore, gold: Split, eos: int
) -> None:
    """Writes the target side of each view. Memory is four bytes per sentence and view."""
    name = gold.prefix(gold.languages.target).name
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(Writer(out / name, store.token_dtype)) for out in outs]
        for first, block in store.blocks():
            for writer, choice in zip(writers, choices):
                writer.add(*targets(block, choice.ranks[first : first + len(block)], eos))


def _complete(out: Path, choice: Choice, gold: Split) -> None:
    """Copies the rest of a view from gold, and writes its manifest."""
    kept = np.flatnonzero(choice.ranks >= 0)
    if len(kept) == len(choice.ranks):
        for file in gold.files(gold.languages.source):
            shutil.copyfile(file, out / file.name)
    else:
        _copy_rows(gold, kept, out)
        with (out / ROWS).open("wb") as rows:
            np.save(rows, kept, allow_pickle=False)
    copy_gold(gold, out)
    files = {
        file.name: FileFacts(file.stat().st_size, sha256(file)) for file in sorted(out.iterdir())
    }
    manifest.write(out, replace(choice.manifest, files=files, complete=True))


def _copy_rows(gold: Split, kept: np.ndarray, out: Path) -> None:
    """Copies the sources of these sentences."""
    language = gold.languages.source
    source = gold.read(language)
    with Writer(out / gold.prefix(language).name, gold.dtype(language)) as writer:
        for start in range(0, len(kept), COPY_BLOCK):
            rows = [np.asarray(source[row]) for row in kept[start : start + COPY_BLOCK].tolist()]
            writer.add(np.concatenate(rows), [len(row) for row in rows])


def copy_gold(gold: Split, out: Path) -> None:
    """Copies dictionaries, and the valid and test splits of this language pair.

    The split that was decoded is not copied.
    """
    for dictionary in gold.dictionaries:
        shutil.copyfile(dictionary, out / dictionary.name)
    for spelling in gold.languages.spellings:
        for file in sorted(gold.folder.glob(f"*.{spelling}.*")):
            split = file.name.split(".")[0]
            if split.startswith(("valid", "test")) and split != gold.name:
                shutil.copyfile(file, out / file.name)


def check_view(folder: Union[str, Path], view: str) -> ViewManifest:
    """Checks that the data directory of a criterion is this view, finished and with its files.

    Returns:
        Its manifest.
    """
    content = manifest.read(folder)
    where = f"the data directory {folder}"
    if content is None:
        raise Refusal(
            f"{where} holds no teacher's translations (it has no {manifest.NAME}): criterion {view}"
            f" trains on the folder {view}/ that fairseq-generate --task teacher_decoding leaves in"
            " its --distill-dir; on gold use word_kd"
        )
    if isinstance(content, DecodeManifest):
        raise Refusal(
            f"{where} is a distilled directory; train on the view in it, {Path(folder) / view}"
        )
    if not isinstance(content, ViewManifest) or content.view != view:
        held = content.view if isinstance(content, ViewManifest) else "no"
        raise Refusal(
            f"{where} holds {held} targets, the criterion is {view}; use the one that fits the "
            "other"
        )
    _check_complete(folder, content)
    return content


def _check_complete(folder: Union[str, Path], view: ViewManifest) -> None:
    """Refuses a view that is not finished, or whose files are missing or have another size."""
    if not view.complete or view.files is None:
        raise Refusal(f"{folder} {CONTINUE}")
    for name, facts in view.files.items():
        file = Path(folder) / Path(name).name
        if not file.is_file() or file.stat().st_size != facts.bytes:
            raise Refusal(
                f"{file} is not the file that belongs to this view (it is missing or has another "
                "size); copy the view again, or build it anew"
            )


def find(folder: Union[str, Path], view: Optional[str] = None) -> Tuple[Path, ViewManifest]:
    """Finds a finished view, given its folder or the distilled directory that it is in.

    Args:
        folder: a view or a distilled directory.
        view: the view to find (default: seq_kd, or the view that `folder` is).

    Returns:
        The folder of the view, and its manifest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Refusal(
            f"the directory {folder} does not exist; name the --distill-dir of fairseq-generate, "
            "or a view in it"
        )
    content = manifest.read(folder)
    if isinstance(content, DecodeManifest):
        if not content.complete:
            raise Refusal(f"{folder} {CONTINUE}")
        view, views = view or manifest.SEQ_KD, content.views or []
        if view not in views:
            raise Refusal(f"{folder} has no view {view!r}; it has: {', '.join(views) or 'none'}")
        folder = folder / view
        content = manifest.read(folder)
    if not isinstance(content, ViewManifest):
        raise Refusal(
            f"{folder} holds no teacher's translations (it has no {manifest.NAME} of a decode or a "
            "view); name the directory that fairseq-generate --task teacher_decoding made"
        )
    if view not in (None, content.view):
        raise Refusal(
            f"{folder} is the view {content.view}, not {view}; name the directory that it is in"
        )
    _check_complete(folder, content)
    return folder, content


def check_contents(folder: Union[str, Path], content: ViewManifest, names: Iterable[str]) -> None:
    """Refuses files of a view whose hashes are not the manifest's.

    Args:
        folder: the view.
        content: its manifest.
        names: the files to check. Those that the manifest does not list are skipped.
    """
    files = content.files or {}
    for name in names:
        if name in files and sha256(Path(folder) / name) != files[name].sha256:
            raise Refusal(
                f"{Path(folder) / name} is damaged: its hash is not the manifest's; copy the view "
                "again, or build it anew"
            )
