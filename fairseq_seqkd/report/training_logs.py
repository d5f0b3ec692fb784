"""The settings of a training, and the perplexity at each of its validations."""

import json
import math
from pathlib import Path
from typing import Dict, NamedTuple, Union

from fairseq_seqkd.errors import Refusal

Curve = Dict[int, float]  # updates to perplexity on gold
TENSORBOARD = "events.out.tfevents"  # names of its files begin so
# (group of fairseq's configuration, setting), in the order in which they are shown.
SETTINGS = (
    ("checkpoint", "save_dir"), ("task", "data"), ("model", "arch"),
    ("optimization", "max_update"), ("optimization", "lr"),
    ("checkpoint", "finetune_from_model"), ("common", "seed"), ("criterion", "_name"),
    ("criterion", "teacher_path"), ("criterion", "teacher_distributions"), ("criterion", "alpha"),
    ("criterion", "temperature"), ("criterion", "label_smoothing"), ("criterion", "freeze_zeros"),
)  # fmt: skip


class Log(NamedTuple):
    """What a log of fairseq-train holds."""

    is_json: bool  # whether it has lines of --log-format json
    curve: Curve


def read_log(path: Union[str, Path]) -> Log:
    """Reads a log of ``fairseq-train --log-format json``, or a file of --tensorboard-logdir.

    The log may be that of --log-file, or what was printed: lines that begin otherwise are skipped.
    A training that was resumed logs a validation again; its last value counts. Of several
    validation sets, the first one is read.

    Raises:
        Refusal: the file cannot be read.
    """
    if Path(path).name.startswith(TENSORBOARD):
        return Log(True, _read_tensorboard(path))
    is_json, curve = False, {}
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    values = json.loads("{" + line.partition("{")[2])
                except ValueError:
                    continue  # another line, or one that was cut short
                is_json = True
                if "valid_ppl" in values and math.isfinite(ppl := float(values["valid_ppl"])):
                    curve[int(values["valid_num_updates"])] = ppl
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror or error}") from None
    return Log(is_json, curve)


def _read_tensorboard(path: Union[str, Path]) -> Curve:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise Refusal(f"{path} needs tensorboard; pip install tensorboard") from None
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    if "ppl" not in events.Tags()["scalars"]:
        return {}
    return {event.step: event.value for event in events.Scalars("ppl")}


def read_settings(path: Union[str, Path]) -> Dict[str, str]:
    """Reads the settings of a training from its checkpoint; those that are off are left out."""
    from fairseq_seqkd.checkpoint import Checkpoint

    checkpoint, settings = Checkpoint(path), {}
    for group, key in SETTINGS:
        value = checkpoint.settings(group).get(key)
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        if value:
            settings["criterion" if key == "_name" else key] = str(value)
    return settings
