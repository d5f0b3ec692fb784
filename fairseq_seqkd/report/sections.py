"""What a folder of experiments adds to a report: the pipeline with its settings, curves, corpus statistics, the beams."""

from pathlib import Path

from fairseq_seqkd.corpus.manifest import SEQ_INTER, SEQ_KD
from fairseq_seqkd.report import run_folder

GOLD = "gold"
TAKEN = {  # which hypothesis, by the view and --select
    (SEQ_KD, "mode"): "the teacher likes best", (SEQ_KD, "mbr"): "is most similar to the others",
    (SEQ_INTER, "mode"): "is closest to gold", (SEQ_INTER, "mbr"): "is closest to gold",
}  # fmt: skip


def of(run, rows, progress=lambda things: things):
    """{"pipeline", "trainings", "curves", "decoded", "corpus", "beams", "remarks"} of a run_folder.Run, for JSON.

    What is not there is empty.

    Args: rows: those of Table 1; progress: a list -> the same, to show how far it is.
    """
    decoded = [
        (folder, content, run_folder.gold_of(run, content)) for folder, content in run.distilled
    ]
    with_gold = [
        found for found in decoded if found[2] and was_compared_with_gold(found[1].settings)
    ]
    with_gold.sort(key=lambda found: found[1].settings.data.split != "train")
    chosen = with_gold[:1]  # what corpus statistics and beams are about
    return {
        "pipeline": pipeline(decoded),
        "trainings": trainings(run, rows),
        "curves": curves(run),
        "decoded": [about(folder, content) for folder, content, _ in chosen],
        "corpus": corpus(chosen, progress),
        "beams": [
            entry
            for folder, content, gold in chosen
            for entry in of_directory(folder, content, gold)
        ],
        "remarks": run.remarks,
    }


def was_compared_with_gold(settings):
    return bool(settings.similarity and settings.data.target_sha256)


def about(folder, content):
    """What a reader of statistics and beams must know about the directory that they are of."""
    settings = content.settings
    split, metric = settings.data.split, settings.similarity.metric
    return {
        "folder": str(folder),
        "split": split,
        "select": settings.select,
        "similarity": metric,
    }


def pipeline(decoded):
    """[{"step", "what", "where", "facts": {name: value}}], in the order in which things were made."""
    steps = []
    for folder, content, gold in decoded:
        settings = content.settings
        data = settings.data
        kind = "sentence pairs" if data.target_sha256 else "sentences without targets"
        what = f"split {data.split}, {data.languages}, {data.sentences:,} {kind}"
        where = str(gold.folder) if gold else "not found here"
        steps.append(
            {
                "step": "Gold",
                "what": what,
                "where": where,
                "facts": {"sources": data.source_sha256[:12]},
            }
        )
        counted = {
            name.replace("_", " "): f"{count:,}" for name, count in (content.counts or {}).items()
        }
        steps.append(
            {
                "step": "The teacher's search",
                "what": "every source sentence, with a beam; all hypotheses are kept",
                "where": str(folder),
                "facts": {
                    **dict(part.partition(":")[::2] for part in content.signature.split("|")),
                    **counted,
                },
            }
        )
        for view in reversed(content.views or []):
            what = f"the hypothesis that {TAKEN[view, settings.select]}"
            steps.append(
                {
                    "step": f"Data {view}",
                    "what": what,
                    "where": str(Path(folder) / view),
                    "facts": {},
                }
            )
    return steps


def trainings(run, rows):
    """[{"name", "log", settings}] of the first seed of every row whose log is there."""
    found = []
    for row in rows:
        result = next(r for r in run.results if r["name"] == row["name"])
        training = run_folder.training_of(run, result)
        if training:
            found.append({"name": row["name"], "log": training.path, **training.settings})
    return found


def curves(run):
    """[{"name", "seed", "points": [[updates, perplexity]]}] of all results whose training was validated."""
    found = []
    for result in run.results:
        training = run_folder.training_of(run, result)
        if training and training.curve:
            points = [list(point) for point in sorted(training.curve.items())]
            found.append({"name": result["name"], "seed": result.get("seed"), "points": points})
    return found


def corpus(chosen, progress):
    """{"gold" and names of views: statistics of their targets} of the chosen directory."""
    from fairseq_seqkd.report import corpus_statistics

    found = {}
    for folder, content, gold in progress(chosen):
        places = [
            (GOLD, gold.folder),
            *((view, Path(folder) / view) for view in reversed(content.views or [])),
        ]
        found |= corpus_statistics.of_directory(
            gold, [(name, place) for name, place in places if place.is_dir()]
        )
    return found


def of_directory(folder, content, gold):
    from fairseq_seqkd.report import figure2 as beams

    return beams.of_directory(folder, content.settings.select, gold)
