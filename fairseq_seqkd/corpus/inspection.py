"""What a directory of a teacher's work holds, whether it is whole, and which of its sentences to look at (`seqkd inspect`)."""

from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus import array_files, manifest, views
from fairseq_seqkd.corpus.distilled import STORES, check_store
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.corpus.plan import plan_of
from fairseq_seqkd.errors import Refusal


def examine(folder):
    """{"kind", "complete", "problems": sentences, and what the manifest says} of a directory. Reads every byte that is there.

    Raises Refusal for a directory that is none of ours.
    """
    found = manifest.read(folder)
    if found is None or found.get("kind") not in (*STORES, manifest.VIEW):
        raise Refusal(
            f"{folder} holds no teacher's work (it has no {manifest.NAME} of ours); name a --distill-dir, or a view in it"
        )
    facts = {"folder": str(folder), **{key: found[key] for key in found if key != "format"}}
    if found["kind"] == manifest.VIEW:
        facts["problems"] = view_problems(folder, found)
    elif found.get("complete"):
        facts["problems"] = store_problems(folder, found)
        facts["views"] = {name: examine(Path(folder) / name) for name in views_in(folder, found)}
        for view in facts["views"].values():
            facts["problems"] += view["problems"]
    else:
        facts["parts"] = parts(folder, found)
        facts["problems"] = [
            f"{path} is cut short; the next worker does it again"
            for path in facts["parts"].pop("damaged")
        ]
    return facts


def views_in(folder, found):
    """The names of the views that are there, of those that a manifest names."""
    return [
        name
        for name in found.get("views", [])
        if (manifest.read(Path(folder) / name) or {}).get("kind") == manifest.VIEW
    ]


def parts(folder, found):
    """How far unfinished work is: {"done", "of", "damaged": paths}."""
    committed = sorted((Path(folder) / "parts").glob("*.part"))
    whole = [path for path in committed if array_files.is_whole(path)]
    return {
        "done": len(whole),
        "of": plan_of(found["settings"]).parts,
        "damaged": [path for path in committed if path not in whole],
    }


def store_problems(folder, found):
    """Sentences that say what is wrong with the store and which views are missing."""
    problems = [
        f"the view {name} is missing"
        for name in found.get("views", [])
        if name not in views_in(folder, found)
    ]
    try:
        store = STORES[found["kind"]](folder)
        if found["kind"] == manifest.DISTILLED:
            for _ in store.blocks():  # every block is checked as it is read
                pass
        expected = found["sentences"] - found["settings"].get("scoring", {}).get("too_long", 0)
        if len(store) != expected:
            problems.append(f"it holds {len(store):,} sentences instead of {expected:,}")
        check_store(folder, found)
    except Refusal as error:
        problems.append(error.sentence)
    return problems


def view_problems(folder, found):
    """Sentences that say which files of a view are not what was written."""
    problems = []
    for name, facts in (found.get("files") or {}).items():
        file = Path(folder) / Path(name).name
        if not file.is_file():
            problems.append(f"{file} is missing")
        elif file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]:
            problems.append(f"{file} is not the file that was written: its hash is another")
    return problems


def most_different(store, count):
    """[(sentence id, similarity of the teacher's favourite to gold)], the least similar first; equals in order.

    Memory is that of one part and of `count` sentences. Raises Refusal for a store without similarity to gold.
    """
    if not store.has_similarity:
        raise Refusal(
            f"{store.path} has no similarity to gold, because the split had no targets; choose sentences with --ids"
        )
    ids, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for first, block in store.blocks():
        listed = np.flatnonzero(block.counts)
        ids = np.concatenate([ids, first + listed])
        values = np.concatenate([values, block.similarity[block.first[listed]]])
        order = np.argsort(values, kind="stable")[:count]
        ids, values = ids[order], values[order]
    return list(zip(ids.tolist(), values.tolist()))


def as_text(nbest, detokenise):
    """An n-best list for people and JSON: text, score, log-probability in nats, similarity to gold or None, limit."""
    return [
        {
            "text": detokenise(h.tokens),
            "score": h.score,
            "log_prob": h.log_prob,
            "similarity": h.similarity,
            "hit_limit": h.hit_limit,
        }
        for h in nbest
    ]


def sources(folder, content):
    """sentence id -> ids of its source, or None where a view has left it out; from a view, whose rows may be fewer."""
    split = views_split(folder, content)
    side, rows = split.read(split.languages.source), Path(folder) / views.ROWS
    if not rows.is_file():
        return lambda sentence: side[sentence]
    where = np.load(rows, mmap_mode="r", allow_pickle=False)

    def source(sentence):
        row = int(np.searchsorted(where, sentence))
        return side[row] if row < len(where) and where[row] == sentence else None

    source.side = side  # fairseq's dataset unmaps its file when nobody holds it
    return source


def views_split(folder, content):
    from fairseq_seqkd.corpus.databin import LanguagePair, Split

    languages = LanguagePair(content["source_lang"], content["target_lang"])
    return Split(folder, content["split"], languages)
