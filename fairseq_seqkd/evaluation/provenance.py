"""How a checkpoint was taught, from its settings and from what it was trained on, as one line in sacrebleu's manner."""

from pathlib import Path

from fairseq_seqkd.corpus import manifest
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.settings import SHORT_HASH
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.training import loss as losses
from fairseq_seqkd.training.soft_targets import FORWARD_KL, SPREAD

DATA_CRITERIONS = (
    manifest.SEQ_KD,
    manifest.SEQ_INTER,
)  # they refuse data of any other kind, so the name says what the data were


def distillation_signature(checkpoint):
    """One line that says which teaching a checkpoint has had, from its settings; None where it was trained on gold alone.

    Example: criterion:seq_kd|view:seq_kd|teacher:3f2a5c0b9d11|beam:5|nbest:5|...|version:0.1.0. What follows the view is
    the signature of the pseudo-targets. The teacher of a word-level term is word_teacher, a fine-tuned checkpoint's
    origin is init; each is a hash, or "unknown" where the file is not there any more.

    Args: checkpoint: a Checkpoint.
    """
    criterion = checkpoint.settings("criterion")
    name = criterion.get("_name")
    views, signatures = taught_by_data(checkpoint, name)
    teaching = word_level_term(criterion)
    if not views and not teaching:
        return None
    fields = {
        "criterion": name,
        "label_smoothing": criterion.get("label_smoothing") or None,
        **teaching,
    }
    fields["init"] = short_hash(checkpoint.settings("checkpoint").get("finetune_from_model"))
    fields["view"] = "+".join(views) or None
    return "|".join(
        [f"{key}:{value}" for key, value in fields.items() if value is not None] + signatures
    )


def taught_by_data(checkpoint, criterion):
    """(views that were trained on, signatures of their pseudo-targets); empty lists for gold."""
    views, signatures = [], []
    for folder in checkpoint.data_folders:
        found = manifest_of(folder)
        if isinstance(found, manifest.ViewManifest):
            views.append(found.view)
            if found.signature not in signatures:
                signatures.append(found.signature)
    if not views and criterion in DATA_CRITERIONS:
        return [criterion], ["teacher:unknown"]
    return views, signatures


def word_level_term(criterion):
    """The teacher's distributions that a criterion of ours used: whose, alpha, temperature; empty where it used none."""
    path, stored = criterion.get("teacher_path"), criterion.get("teacher_distributions")
    alpha = losses.weight_of_teacher(criterion.get("alpha"), has_teacher=True)
    if not alpha or not (path or stored):
        return {}
    divergence = str(criterion.get("divergence") or FORWARD_KL)
    return {
        "word_teacher": "+".join(short_hash(p) for p in path.split(":"))
        if path
        else "+".join(map(stored_by, stored.split(":"))),
        "alpha": alpha,
        "temperature": criterion.get("temperature"),
        "divergence": None if divergence == FORWARD_KL else divergence,
        "tail": None
        if not stored or str(criterion.get("tail")) == SPREAD
        else str(criterion.get("tail")),
    }


def stored_by(folder):
    """Whose distributions a directory holds, and how many: "3f2a5c0b9d11/top8"; "unknown" where it is not there any more."""
    found = manifest_of(folder)
    if not isinstance(found, manifest.DistributionsManifest):
        return "unknown"
    return f"{found.settings.teacher.short_hash}/top{found.settings.scoring.topk}"


def short_hash(path):
    """The first digits of a file's hash; "unknown" where it is not there any more, None for no path."""
    if not path:
        return None
    return sha256(path)[:SHORT_HASH] if Path(path).is_file() else "unknown"


def manifest_of(folder):
    """The manifest of a folder, or None: that it is damaged is no reason not to measure the checkpoint."""
    try:
        return manifest.read(folder)
    except Refusal:
        return None
