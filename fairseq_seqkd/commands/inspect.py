"""`seqkd inspect`: what a distilled directory holds, whether it is whole, and its n-best lists.

seqkd inspect distilled --differ 5 --data data-bin
"""

import argparse
import sys

from fairseq_seqkd.commands.console import add_json, quieten, say
from fairseq_seqkd.errors import Refusal

LISTED = 8  # ids of a list that are printed


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "inspect",
        help="what a distilled directory holds, whether it is whole, and its n-best lists",
        description="Shows the manifest of a --distill-dir, or of a view in it, in words, and checks every file. The exit code "
        "is 1 where something is wrong.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="DIR", help="a --distill-dir, or a view in it")
    parser.add_argument(
        "--ids", metavar="LIST", help="print the n-best lists of these sentences, as 0,17,4711"
    )
    parser.add_argument(
        "--differ",
        type=int,
        metavar="N",
        help="print the N sentences in which teacher and gold differ most",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="the data-bin that was decoded: prints gold beside the hypotheses",
    )
    parser.add_argument(
        "--post-process",
        metavar="P",
        help="how subwords are joined, as fairseq's --post-process; none: not at all",
    )
    add_json(parser)


def run(arguments):
    """Prints what is there. Returns 1 where something is wrong with it."""
    wanted = parse_ids(arguments.ids)
    if arguments.differ is not None and arguments.differ < 1:
        raise Refusal(f"--differ is {arguments.differ}, it must be at least 1")
    if not wanted and arguments.differ is None and (arguments.data or arguments.post_process):
        raise Refusal(
            "--data and --post-process say how n-best lists are printed; ask for lists with --ids or --differ"
        )
    quieten()
    from fairseq_seqkd.corpus import inspection

    findings = inspection.examine(arguments.folder)
    content, lines = findings.as_json(), [*in_words(findings)]
    if (wanted or arguments.differ) and not findings.problems:
        content["nbest"] = nbest_lists(arguments, findings, wanted)
        for entry in content["nbest"]:
            lines += ["", *nbest_in_words(entry)]
    say(arguments, content, lines)
    for problem in findings.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return int(bool(findings.problems))


def parse_ids(text):
    words = text.split(",") if text else []
    if not all(word.strip().isdecimal() for word in words):
        raise Refusal(
            f"--ids is {text!r}, it must be sentence ids separated by commas, such as 0,17"
        )
    return [int(word) for word in words]


def nbest_lists(arguments, findings, wanted):
    """[{"id", "source", "gold", "hypotheses"}] of the sentences asked for, as text."""
    from fairseq_seqkd.corpus import inspection, manifest
    from fairseq_seqkd.corpus.databin import load_dictionary
    from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process
    from fairseq_seqkd.corpus.nbest_store import NBestStore

    is_decode = isinstance(findings.manifest, manifest.DecodeManifest)
    if not is_decode or not findings.manifest.complete or not findings.views:
        raise Refusal(
            f"{arguments.folder} holds no finished n-best lists; name the directory of a finished decode"
        )
    store = NBestStore(arguments.folder)
    wanted = (
        wanted + [i for i, _ in inspection.most_different(store, arguments.differ)]
        if arguments.differ
        else wanted
    )
    for sentence in wanted:
        if sentence >= len(store):
            raise Refusal(f"there is no sentence {sentence}; ids go from 0 to {len(store) - 1:,}")
    view = next(iter(findings.views.values()))
    dictionaries = [
        load_dictionary(view.folder / f"dict.{lang}.txt") for lang in view.manifest.languages
    ]
    texts = [Detokeniser(d, resolve_post_process(arguments.post_process, d)) for d in dictionaries]
    sources = inspection.Sources(view.folder, view.manifest)
    gold = gold_of(arguments, findings.manifest.settings.data)
    entries = []
    for sentence in wanted:
        ids = sources[sentence]
        entry = {"id": sentence, "source": None if ids is None else texts[0](ids)}
        if gold is not None:
            entry["gold"] = texts[1](gold[sentence])
        entry["hypotheses"] = [
            hypothesis._asdict() for hypothesis in inspection.as_text(store[sentence], texts[1])
        ]
        entries.append(entry)
    return entries


def gold_of(arguments, data):
    """The gold targets, where --data names them and they are those that were decoded."""
    if not arguments.data:
        return None
    from fairseq_seqkd.corpus.databin import Split

    split = Split(arguments.data, data.split, data.languages)
    if not split.has(data.target_lang) or not split.has_hashes(data.hashes):
        raise Refusal(
            f"--data {arguments.data} is not the data-bin that was decoded, or has no targets"
        )
    return split.read(data.target_lang)


def in_words(findings):
    """The lines that say what is there."""
    from fairseq_seqkd.corpus import manifest

    content, folder = findings.manifest, findings.folder
    if isinstance(content, manifest.ViewManifest):
        yield f"{folder}: the view {content.view}, {content.rows:,} sentences, {content.left_out:,} left out"
        yield f"  {content.signature}"
        yield f"  files: {'as they were written' if not findings.problems else 'DAMAGED'}"
        return
    is_decode = isinstance(content, manifest.DecodeManifest)
    data, kind = content.settings.data, "n-best lists" if is_decode else "distributions"
    state = "complete"
    if not content.complete:
        done, of = findings.parts
        state = f"NOT FINISHED: {done:,} of {of:,} parts; run its command again"
    yield f"{folder}: the teacher's {kind} for split {data.split}, {data.languages}: {state}"
    yield f"  {content.signature}"
    yield f"  {content.sentences:,} sentences"
    for name, ids in (content.listed or {}).items():
        if len(ids):
            shown = ", ".join(map(str, ids[:LISTED])) + (", ..." if len(ids) > LISTED else "")
            yield f"  {name.replace('_', ' ')}: {len(ids):,} ({shown})"
    for view in findings.views.values():
        yield from (f"  {line}" for line in in_words(view) if content.signature not in line)


def nbest_in_words(entry):
    yield f"{entry['id']}  {entry['source'] if entry['source'] is not None else '(left out of the view)'}"
    if "gold" in entry:
        yield f"   gold  {entry['gold']}"
    for rank, h in enumerate(entry["hypotheses"], 1):
        similarity = "" if h["similarity"] is None else f"  similarity {h['similarity']:5.1f}"
        limit = "  (at the length limit)" if h["hit_limit"] else ""
        yield f"  {rank:>5}  {h['text']}  [score {h['score']:.3f}{similarity}]{limit}"
