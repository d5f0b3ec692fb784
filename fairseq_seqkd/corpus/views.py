"""Views: data-bins whose targets are the teacher's. `seq_kd` holds its mode, `seq_inter` what is closest to gold.

A view is copied from gold, never linked to it, so that it can be moved and used alone; valid and test are gold. Where
sentences had to be left out, `rows.npy` maps its rows to gold's sentence ids.
"""

import shutil
from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.atomic import whole_folder
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.mmap_format import Writer
from fairseq_seqkd.errors import Refusal

ROWS = "rows.npy"
COPY_BLOCK = 1024  # sentences copied at a time


def targets(block, chosen, eos):
    """The chosen hypotheses of a block, each closed by EOS: (tokens, sizes).

    Args: chosen: (sentences,) rank of the hypothesis to take, -1 for none.
    """
    tokens, lengths = block.tokens_of(block.picked(chosen))
    return np.insert(tokens, np.cumsum(lengths), eos), lengths + 1


def build(folder, view, choose, store, gold, eos, facts, sieve=None, unchanged=lambda: None):
    """Writes the view `folder/view`, whole or not at all, and returns its manifest; None where no sentence is left for it.

    Args:
        choose: Block -> (sentences,) rank of the hypothesis to take, -1 for none.
        store: NBestStore; gold: databin.Split of the gold data, whose sources are copied as they are on disk.
        facts: what the manifest should also say (signature, version, ...).
        sieve: (id of the first sentence, Block, chosen) -> chosen with -1 for what filters leave out, and it has
        counts() of that, for the manifest; None: no filter.
        unchanged: raises Refusal where gold is not what was decoded any more; asked when everything is copied.
    """
    ranks = np.full(len(store), -1, np.int32)
    for first, block in store.blocks():
        chosen = choose(block)
        ranks[first : first + len(block)] = sieve(first, block, chosen) if sieve else chosen
    kept = np.flatnonzero(ranks >= 0)
    if not len(kept):
        return None
    with whole_folder(Path(folder) / view) as out:
        target_prefix = out / gold.prefix(gold.languages.target).name
        dtype = store.token_dtype
        with Writer(target_prefix, dtype) as writer:
            for first, block in store.blocks():
                writer.add(*targets(block, ranks[first : first + len(block)], eos))
        if len(kept) == len(store):
            for file in gold.files(gold.languages.source):
                shutil.copyfile(file, out / file.name)
        else:
            source = gold.read(gold.languages.source)
            prefix, dtype = gold.prefix(gold.languages.source), gold.dtype(gold.languages.source)
            with Writer(out / prefix.name, dtype) as writer:
                for start in range(0, len(kept), COPY_BLOCK):
                    sentences = [
                        np.asarray(source[row]) for row in kept[start : start + COPY_BLOCK].tolist()
                    ]
                    writer.add(np.concatenate(sentences), [len(sentence) for sentence in sentences])
            with (out / ROWS).open("wb") as file:
                np.save(file, kept, allow_pickle=False)
        copy_gold(gold, out)
        unchanged()
        content = {
            **facts,
            "kind": manifest.VIEW,
            "view": view,
            "split": gold.name,
            "rows": len(kept),
            "left_out": len(store) - len(kept),
            **({"filtered": sieve.counts()} if sieve else {}),
            "complete": True,
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in sorted(out.iterdir())
            },
        }
        manifest.write(out, content)
    return content


def copy_gold(gold, out):
    """Copies dictionaries, and every valid and test split of this language pair that is not the decoded one."""
    for dictionary in gold.dictionaries:
        shutil.copyfile(dictionary, out / dictionary.name)
    pairs = gold.languages.spellings
    for file in sorted(file for pair in pairs for file in gold.folder.glob(f"*.{pair}.*")):
        split = file.name.split(".")[0]
        if split.startswith(("valid", "test")) and split != gold.name:
            shutil.copyfile(file, out / file.name)


def check_view(folder, view):
    """Refuses a data directory that is not a finished view of this kind, with its files as they were written."""
    found = manifest.read(folder)
    where = f"the data directory {folder}"
    if found is None:
        raise Refusal(
            f"{where} holds no teacher's translations (it has no {manifest.NAME}): criterion {view} trains on the folder "
            f"{view}/ that fairseq-generate --task teacher_decoding leaves in its --distill-dir; on gold use word_kd"
        )
    if found.get("kind") == manifest.DISTILLED:
        raise Refusal(
            f"{where} is a distilled directory; train on the view in it, {Path(folder) / view}"
        )
    if found.get("kind") != manifest.VIEW or found.get("view") != view:
        raise Refusal(
            f"{where} holds {found.get('view')} targets, the criterion is {view}; use the one that fits the other"
        )
    if not found.get("complete") or "files" not in found:
        raise Refusal(
            f"{where} is not finished; run the fairseq-generate command that makes it again, it continues"
        )
    for name, facts in found["files"].items():
        file = Path(folder) / Path(name).name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            raise Refusal(
                f"{file} is not the file that belongs to this view (it is missing or has another size); "
                "copy the view again, or build it anew"
            )
    return found


def find(folder, view=None):
    """(folder, manifest) of a finished view, given its own folder or the distilled directory that it is in.

    Args: view: which one of a distilled directory (default: seq_kd); of a view's own folder it may only say what it is.
    """
    found = manifest.read(folder)
    if not Path(folder).is_dir():
        raise Refusal(
            f"the directory {folder} does not exist; name the --distill-dir of fairseq-generate, or a view in it"
        )
    if found is None:
        raise Refusal(
            f"{folder} holds no teacher's translations (it has no {manifest.NAME}); name the directory that "
            "fairseq-generate --task teacher_decoding made, or a view in it"
        )
    if found.get("kind") == manifest.DISTILLED:
        if not found.get("complete"):
            raise Refusal(
                f"{folder} is not finished; run the fairseq-generate command that makes it again, it continues"
            )
        view = view or manifest.SEQ_KD
        if view not in found.get("views", []):
            raise Refusal(
                f"{folder} has no view {view!r}; it has: {', '.join(found.get('views', [])) or 'none'}"
            )
        folder = Path(folder) / view
    elif found.get("kind") != manifest.VIEW:
        raise Refusal(
            f"{folder} holds something else ({found.get('kind')}); name a distilled directory or a view in it"
        )
    elif view not in (None, found.get("view")):
        raise Refusal(
            f"{folder} is the view {found.get('view')}, not {view}; name the directory that it is in"
        )
    return Path(folder), check_view(folder, view or found.get("view"))


def check_contents(folder, content, names):
    """Refuses files of a view that are not, byte for byte, what its manifest says. check_view compares sizes only.

    Args: content: the view's manifest; names: of the files. One that the manifest does not know is passed over.
    """
    for name in names:
        facts = content["files"].get(name)
        if facts is not None and sha256(Path(folder) / name) != facts["sha256"]:
            raise Refusal(
                f"{Path(folder) / name} is damaged: its hash is not the manifest's; copy the view again, or build it anew"
            )
