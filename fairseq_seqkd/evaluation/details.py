"""What a folder of experiments adds to a report: the pipeline with its settings, curves, corpus statistics, the beams."""

from pathlib import Path

from fairseq_seqkd.evaluation import run_folder

GOLD = "gold"


def of(run, rows, progress=lambda things: things):
    """{"pipeline", "trainings", "curves", "corpus", "beams"} of a run_folder.Run, for JSON; what is not there is empty.

    Args: rows: those of Table 1; progress: a list -> the same, to show how far it is.
    """
    decoded = [(folder, content, run_folder.gold_of(run, content)) for folder, content in run.distilled]
    return {
        "pipeline": pipeline(run, decoded),
        "trainings": trainings(run, rows),
        "curves": curves(run),
        "corpus": corpus(decoded, progress),
        "beams": beams(decoded),
        "remarks": run.remarks,
    }


def pipeline(run, decoded):
    """[{"step", "what", "where", "facts": {name: value}}], in the order in which things were made."""
    steps = []
    for folder, content, gold in decoded:
        settings = content["settings"]
        data = settings["data"]
        pair = f"{data['source_lang']}-{data['target_lang']}"
        steps.append(
            {
                "step": "Gold",
                "what": f"split {data['split']}, {pair}, {data['sentences']:,} sentence pairs",
                "where": str(gold.folder) if gold else "not found here",
                "facts": {"sources": data["source_sha256"][:12]},
            }
        )
        counted = {name.replace("_", " "): f"{count:,}" for name, count in content["counts"].items()}
        steps.append(
            {
                "step": "The teacher's search",
                "what": "every source sentence, with a beam; all hypotheses are kept",
                "where": str(folder),
                "facts": {**dict(part.split(":", 1) for part in content["signature"].split("|")), **counted},
            }
        )
        for view in reversed(content.get("views", [])):
            what = {"seq_kd": "the hypothesis that the teacher likes best", "seq_inter": "the hypothesis that is closest to gold"}
            steps.append({"step": f"Data {view}", "what": what.get(view, ""), "where": str(Path(folder) / view), "facts": {}})
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


def corpus(decoded, progress):
    """{"gold" and names of views: corpus_statistics.of_split} of the first directory whose gold is there."""
    for folder, content, gold in decoded:
        if gold:
            from fairseq_seqkd.evaluation.corpus_statistics import of_split

            languages = gold.source_lang, gold.target_lang
            places = [(GOLD, gold.folder), *((view, Path(folder) / view) for view in reversed(content.get("views", [])))]
            return {name: of_split(place, gold.name, *languages) for name, place in progress(places) if place.is_dir()}
    return {}


def beams(decoded):
    for folder, _, gold in decoded:
        if gold:
            from fairseq_seqkd.evaluation.beams import of_directory

            return of_directory(folder, gold)
    return []
