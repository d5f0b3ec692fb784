#!/usr/bin/env python3
"""Parallel text from LibreOffice's offline help: join two languages on (file, paragraph id), filter, split.

Used by recipes/quickstart.sh, after it unpacked the distribution's libreoffice-help-* packages. Standard library only.
The help of every language has the same files, and the same paragraphs carry the same `id`; the text is under MPL-2.0.

    libreoffice_help.py --help-dir out/usr/share/libreoffice/help --src de --tgt en-US -o text
"""

import argparse
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}


class Paragraphs(HTMLParser):
    """Collects the text of `<p id=...>` and `<h1 id=...>` ... `<h6 id=...>`; an id that occurs twice is dropped."""

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
        raise SystemExit(f"libreoffice_help: no help pages in {root}; is the package libreoffice-help-{src} unpacked there?")
    for page in sorted(root.rglob("*.html")):
        twin = Path(help_dir) / tgt / "text" / page.relative_to(root)
        if not twin.is_file():
            continue
        left, right = paragraphs(page), paragraphs(twin)
        for key, text in left.items():
            if key in right:
                yield text, right[key]


def sentences(source, target):
    """Pairs of sentences of a pair of paragraphs: where both have as many, they are taken to match one by one."""
    left, right = (re.split(r"(?<=[.!?]) +(?=[A-ZÀ-Þ])", side) for side in (source, target))
    return list(zip(left, right)) if len(left) == len(right) else [(source, target)]


def is_sentence(text, min_words, max_words):
    """A sentence of running text: a whole number of words in range, mostly letters, closed by punctuation."""
    words = text.split()
    if not min_words <= len(words) <= max_words or not text.endswith((".", "!", "?")):
        return False
    letters = sum(c.isalpha() or c.isspace() for c in text)
    return letters >= 0.9 * len(text) and not re.search(r"[=<>{}\[\]\\/_|@#]", text)


def is_pair(source, target, min_words, max_words):
    """Both sides are sentences, they differ, and neither is more than twice as long as the other."""
    if source == target or not is_sentence(source, min_words, max_words):
        return False
    if not is_sentence(target, min_words, max_words):
        return False
    a, b = len(source), len(target)
    return max(a, b) <= 2 * min(a, b)


def split(pairs, valid, test):
    """{"train", "valid", "test"}: by the hash of the source, so that the split does not depend on the order of files.

    No sentence of valid or test, on either side, is in train.
    """
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    held, rest = ordered[: valid + test], ordered[valid + test :]
    sources, targets = {s for s, _ in held}, {t for _, t in held}
    train = [(s, t) for s, t in rest if s not in sources and t not in targets]
    return {"train": train, "valid": held[:valid], "test": held[valid:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--help-dir", required=True, help="the unpacked usr/share/libreoffice/help")
    parser.add_argument("--src", required=True, help="folder of the source language, such as de")
    parser.add_argument("--tgt", required=True, help="folder of the target language, such as en-US")
    parser.add_argument("--min-words", type=int, default=3, help="shortest sentence kept, in words, either side")
    parser.add_argument("--max-words", type=int, default=15, help="longest sentence kept, in words, either side")
    parser.add_argument("--valid", type=int, default=1000, help="sentences in the validation split")
    parser.add_argument("--test", type=int, default=1000, help="sentences in the test split")
    parser.add_argument("-o", "--output", required=True, help="folder for {train,valid,test}.{src,tgt}")
    args = parser.parse_args()

    counts, pairs, seen = Counter(), [], set()
    for paragraph in aligned(args.help_dir, args.src, args.tgt):
        counts["paragraphs in both languages"] += 1
        for pair in sentences(*paragraph):
            if is_pair(*pair, args.min_words, args.max_words):
                counts["sentences of the wanted kind"] += 1
                if pair[0] not in seen:  # a second translation of one source would only blur the first
                    seen.add(pair[0])
                    pairs.append(pair)
    if len(pairs) < 2 * (args.valid + args.test):
        raise SystemExit(f"libreoffice_help: only {len(pairs)} sentences pass the filter, too few to split")
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in split(pairs, args.valid, args.test).items():
        counts[f"in {name}"] = len(part)
        for column, lang in enumerate((args.src, args.tgt)):
            lines = "".join(pair[column] + "\n" for pair in part)
            (out / f"{name}.{lang.split('-')[0]}").write_text(lines, encoding="utf-8")
    for reason, count in counts.items():
        print(f"{count:7,d} {reason}")


if __name__ == "__main__":
    main()
