"""What a run folder adds to a report: the pipeline, curves, corpus statistics and beams."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from fairseq_seqkd.corpus.manifest import SEQ_INTER, SEQ_KD
from fairseq_seqkd.evaluation.records import Measurement
from fairseq_seqkd.report import corpus_statistics, figure2, training_logs
from fairseq_seqkd.report.records import (
    Curve,
    DecodedData,
    RunDetails,
    Step,
    TrainingStep,
)
from fairseq_seqkd.report.run_folder import Distilled, Run

GOLD = "gold"
CHOICES = {  # the hypothesis that a view has, by the view and --select
    (SEQ_KD, "mode"): "the teacher likes best", (SEQ_KD, "mbr"): "is most similar to the others",
    (SEQ_INTER, "mode"): "is closest to gold", (SEQ_INTER, "mbr"): "is closest to gold",
}  # fmt: skip


def make_details(run: Run, progress: Callable[[Any], Any] = iter) -> RunDetails:
    """Makes the details of a run.

    Args:
        run: what the index names.
        progress: iterates over a list, and may show how far it is.
    """
    details = RunDetails(pipeline=pipeline(run.distilled))
    add_trainings(details, run)
    compared = [
        one for one in run.distilled if one.gold and one.gold.has(one.gold.languages.target)
    ]
    compared.sort(key=lambda one: one.manifest.settings.data.split != "train")
    for one in progress(compared[:1]):  # the training split, if there is one
        folder, manifest, gold = one.folder, one.manifest, one.gold
        settings = manifest.settings
        metric = settings.similarity.metric if settings.similarity else ""
        name = settings.data.split
        details.decoded.append(DecodedData(str(folder), name, settings.select, metric))
        views = {view: folder / view for view in reversed(manifest.views or [])}
        folders = {name: path for name, path in views.items() if path.is_dir()}
        statistics = corpus_statistics.of_directory(gold, {GOLD: gold.folder, **folders})
        details.corpus.update(statistics)
        details.beams += figure2.read_beams(folder, settings, gold)
    return details


def pipeline(directories: Sequence[Distilled]) -> List[Step]:
    """Returns the steps in the order in which they were made."""
    steps = []
    for one in directories:
        folder, manifest, gold = one.folder, one.manifest, one.gold
        data = manifest.settings.data
        kind = "sentence pairs" if data.target_sha256 else "sentences without targets"
        fields = [part.partition(":")[::2] for part in manifest.signature.split("|")]
        counts = {name: f"{n:,}" for name, n in (manifest.counts or {}).items()}
        steps += [
            Step(
                "Gold",
                f"split {data.split}, {data.languages}, {data.sentences:,} {kind}",
                str(gold.folder) if gold else "not found here",
                {"sources": data.source_sha256[:12]},
            ),
            Step(
                "The teacher's search",
                "every source sentence, with a beam; all hypotheses are kept",
                str(folder),
                {**dict(fields), **{name.replace("_", " "): n for name, n in counts.items()}},
            ),
        ]
        for view in reversed(manifest.views or []):
            choice = f"the hypothesis that {CHOICES[view, manifest.settings.select]}"
            steps.append(Step(f"Data {view}", choice, str(folder / view), {}))
    return steps


def add_trainings(details: RunDetails, run: Run) -> None:
    """Adds the curve of every training, and the settings of the first seed of every row."""
    described, unused = set(), dict(run.trainings)
    for measurement in run.measurements:
        paths = unused.pop(str(measurement.identity), [])
        logs = [training_logs.read_log(path) for path in paths]
        curve = {updates: ppl for log in logs for updates, ppl in log.curve.items()}
        if curve:
            points = [[updates, ppl] for updates, ppl in sorted(curve.items())]
            details.curves.append(Curve(measurement.name, measurement.seed, points))
        details.remarks += [
            f"{path} has no curve: train with --log-format json"
            for path, log in zip(paths, logs)
            if not log.is_json
        ]
        if paths and measurement.name not in described:
            described.add(measurement.name)
            settings = training_settings(measurement)
            step = TrainingStep(name=measurement.name, log=str(paths[0]), others=settings)
            details.trainings.append(step)
    details.remarks += [f"no result is named {label}, so its log is not used" for label in unused]


def training_settings(measurement: Measurement) -> Dict[str, str]:
    """Returns the settings of a training; none if its checkpoint is gone."""
    path = Path(measurement.checkpoint or "")
    return training_logs.read_settings(path) if path.is_file() else {}
