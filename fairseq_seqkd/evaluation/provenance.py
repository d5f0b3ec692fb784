"""The distillation provenance of a checkpoint, as one line in sacrebleu's manner."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from fairseq_seqkd.checkpoint import Checkpoint
from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.settings import SHORT_HASH
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import loss
from fairseq_seqkd.training.soft_targets import FORWARD_KL, SPREAD

# These criterions refuse data of any other kind, so their name says what the data were.
DATA_CRITERIONS = (manifest.SEQ_KD, manifest.SEQ_INTER)
UNKNOWN = "unknown"  # a file or folder that no longer exists


def distillation_signature(checkpoint: Checkpoint) -> Optional[str]:
    """Describes how a checkpoint was distilled, from its settings and its training data.

    Example: criterion:seq_kd|view:seq_kd|teacher:3f2a5c0b9d11|beam:5|nbest:5|...|version:0.1.0.
    The signature of the pseudo-targets follows the view. `word_teacher` is the teacher of a
    word-level term, `init` the checkpoint that was fine-tuned; each is a short hash or "unknown".

    Returns:
        The signature, or None if the checkpoint was trained on gold alone.
    """
    criterion = checkpoint.settings("criterion")
    name = criterion.get("_name")
    views, signatures = distilled_data(checkpoint, name)
    word_level = word_level_term(criterion)
    if not views and not word_level:
        return None
    init = checkpoint.settings("checkpoint").get("finetune_from_model")
    fields = {
        "criterion": name,
        "label_smoothing": criterion.get("label_smoothing") or None,
        **word_level,
        "init": short_hash(init) if init else None,
        "view": "+".join(views) or None,
    }
    known = [f"{key}:{value}" for key, value in fields.items() if value is not None]
    return "|".join([*known, *signatures])


def distilled_data(checkpoint: Checkpoint, criterion: Optional[str]) -> Tuple[List[str], List[str]]:
    """Returns the views that were trained on and the signatures of their pseudo-targets."""
    manifests = map(read_manifest, checkpoint.data_folders)
    views = [entry for entry in manifests if isinstance(entry, manifest.ViewManifest)]
    if not views and criterion in DATA_CRITERIONS:
        return [criterion], [f"teacher:{UNKNOWN}"]
    return [view.view for view in views], list(dict.fromkeys(view.signature for view in views))


def word_level_term(criterion: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the teacher and options of a word-level term; empty if there was none."""
    path, stored = criterion.get("teacher_path"), criterion.get("teacher_distributions")
    alpha = loss.weight_of_teacher(criterion.get("alpha"), has_teacher=True)
    if not alpha or not (path or stored):
        return {}
    name = short_hash if path else stored_teacher
    divergence, tail = str(criterion.get("divergence") or FORWARD_KL), str(criterion.get("tail"))
    return {
        "word_teacher": "+".join(map(name, str(path or stored).split(":"))),
        "alpha": alpha,
        "temperature": criterion.get("temperature"),
        "divergence": None if divergence == FORWARD_KL else divergence,
        "tail": tail if stored and tail != SPREAD else None,
    }


def stored_teacher(folder: str) -> str:
    """Returns the teacher of stored distributions and their number, e.g. "3f2a5c0b9d11/top8"."""
    entry = read_manifest(folder)
    if not isinstance(entry, manifest.DistributionsManifest):
        return UNKNOWN
    return f"{entry.settings.teacher.short_hash}/top{entry.settings.scoring.topk}"


def short_hash(path: str) -> str:
    """Returns the first digits of a file's hash, or "unknown" if it no longer exists."""
    return sha256(path)[:SHORT_HASH] if Path(path).is_file() else UNKNOWN


def read_manifest(folder: Union[str, Path]) -> Optional[manifest.Manifest]:
    """Returns the manifest of a folder, or None. A damaged one must not stop a measurement."""
    try:
        return manifest.read(folder)
    except Refusal:
        return None
