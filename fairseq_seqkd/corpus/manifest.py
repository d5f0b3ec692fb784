"""manifest.json: who made a directory, from what and how, and whether it is finished.

A manifest holds nothing that differs between two runs of the same work: no time, host, rank, or count of restarts.
"""

import json
from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.shapes import (
    first_fault,
    is_count,
    is_one_of,
    is_size,
    is_text,
    is_tree,
    is_yes_or_no,
    list_of,
    or_none,
    shorten,
    tree_of,
)

NAME = "manifest.json"
DISTILLED, DISTRIBUTIONS, VIEW = (
    "distilled",
    "distributions",
    "view",
)  # kinds: n-best lists with views, stored distributions
SEQ_KD, SEQ_INTER = "seq_kd", "seq_inter"  # names of views
FORMAT = "fairseq_seqkd/1"
AT_A_TIME = 4096  # numbers of an array that are turned into text together
SHORT_HASH = 12  # digits of a hash in a signature: enough to tell files apart, short enough to read


def is_file(facts):
    return is_tree(facts) and is_count(facts.get("bytes")) and is_text(facts.get("sha256"))


# The least that a manifest of each kind holds (shapes.py).
OF_WORK = {
    "complete": is_yes_or_no,
    "signature": is_text,
    "sentences": is_count,
    "settings": is_tree,
    "settings.data": is_tree,
    **{
        f"settings.data.{key}": is_text
        for key in ("split", "source_lang", "target_lang", "source_sha256")
    },
    "settings.data.sentences": is_count,
    "settings.data.target_sha256": or_none(is_text),
    "settings.teacher": is_tree,
    "settings.teacher.sha256": list_of(is_text),
    "settings.plan": is_tree,
    "settings.plan.part_size": is_size,
    "settings.plan.max_tokens": or_none(is_size),
    "settings.plan.max_sentences": or_none(is_size),
    "store?": is_file,
    "counts?": tree_of(is_count),
    "listed?": tree_of(list_of(is_count)),
}
NEEDED = {
    DISTILLED: {
        **OF_WORK,
        "settings.search": is_tree,
        "settings.search.longest_source": is_count,
        "settings.similarity": or_none(is_tree),
        "settings.similarity.metric": is_text,
        "settings.similarity.post_process": or_none(is_text),
        "settings.select": is_one_of("mode", "mbr"),
        "views?": list_of(is_one_of(SEQ_KD, SEQ_INTER)),
    },
    DISTRIBUTIONS: {
        **OF_WORK,
        "settings.scoring": is_tree,
        **{f"settings.scoring.{key}": is_count for key in ("topk", "vocabulary", "too_long")},
        "settings.scoring.positions": list_of(is_count, length=2),
        "counts.tokens": is_count,
    },
    VIEW: {
        **dict.fromkeys(("view", "signature", "split", "source_lang", "target_lang"), is_text),
        **dict.fromkeys(("rows", "left_out"), is_count),
        "files?": tree_of(is_file),
    },
}


def read(folder):
    """The manifest of a folder, or None where there is none. Raises Refusal for one that is no manifest of ours."""
    path = Path(folder) / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{path} cannot be read ({error}); restore it, or make the directory anew"
        ) from None
    try:
        manifest = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refusal(
            f"{path} is damaged ({error}); restore it, or make the directory anew"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Refusal(
            f"{path} is not a manifest of format {FORMAT}; make the directory anew with this version"
        )
    fault = first_fault(manifest, NEEDED.get(str(manifest.get("kind")), {}))
    if fault:
        raise Refusal(f"{path} is damaged ({fault}); restore it, or make the directory anew")
    return manifest


def check_signature(folder, manifest):
    """Refuses settings that are not those of which the signature was made."""
    try:
        sound = signature(manifest["settings"], manifest["version"]) == manifest["signature"]
    except (KeyError, TypeError, AttributeError, IndexError):
        sound = False
    if not sound:
        raise Refusal(
            f"{Path(folder) / NAME} is damaged (its signature is not its settings'); restore it, or decode again"
        )


def write(folder, manifest):
    """Writes a manifest in one fixed form, atomically."""
    with whole_file(Path(folder) / NAME) as file:
        file.write((dump({"format": FORMAT, **manifest}) + "\n").encode())


def dump(value, indent=0):
    """JSON in one fixed form: a line for each entry of a dictionary, a list on one line however long it is.

    A list may be a NumPy array, so that long lists of ids are never millions of Python's numbers at once.
    """
    if isinstance(value, np.ndarray):
        pieces = (
            json.dumps(value[i : i + AT_A_TIME].tolist())[1:-1]
            for i in range(0, len(value), AT_A_TIME)
        )
        return f"[{', '.join(pieces)}]"
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = " " * (indent + 1)
    entries = (f"{inner}{json.dumps(key)}: {dump(value[key], indent + 1)}" for key in sorted(value))
    return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"


def differences(before, now, prefix=""):
    """Sentences that say where two trees of settings differ: ["search.beam was 5, now 10"]."""
    found = []
    for key in sorted(set(before) | set(now)):
        old, new, name = before.get(key), now.get(key), prefix + key
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, name + ".")
        elif old != new:
            found.append(f"{name} was {shorten(old)}, now {shorten(new)}")
    return found


def signature(settings, version):
    """One line in sacrebleu's manner that says how pseudo-targets were made; every report prints it.

    Example: teacher:3f2a5c0b9d11|beam:5|nbest:5|lenpen:1.0|engine:fairseq-0.12.3/float32|data:9c1b...|similarity:bleu|...
    """
    engine = settings["engine"]
    how, more = _of_scoring(settings) if "scoring" in settings else _of_search(settings)
    fields = {
        "teacher": "+".join(digest[:SHORT_HASH] for digest in settings["teacher"]["sha256"]),
        **how,
        "engine": "{}-{}/{}".format(
            engine["name"], engine[engine["name"]].split()[-1], engine["precision"]
        ),
        "data": settings["data"]["source_sha256"][:SHORT_HASH],
        **more,
        "version": version,
    }
    return "|".join(f"{key}:{value}" for key, value in fields.items() if value is not None)


def _of_search(settings):
    search = settings["search"]
    how = {"beam": search["beam"], "nbest": search["nbest"], "lenpen": search["lenpen"]}
    filters = ",".join(
        f"{name}={value}" for name, value in sorted(settings.get("filters", {}).items())
    )
    return {**how, "sampling": "yes" if search["sampling"] else None}, {
        "similarity": settings["similarity"]["metric"] if settings["similarity"] else None,
        "select": settings.get("select") if settings.get("select") != "mode" else None,
        "filters": filters or None,
    }


def _of_scoring(settings):
    scoring = settings["scoring"]
    return {"topk": scoring["topk"], "store": scoring["dtype"]}, {
        "targets": settings["data"]["target_sha256"][:SHORT_HASH]
    }
