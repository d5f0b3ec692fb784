"""What fairseq-train said of a training: its settings, and the perplexity on gold at every validation (`seqkd report`).

Read from its log in the formats `simple` and `json` (also of --log-file), or from the files of --tensorboard-logdir.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

SAID = re.compile(
    r"\| INFO \| (?:fairseq_cli\.train \| \{|valid \|)|\"valid_ppl\""
)  # only of fairseq-train
SIMPLE = re.compile(
    r"valid on '(?P<split>[^']+)' subset \|.*?\| ppl (?P<ppl>[\d.einfa]+) \|.*?num_updates (?P<updates>\d+)"
)
JSON = re.compile(r"\{.*\"valid_ppl\".*\}")
# Of the line that prints all settings, where they are 'key': value, or key=value.
SETTINGS = ("save_dir", "data", "arch", "max_update", "lr", "finetune_from_model", "seed")
OF_CRITERION = (
    "teacher_path",
    "teacher_distributions",
    "alpha",
    "temperature",
    "label_smoothing",
    "freeze_zeros",
)
CRITERION = re.compile(r"'criterion': (?P<all>\{'_name': '(?P<name>[^']+)'[^{}]*\})")
SNIFFED = 1 << 16  # bytes of a file that decide whether it is a log of fairseq-train
TAG, VALID = (
    "ppl",
    "valid",
)  # of TensorBoard's files; the first validation set has this name unless the user says otherwise


@dataclass
class Training:
    """One run of fairseq-train."""

    path: str  # of the log
    settings: dict = field(default_factory=dict)
    curve: dict = field(
        default_factory=dict
    )  # updates -> perplexity on gold; a training that was resumed says it once
    validated_on: Optional[str] = (
        None  # of several validation sets the first, as for checkpoint_best
    )

    @property
    def folder(self):
        """Where its checkpoints went; a relative path is one that leads somewhere from a folder around the log."""
        if "save_dir" not in self.settings:
            return None
        path = Path(self.settings["save_dir"])
        around = Path(self.path).absolute().parents
        return (
            path
            if path.is_absolute()
            else next((p / path for p in around if (p / path).is_dir()), around[0] / path)
        )


def is_log(path):
    with Path(path).open("rb") as file:
        return SAID.search(file.read(SNIFFED).decode("utf-8", "replace")) is not None


def read(path):
    """The Trainings of a log, told apart by the folder of their checkpoints: a job's output may hold a teacher's and a student's.

    Several attempts at one are one, with the settings of the last.
    """
    now = Training(str(path))  # the one that speaks
    found = {}
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if "'save_dir'" in line or "save_dir=" in line:
                said = settings(line)
                beginning = (
                    Training(str(path)) if found else now
                )  # what stands before all settings is of the first one
                now = found.setdefault(said.get("save_dir"), beginning)
                now.settings = said
            elif point := validation(line):
                split, updates, ppl = point
                now.validated_on = now.validated_on or split
                if split == now.validated_on and math.isfinite(ppl):
                    now.curve[updates] = ppl
    return [*found.values()] or [now]


def settings(line):
    """What the line that prints all settings says about those that a reader wants to know, as text."""
    found = {key: value_of(key, line) for key in SETTINGS}
    if criterion := CRITERION.search(line):
        found["criterion"] = criterion["name"]
        found |= {key: value_of(key, criterion["all"]) for key in OF_CRITERION}
    return {
        key: value
        for key, value in found.items()
        if value not in (None, "", "None", "False", "0", "0.0")
    }


def value_of(key, line):
    found = re.search(rf"(?:'{key}': |\b{key}=)(?:'([^']*)'|\[([^\]]*)\]|([^,)}}]+))", line)
    return next((group for group in found.groups() if group is not None), None) if found else None


def validation(line):
    """(validation set, updates, perplexity) of a line about a validation, or None."""
    if found := SIMPLE.search(line):
        return found["split"], int(found["updates"]), float(found["ppl"])
    if found := JSON.search(line):
        try:
            said = json.loads(found[0])
        except ValueError:
            return None  # a line that was cut short
        if "valid_num_updates" in said:
            return VALID, int(said["valid_num_updates"]), float(said["valid_ppl"])
    return None


def is_tensorboard(path):
    return Path(path).name.startswith("events.out.tfevents")


def read_tensorboard(path):
    """The Training of a TensorBoard file; its save_dir is unknown, its name that of the folder above `valid`.

    Raises ImportError where the package tensorboard is not installed.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    curve = (
        {event.step: event.value for event in events.Scalars(TAG)}
        if TAG in events.Tags()["scalars"]
        else {}
    )
    return Training(str(path), {"save_dir": str(Path(path).resolve().parent.parent)}, curve)
