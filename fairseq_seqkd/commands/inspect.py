"""``seqkd inspect``: describe a directory, check its files, and print n-best lists."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional

from fairseq_seqkd.commands.arguments import add_command, add_json_option, check_at_least_one
from fairseq_seqkd.commands.console import print_result, quieten
from fairseq_seqkd.errors import Problems, Refusal

if TYPE_CHECKING:
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    from fairseq_seqkd.corpus.inspection import Findings, TextHypothesis
    from fairseq_seqkd.corpus.manifest import DecodeManifest

MAX_LISTED_IDS = 8  # ids of a list that are printed


def add_parser(subcommands: argparse._SubParsersAction) -> None:
    """Adds the parser of ``seqkd inspect`` to the parser of ``seqkd``."""
    parser = add_command(
        subcommands,
        "inspect",
        example="seqkd inspect distilled --differ 5 --data data-bin",
        help="describe a distilled directory, check its files, print n-best lists",
        description="Prints what a --distill-dir holds and how it was made, and compares every "
        "file with its recorded hash. Prints n-best lists if asked to. The exit code is 1 if a "
        "file is missing or damaged.",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="--distill-dir, or the folder of one of its views"
    )
    parser.add_argument(
        "--ids", metavar="LIST", help="print the n-best lists of these sentences, e.g. 0,17,4711"
    )
    parser.add_argument(
        "--differ",
        type=int,
        metavar="N",
        help="print the n-best lists of the N sentences, at least 1, whose 1-best is least similar "
        "to the reference",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data-bin that was decoded; prints the reference above each n-best list",
    )
    parser.add_argument(
        "--post-process",
        metavar="P",
        help="how to join subwords in n-best lists, as fairseq --post-process; 'none' disables it "
        "(default: recognised from the dictionary)",
    )
    add_json_option(
        parser,
        "the manifest's keys, problems (a list of sentences), views or parts, and nbest, a list "
        "of {id, source, gold, hypotheses}",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints what the directory holds. Returns 1 if something is wrong with it."""
    ids = parse_ids(arguments)
    quieten()
    from fairseq_seqkd.corpus import inspection

    findings = inspection.examine(arguments.folder)
    content, lines = findings.as_json(), list(in_words(findings))
    if (ids or arguments.differ) and not findings.problems:
        entries = read_nbest_lists(arguments, findings, ids)
        content["nbest"] = [entry.as_json() for entry in entries]
        for entry in entries:
            lines += ["", *entry.in_words()]
    print_result(arguments, content, lines)
    for problem in findings.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return int(bool(findings.problems))


def parse_ids(arguments: argparse.Namespace) -> List[int]:
    """Checks the command line, and returns the sentence ids of --ids.

    Raises:
        Refusal: an option has a wrong value, or has no effect.
    """
    problems = Problems()
    words = arguments.ids.split(",") if arguments.ids else []
    if not all(word.strip().isdecimal() for word in words):
        problems.add(
            f"--ids is {arguments.ids!r}, it must be sentence ids separated by commas, e.g. 0,17"
        )
    with problems.collect():
        check_at_least_one(arguments, "--differ")
    if not words and arguments.differ is None and (arguments.data or arguments.post_process):
        problems.add(
            "--data and --post-process concern n-best lists; ask for lists with --ids or --differ"
        )
    problems.refuse()
    return [int(word) for word in words]


class NBestEntry(NamedTuple):
    """The n-best list of a sentence as text.

    Attributes:
        id: the sentence id.
        source: the source; None if the view leaves the sentence out.
        gold: the reference; None if --data is not given.
        hypotheses: the hypotheses, the best one first.
    """

    id: int
    source: Optional[str]
    gold: Optional[str]
    hypotheses: "List[TextHypothesis]"

    def as_json(self) -> Dict[str, Any]:
        """Returns the entry as `seqkd inspect --json` prints it."""
        gold = {} if self.gold is None else {"gold": self.gold}
        hypotheses = [hypothesis._asdict() for hypothesis in self.hypotheses]
        return {"id": self.id, "source": self.source, **gold, "hypotheses": hypotheses}

    def in_words(self) -> Iterator[str]:
        """Yields the lines that `seqkd inspect` prints."""
        yield f"{self.id}  {'(left out of the view)' if self.source is None else self.source}"
        if self.gold is not None:
            yield f"   gold  {self.gold}"
        for rank, hypothesis in enumerate(self.hypotheses, 1):
            scores = f"score {hypothesis.score:.3f}"
            if hypothesis.similarity is not None:
                scores += f"  similarity {hypothesis.similarity:5.1f}"
            limit = "  (at the length limit)" if hypothesis.hit_limit else ""
            yield f"  {rank:>5}  {hypothesis.text}  [{scores}]{limit}"


def read_nbest_lists(
    arguments: argparse.Namespace, findings: "Findings", ids: List[int]
) -> List[NBestEntry]:
    """Reads the n-best lists that the command line asks for.

    Args:
        arguments: the parsed command line.
        findings: what the directory holds.
        ids: the sentence ids of --ids.

    Raises:
        Refusal: the directory has no complete n-best lists or no such sentence, or --data is not
            the data-bin that was decoded.
    """
    from fairseq_seqkd.corpus import inspection
    from fairseq_seqkd.corpus.databin import load_dictionary
    from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process
    from fairseq_seqkd.corpus.manifest import DecodeManifest, ViewManifest
    from fairseq_seqkd.corpus.nbest_store import NBestStore

    decode, view = findings.manifest, next(iter(findings.views.values()), None)
    if not (
        isinstance(decode, DecodeManifest)
        and decode.complete
        and view is not None
        and isinstance(view.manifest, ViewManifest)
    ):
        raise Refusal(
            f"{arguments.folder} holds no complete n-best lists; name the --distill-dir of a "
            "finished decode"
        )
    store = NBestStore(arguments.folder)
    if arguments.differ:
        ids = ids + [sentence for sentence, _ in inspection.most_different(store, arguments.differ)]
    for sentence in ids:
        if sentence >= len(store):
            raise Refusal(f"there is no sentence {sentence}; ids go from 0 to {len(store) - 1:,}")
    dictionaries = [
        load_dictionary(view.folder / f"dict.{language}.txt")
        for language in view.manifest.languages
    ]
    source_text, target_text = (
        Detokeniser(dictionary, resolve_post_process(arguments.post_process, dictionary))
        for dictionary in dictionaries
    )
    sources = inspection.Sources(view.folder, view.manifest)
    gold = read_gold(arguments.data, decode) if arguments.data else None
    entries = []
    for sentence in ids:
        source = sources[sentence]
        entries.append(
            NBestEntry(
                id=sentence,
                source=None if source is None else source_text(source),
                gold=None if gold is None else target_text(gold[sentence]),
                hypotheses=inspection.as_text(store[sentence], target_text),
            )
        )
    return entries


def read_gold(folder: str, decode: "DecodeManifest") -> "MMapIndexedDataset":
    """Returns the references of a decode.

    Args:
        folder: the data-bin.
        decode: the manifest of the decode.

    Raises:
        Refusal: the data-bin is not the one that was decoded, or has no targets.
    """
    from fairseq_seqkd.corpus.databin import Split

    data = decode.settings.data
    split = Split(folder, data.split, data.languages)
    if not split.has(data.target_lang) or not split.has_hashes(data.hashes):
        raise Refusal(
            f"--data {folder} is not the data-bin that was decoded, or has no targets; name that "
            "data-bin"
        )
    return split.read(data.target_lang)


def in_words(findings: "Findings") -> Iterator[str]:
    """Yields the lines that describe a directory."""
    from fairseq_seqkd.corpus.manifest import DecodeManifest, ViewManifest

    manifest = findings.manifest
    if isinstance(manifest, ViewManifest):
        yield (
            f"{findings.folder}: the view {manifest.view}, {manifest.rows:,} sentences, "
            f"{manifest.left_out:,} left out"
        )
        yield f"  {manifest.signature}"
        yield f"  files: {'DAMAGED' if findings.problems else 'as they were written'}"
        return
    stored = "n-best lists" if isinstance(manifest, DecodeManifest) else "distributions"
    data, state = manifest.settings.data, "complete"
    if findings.parts is not None:
        done, parts = findings.parts
        state = f"NOT FINISHED: {done:,} of {parts:,} parts; run its command again"
    yield (
        f"{findings.folder}: the teacher's {stored} for split {data.split}, {data.languages}: "
        f"{state}"
    )
    yield f"  {manifest.signature}"
    yield f"  {manifest.sentences:,} sentences"
    for name, ids in (manifest.listed or {}).items():
        if len(ids):
            shown = ", ".join(map(str, ids[:MAX_LISTED_IDS]))
            ellipsis = ", ..." if len(ids) > MAX_LISTED_IDS else ""
            yield f"  {name.replace('_', ' ')}: {len(ids):,} ({shown}{ellipsis})"
    for view in findings.views.values():
        yield from (f"  {line}" for line in in_words(view) if manifest.signature not in line)
