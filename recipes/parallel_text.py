#!/usr/bin/env python3
"""Prepare parallel text for recipes/quickstart.sh, filtered and split; standard library only.

* descriptions: volunteers translate the descriptions of the distribution's packages. apt has one
  list per language, which names the English original of each description by its MD5. Two languages
  are joined on the MD5, paragraph by paragraph.
* help: LibreOffice's offline help (packages libreoffice-help-*, MPL-2.0) has the same pages in
  every language, and the same paragraphs have the same `id`. Two languages are joined on both.
* files: two files of your own.

    parallel_text.py descriptions --lists lists --src da --tgt en -o text
    parallel_text.py help --help-dir out/usr/share/libreoffice/help --src de --tgt en-US -o text
    parallel_text.py files --src-file corpus.de --tgt-file corpus.en --src de --tgt en -o text
"""

import argparse
import hashlib
import itertools
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
STOPS, STOPS_WITHOUT_BLANK = ".!?।؟۔։។။።", "。！？"  # noqa: RUF001
WITHOUT_BLANKS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")  # kana and Han characters
WIDE = "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff65]"  # with their punctuation
LINE_ENDS = re.compile(f"(?<={WIDE}) (?={WIDE})")  # of such a script, once lines are joined


class Paragraphs(HTMLParser):
    """The text of `<p id=...>` and `<h1 id=...>` to `<h6 id=...>`, without ids that occur twice."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.found, self.twice = {}, set()
        self._id, self._text = None, []

    def handle_starttag(self, tag, attrs):
        if tag in PARAGRAPHS:
            self._id, self._text = dict(attrs).get("id"), []
        elif tag == "br":
            self._text.append(" ")

    def handle_endtag(self, tag):
        if tag in PARAGRAPHS and self._id:
            if self._id in self.found:
                self.twice.add(self._id)
            self.found[self._id] = " ".join("".join(self._text).split())
            self._id = None

    def handle_data(self, data):
        if self._id:
            self._text.append(data)


def paragraphs(path):
    """{id: text} of one help page."""
    parser = Paragraphs()
    parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    return {key: text for key, text in parser.found.items() if key not in parser.twice}


def aligned(help_dir, src, tgt):
    """Yields (source, target) of every paragraph that both languages have, in a fixed order."""
    root = Path(help_dir) / src / "text"
    if not root.is_dir():
        raise SystemExit(
            f"parallel_text: no help pages in {root}; "
            f"is the package libreoffice-help-{src} unpacked there?"
        )
    for page in sorted(root.rglob("*.html")):
        twin = Path(help_dir) / tgt / "text" / page.relative_to(root)
        if not twin.is_file():
            continue
        left, right = paragraphs(page), paragraphs(twin)
        for key, text in left.items():
            if key in right:
                yield text, right[key]


def descriptions(lists, lang):
    """{MD5 of the English original: [paragraph, ...]} of all packages in apt's lists of a language.

    A paragraph that is a list or a drawing is left empty, to keep the others' places.
    """
    found, key = {}, None
    paths = sorted(Path(lists).glob(f"*_Translation-{lang}"))
    if not paths:
        raise SystemExit(
            f"parallel_text: no list of descriptions in {lang!r} in {lists}; "
            "is there such a translation, and a network?"
        )
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("Description-md5: "):
                    key = line.split()[1]
                elif line.startswith("Description-"):  # the title
                    found[key] = [[]]
                elif line == " .\n":
                    found[key].append([])
                elif line.startswith(" "):
                    found[key][-1].append(line[1:])
    return {key: [running_text(lines) for lines in paragraphs] for key, paragraphs in found.items()}


def running_text(lines):
    """The lines of a paragraph as one; empty if one of them is indented or an item of a list."""
    text = (
        ""
        if any(line.startswith((" ", "*", "-")) for line in lines)
        else " ".join(" ".join(lines).split())
    )
    return LINE_ENDS.sub("", text)


def described(lists, src, tgt):
    """Yield (source, target) of every paragraph, in a fixed order.

    Only descriptions with the same number of paragraphs in both languages are used.
    """
    left, right = descriptions(lists, src), descriptions(lists, tgt)
    for key, found in left.items():
        if len(found) == len(right.get(key, ())):
            yield from zip(found, right[key])


def sentences(source, target):
    """Pairs of sentences of a pair of paragraphs.

    Where both sides have the same number of sentences, they are paired one by one.
    """
    left, right = map(cut, (source, target))
    return list(zip(left, right)) if len(left) == len(right) else [(source, target)]


def cut(paragraph):
    """The sentences of a paragraph.

    A sentence ends where a full stop is followed by a capital, or by a letter of a script without
    capitals.
    """
    found, begin = [], 0
    for stop in re.finditer(f"(?<=[{STOPS}]) +|(?<=[{STOPS_WITHOUT_BLANK}])", paragraph):
        following = paragraph[stop.end() : stop.end() + 1]
        if following.isalpha() and following == following.title():
            found.append(paragraph[begin : stop.start()])
            begin = stop.end()
    return [*found, paragraph[begin:]]


def size(text):
    """Characters, of which one of a script without blanks says as much as two of an alphabet."""
    return len(text) + len(WITHOUT_BLANKS.findall(text))


def count_words(text):
    """Words between blanks; in scripts without blanks two characters count as one."""
    return sum(max(1, len(WITHOUT_BLANKS.findall(word)) // 2) for word in text.split())


def is_sentence(text, min_words, max_words):
    """Whether a text is running text: words within range, mostly letters, punctuation last."""
    if not min_words <= count_words(text) <= max_words or not text.endswith(
        tuple(STOPS + STOPS_WITHOUT_BLANK)
    ):
        return False
    letters = "".join(
        c for c in text if unicodedata.category(c)[0] in "LM" or c.isspace()
    )  # with vowel signs and accents
    return size(letters) >= 0.9 * size(text) and not re.search(r"[=<>{}\[\]\\/_|@#]", text)


def is_pair(source, target, min_words, max_words):
    """Whether both sides are sentences, differ, and are within a factor of two in length."""
    if source == target or not all(
        is_sentence(side, min_words, max_words) for side in (source, target)
    ):
        return False
    a, b = size(source), size(target)
    return max(a, b) <= 2 * min(a, b)


def paragraph_pairs(args):
    """Sentence pairs of running text from the paragraphs that both languages have."""
    for paragraph in args.paragraphs(args.folder, args.src, args.tgt):
        for pair in sentences(*paragraph):
            if is_pair(*pair, args.min_words, args.max_words):
                yield pair


def file_pairs(args):
    """Pairs of lines of the user's own files that are neither empty nor too long.

    Other filters are left to the user.
    """
    for left, right in itertools.zip_longest(lines_of(args.src_file), lines_of(args.tgt_file)):
        if left is None or right is None:
            raise SystemExit(
                f"parallel_text: {args.src_file} and {args.tgt_file} "
                "have different numbers of lines"
            )
        pair = " ".join(left.split()), " ".join(right.split())
        if all(args.min_words <= count_words(side) <= args.max_words for side in pair):
            yield pair


def lines_of(path):
    """Lines of text. Only a line feed ends a line, as in the rest of the pipeline.

    If a carriage return ended one, source and target would shift against each other.
    """
    with open(path, "rb") as file:  # noqa: PTH123
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                raise SystemExit(
                    f"parallel_text: {path} is no UTF-8 in line {number}; convert it with iconv"
                ) from None


def split(pairs, valid, test):
    """{"train", "valid", "test"}: pairs by the hash of the source, whatever their order.

    No sentence of valid or test, on either side, is in train.
    """
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    held, rest = ordered[: valid + test], ordered[valid + test :]
    sources, targets = {s for s, _ in held}, {t for _, t in held}
    train = [(s, t) for s, t in rest if s not in sources and t not in targets]
    return {"train": train, "valid": held[:valid], "test": held[valid:]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True, metavar="descriptions|help|files")
    from_lists = kinds.add_parser(
        "descriptions", help="the descriptions of the distribution's packages"
    )
    from_lists.add_argument(
        "--lists",
        dest="folder",
        required=True,
        help="apt's folder of lists, with a *_Translation-LANG for each language",
    )
    from_lists.set_defaults(
        pairs=paragraph_pairs,
        paragraphs=described,
        min_words=3,
        max_words=12,
        valid=2000,
        test=2000,
    )
    from_help = kinds.add_parser("help", help="LibreOffice's offline help")
    from_help.add_argument(
        "--help-dir", dest="folder", required=True, help="the unpacked usr/share/libreoffice/help"
    )
    from_help.set_defaults(
        pairs=paragraph_pairs, paragraphs=aligned, min_words=3, max_words=14, valid=1000, test=1000
    )
    from_files = kinds.add_parser("files", help="two files, a sentence a line")
    from_files.add_argument("--src-file", required=True)
    from_files.add_argument("--tgt-file", required=True)
    from_files.set_defaults(pairs=file_pairs, min_words=1, max_words=100, valid=1000, test=1000)
    for kind in (from_lists, from_help, from_files):
        kind.add_argument(
            "--src", required=True, help="source language; for the help its folder, such as de"
        )
        kind.add_argument(
            "--tgt", required=True, help="target language; for the help its folder, such as en-US"
        )
        kind.add_argument(
            "--min-words",
            type=int,
            help="shortest sentence kept, in words, either side (default: %(default)s)",
        )
        kind.add_argument(
            "--max-words",
            type=int,
            help="longest sentence kept, in words, either side (default: %(default)s)",
        )
        kind.add_argument(
            "--valid",
            type=int,
            help="sentences of the validation split (default: %(default)s, at most a tenth)",
        )
        kind.add_argument(
            "--test",
            type=int,
            help="sentences of the test split (default: %(default)s, at most a tenth)",
        )
        kind.add_argument(
            "-o", "--output", required=True, help="folder for {train,valid,test}.{source,target}"
        )
    args = parser.parse_args()

    # One pair for each source: a second translation of the same sentence would only blur the first.
    pairs = list(
        {source: (source, target) for source, target in reversed(list(args.pairs(args)))}.values()
    )
    if len(pairs) < 100:
        raise SystemExit(
            f"parallel_text: only {len(pairs)} sentence pairs are left after filtering, "
            "too few to train on"
        )
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    held = (min(args.valid, len(pairs) // 10), min(args.test, len(pairs) // 10))
    for name, part in split(pairs, *held).items():
        for column, lang in enumerate((args.src, args.tgt)):
            lines = "".join(pair[column] + "\n" for pair in part)
            (out / f"{name}.{lang.split('-')[0]}").write_text(lines, encoding="utf-8")
        print(f"{len(part):7,d} sentence pairs in {name}")


if __name__ == "__main__":
    main()
