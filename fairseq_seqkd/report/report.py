"""A whole report: Table 1 from evaluations, Table 2 from speeds, Table 3 where models are pruned (`seqkd report`).

JSON has the numbers as they were measured: those of Table 1 at its top, `table2`, `table3` and what details.of found beside.
"""

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.results import first_difference
from fairseq_seqkd.report import corpus_table
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.report import table2 as speed_table
from fairseq_seqkd.report import table3 as pruning_table


def make(results, speeds, title=None, pairs=()):
    """Everything that a report says, as a dictionary for JSON.

    Args: results, pairs: those of `seqkd evaluate`; speeds: the contents of files of `seqkd bench`. Either may be empty.
    Raises Refusal for measurements that may not be compared, and where there is nothing at all.
    """
    settings = (results[0].get("settings") or {}) if results else {}
    for speed in speeds:
        if results and speed["data_sha256"] != results[0].get("data_sha256"):
            raise Refusal(
                "the speeds were measured on other data than the results; evaluate and bench on the same split"
            )
        name = first_difference(speed["settings"], settings) if settings else None
        if name is not None:
            raise Refusal(
                f"the speeds were measured with {name} {speed['settings'].get(name)}, the results with {settings.get(name)}; "
                "evaluate and bench with the same options"
            )
    made = (
        table.make_report(results, title, pairs)
        if results or not speeds
        else {"title": title or "Speed", "rows": []}
    )
    if speeds:
        made["table2"] = speeds
    pruned = pruning_table.make_rows(made["rows"])
    if pruned:
        made["table3"] = pruned
    return made


def to_markdown(made):
    parts = [table.to_markdown(made) if made["rows"] else f"# {made['title']}\n"]
    parts += [f"## Speed\n\n{speed_table.markdown(speed)}" for speed in made.get("table2", ())]
    if made.get("table3"):
        parts.append(f"## Pruning\n\n{pruning_table.markdown(made['table3'])}")
    if made.get("corpus"):
        parts.append(f"## What is learnt from\n\n{corpus_table.markdown(made['corpus'])}")
    if made.get("pipeline") or made.get("trainings"):
        parts.append("## The pipeline\n\n" + "\n".join(steps(made)) + "\n")
    if made.get("remarks"):
        parts.append(
            "## Left out\n\n" + "\n".join(f"- {remark}" for remark in made["remarks"]) + "\n"
        )
    return "\n".join(parts)


def steps(made):
    """A line for every step of the pipeline, and for every training."""
    for step in made.get("pipeline", ()):
        facts = ", ".join(f"{name} {value}" for name, value in step["facts"].items())
        yield f"- **{step['step']}**: {step['what']} (`{step['where']}`)" + (
            f": {facts}" if facts else ""
        )
    for training in made.get("trainings", ()):
        facts = ", ".join(
            f"{name} {value}" for name, value in training.items() if name not in ("name", "log")
        )
        yield f"- **Training: {training['name']}** (`{training['log']}`): {facts}"
