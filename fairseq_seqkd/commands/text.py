"""`seqkd text`: a view's sources and pseudo-targets as aligned text, for a student with a vocabulary of its own.

seqkd text distilled --view seq_kd -o work/train        writes work/train.de and work/train.en
"""

import argparse
import sys
from pathlib import Path

from fairseq_seqkd.commands.console import add_json, check_output, quieten, say
from fairseq_seqkd.commands.text_options import OF_DECODERS, Decoders, add_decoders
from fairseq_seqkd.corpus.detokenise import NONE
from fairseq_seqkd.errors import Refusal


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of this command to the parser of ``seqkd``."""
    parser = subcommands.add_parser(
        "text",
        usage="seqkd text DISTILLED -o PREFIX [options]",  # a value of an option unknown here must not come first
        help="pseudo-targets as text, for a student with a vocabulary of its own",
        description="Writes the sources and targets of a view as aligned, detokenised text, one sentence a line: "
        "PREFIX.<source language> and PREFIX.<target language>. Preprocess them with any vocabulary.",
        epilog=f"{OF_DECODERS} The tokenizer's languages are the view's, unless --source-lang or --target-lang say otherwise.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "distilled",
        metavar="DISTILLED",
        help="a finished distilled directory, or one view's folder",
    )
    parser.add_argument(
        "--view", help="which view of a distilled directory: seq_kd or seq_inter (default: seq_kd)"
    )
    parser.add_argument(
        "--split",
        help="a split of the view; valid and test are gold (default: the one that was decoded)",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="PREFIX", help="the files are PREFIX.<language>"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    add_decoders(
        parser, "as similarity to gold was measured, else seen from each side's dictionary"
    )
    add_json(parser)


def run(arguments):
    """Looks at everything that can be refused, then writes."""
    if not Path(arguments.output).name or arguments.output.endswith("/"):
        raise Refusal(
            f"-o {arguments.output} names a folder; name a PREFIX in it, such as {arguments.output.rstrip('/')}/train"
        )
    quieten()
    from tqdm import tqdm

    from fairseq_seqkd.corpus import databin, views
    from fairseq_seqkd.corpus import export_text as parallel_text

    folder, content = views.find(arguments.distilled, arguments.view)
    languages = content.languages
    split = databin.Split(folder, arguments.split or content.split, languages)
    paths = [f"{arguments.output}.{lang}" for lang in languages]
    check_output(*paths)
    for path, lang in zip(paths, languages):
        if not split.files(lang):
            raise Refusal(
                f"split {split.name!r} in {folder} has no {lang} side; aligned text needs both"
            )
        if Path(path).exists() and not arguments.force:
            raise Refusal(
                f"{path} is there already; name another PREFIX, or replace it with --force"
            )
    similarity = how_similarity_was_measured(folder, content)
    check_options(arguments, similarity)
    sides = [make_side(i, arguments, split, languages, similarity, content) for i in (0, 1)]
    lines = parallel_text.write(
        sides, paths, rows=lambda n: tqdm(range(n), unit=" sentences", disable=None, leave=False)
    )
    said = {
        "files": paths,
        "lines": lines,
        "counts": [counts(side) for side in sides],
        "signature": content.signature,
    }
    say(arguments, said, f"{paths[0]}, {paths[1]}: {lines:,} lines each | {content.signature}")
    for path, side in zip(paths, sides):
        for remark in remarks(side):
            print(f"{path}: {remark}", file=sys.stderr)


def how_similarity_was_measured(folder, content):
    """What the distilled directory's manifest says of making text; None where it is gone, or where there was no gold."""
    from fairseq_seqkd.corpus import manifest

    found = manifest.read(folder.absolute().parent)
    if not isinstance(found, manifest.DecodeManifest) or found.signature != content.signature:
        return None
    return found.settings.similarity


def check_options(arguments, similarity):
    """Refuses a call that would undo less than the decoding did: its text would be full of pieces."""
    for name, key in (("bpe", "bpe"), ("tokenizer", "tokenizer_undone")):
        used = getattr(similarity, key, None)
        if used and getattr(arguments, name) is None:
            raise Refusal(
                f"these data were decoded with --{name} {used}: name it here too, with its options, or say "
                f"--{name} {NONE} to leave the text as it is"
            )


def make_side(i, arguments, split, languages, similarity, content):
    """The parallel_text.Side of one language: 0 the source, 1 the target."""
    from fairseq_seqkd.corpus import views
    from fairseq_seqkd.corpus.databin import load_dictionary
    from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process
    from fairseq_seqkd.corpus.export_text import Side

    lang = languages[i]
    dictionary_file = split.folder / f"dict.{lang}.txt"
    if not dictionary_file.is_file():
        raise Refusal(f"{dictionary_file} is missing; copy the view again, or build it anew")
    files = split.files(lang)
    views.check_contents(split.folder, content, [file.name for file in (*files, dictionary_file)])
    dictionary = load_dictionary(dictionary_file)
    decoders = Decoders(arguments, "text")
    bpe, tokenizer = decoders(languages, i)
    told = decoders.post_process(arguments.post_process)
    if told is None and i == 1 and similarity and not similarity.bpe:
        told = similarity.post_process or NONE  # only the target's text was made then
    detokenise = Detokeniser(dictionary, resolve_post_process(told, dictionary), bpe, tokenizer)
    return Side(split.read(lang), dictionary, detokenise, str(files[0]))


def counts(side):
    """What a user should know about one side, for JSON."""
    return {"unknown": side.unknown, "line_breaks": side.line_breaks, "empty": side.empty}


def remarks(side):
    """What a user should know about one side, in words."""
    if side.unknown:
        yield f"{side.unknown:,} unknown words are written as <unk>"
    if side.line_breaks:
        yield f"in {side.line_breaks:,} sentences a line break is written as a space"
    if side.empty:
        yield f"{side.empty:,} lines are empty"
