"""``seqkd text``: write a view as aligned text, for a student with a vocabulary of its own."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional, Sequence

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_output
from fairseq_seqkd.commands.console import ProgressBar, print_result, quieten
from fairseq_seqkd.commands.text_options import EPILOG, TextOptions, add_text_options
from fairseq_seqkd.corpus.detokenise import NONE
from fairseq_seqkd.errors import Problems, Refusal

if TYPE_CHECKING:
    from fairseq_seqkd.corpus.databin import Split
    from fairseq_seqkd.corpus.export_text import Side
    from fairseq_seqkd.corpus.manifest import ViewManifest
    from fairseq_seqkd.corpus.settings import SimilaritySettings


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd text`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "text",
        # The value of an option that is unknown here must not come before DISTILLED.
        usage="seqkd text DISTILLED -o PREFIX [options]",
        example="seqkd text distilled --view seq_kd -o work/train",
        epilog=f"{EPILOG} The languages of the tokenizer are those of the view, unless "
        "--source-lang or --target-lang is given.",
        help="write pseudo-targets as text, for a student with its own vocabulary",
        description="Writes the sources and targets of a view as detokenised text, one sentence "
        "per line: PREFIX.<source language> and PREFIX.<target language>. A view is a distilled "
        "data set: seq_kd holds the teacher's 1-best, seq_inter the hypotheses most similar to "
        "the reference.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "distilled", metavar="DISTILLED", help="finished --distill-dir, or the folder of one view"
    )
    parser.add_argument(
        "--view", help="view of the --distill-dir: seq_kd or seq_inter (default: seq_kd)"
    )
    parser.add_argument(
        "--split",
        help="split of the view; valid and test have gold targets (default: the decoded split)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PREFIX",
        help="files to write, without their endings .<language>",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that exist (default: off)"
    )
    add_text_options(
        parser,
        default="as for the similarity to the reference, else recognised from each dictionary",
    )
    add_json_option(
        parser, "files, lines, counts (unknown words, line breaks, empty lines), signature"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Checks all arguments, then writes the two files."""
    prefix = arguments.output
    if not Path(prefix).name or prefix.endswith("/"):
        raise Refusal(
            f"-o {prefix} names a folder; name a PREFIX in it, e.g. {prefix.rstrip('/')}/train"
        )
    quieten()
    from fairseq_seqkd.corpus import export_text, views
    from fairseq_seqkd.corpus.databin import Split

    folder, view = views.find(arguments.distilled, arguments.view)
    split = Split(folder, arguments.split or view.split, view.languages)
    paths = (f"{prefix}.{view.languages.source}", f"{prefix}.{view.languages.target}")
    check_paths(paths, split, arguments.force)
    similarity = similarity_settings(folder, view)
    check_text_options(arguments, similarity)
    options = TextOptions(arguments, "text")
    post_process = options.post_process(arguments.post_process)
    target_post_process = post_process
    if post_process is None and similarity and not similarity.bpe:
        target_post_process = (
            similarity.post_process or NONE
        )  # the decode made text of targets only
    sides = (
        open_side(split, view, 0, options, post_process),
        open_side(split, view, 1, options, target_post_process),
    )
    progress = ProgressBar("sentences")
    lines = export_text.write(sides, paths, rows=lambda count: progress(range(count)))
    print_result(
        arguments,
        {
            "files": list(paths),
            "lines": lines,
            "counts": [
                {"unknown": side.unknown, "line_breaks": side.line_breaks, "empty": side.empty}
                for side in sides
            ],
            "signature": view.signature,
        },
        text=f"{paths[0]}, {paths[1]}: {lines:,} lines each | {view.signature}",
    )
    for path, side in zip(paths, sides):
        for remark in remarks(side):
            print(f"{path}: {remark}", file=sys.stderr)


def check_paths(paths: Sequence[str], split: "Split", force: bool) -> None:
    """Checks that the split has both sides, and that the files may be written.

    Raises:
        Refusal: a side is missing, or a file exists or cannot be written.
    """
    problems = Problems()
    with problems.collect():
        check_output(*paths)
    for path, language in zip(paths, split.languages):
        if not split.has(language):
            problems.add(
                f"split {split.name!r} in {split.folder} has no {language} side; name a split "
                "with both sides"
            )
        if Path(path).is_file() and not force:
            problems.add(f"{path} exists; name another PREFIX, or pass --force to replace it")
    problems.refuse()


def similarity_settings(folder: Path, view: "ViewManifest") -> "Optional[SimilaritySettings]":
    """Returns how the decode made text, to compare it with the reference.

    Returns:
        The settings; None if the view is not in its distilled directory any more, or if there was
        no reference.
    """
    from fairseq_seqkd.corpus import manifest

    decode = manifest.read(folder.absolute().parent)
    if not isinstance(decode, manifest.DecodeManifest) or decode.signature != view.signature:
        return None
    return decode.settings.similarity


def check_text_options(
    arguments: argparse.Namespace, similarity: "Optional[SimilaritySettings]"
) -> None:
    """Checks that text is detokenised at least as the decode did: else it is full of subwords.

    Raises:
        Refusal: the decode named a BPE or a tokenizer, and the command line names none.
    """
    if similarity is None:
        return
    problems = Problems()
    for option, name in (("bpe", similarity.bpe), ("tokenizer", similarity.tokenizer_undone)):
        if name and getattr(arguments, option) is None:
            problems.add(
                f"these data were decoded with --{option} {name}; pass it with its options, or "
                f"--{option} {NONE} to leave the text as it is"
            )
    problems.refuse()


def open_side(
    split: "Split",
    view: "ViewManifest",
    side: int,
    options: TextOptions,
    post_process: Optional[str],
) -> "Side":
    """Opens one side of a split, after a check of its files.

    Args:
        split: the split.
        view: the manifest of the view that it is in.
        side: 0 for the source, 1 for the target.
        options: the BPE and the tokenizer to undo.
        post_process: how subwords are joined; None: recognised from the dictionary.

    Raises:
        Refusal: a file is missing or damaged.
    """
    from fairseq_seqkd.corpus import views
    from fairseq_seqkd.corpus.databin import load_dictionary
    from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process
    from fairseq_seqkd.corpus.export_text import Side

    language, dictionary_file = split.languages[side], split.dictionaries[side]
    if not dictionary_file.is_file():
        raise Refusal(f"{dictionary_file} is missing; copy the view again, or build it anew")
    files = split.files(language)
    views.check_contents(split.folder, view, [file.name for file in (*files, dictionary_file)])
    dictionary = load_dictionary(dictionary_file)
    bpe, tokenizer = options.build(split.languages, side)
    detokenise = Detokeniser(
        dictionary, resolve_post_process(post_process, dictionary), bpe, tokenizer
    )
    return Side(split.read(language), dictionary, detokenise, str(files[0]))


def remarks(side: "Side") -> Iterator[str]:
    """Yields what a user should know about one side."""
    if side.unknown:
        yield f"{side.unknown:,} unknown words are written as <unk>"
    if side.line_breaks:
        yield f"in {side.line_breaks:,} sentences a line break is written as a space"
    if side.empty:
        yield f"{side.empty:,} lines are empty"
