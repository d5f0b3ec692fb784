#!/usr/bin/env python3
"""Prepare the text of public benchmarks as published baselines do.

From the benchmarks' archives to {train,valid,test}.{source,target}:

    benchmark_text.py iwslt14 DOWNLOADS -o text    German-English, as fairseq's prepare-iwslt14.sh
    benchmark_text.py wmt14 DOWNLOADS -o text      English-German, as fairseq's
                                                   prepare-wmt14en2de.sh --icml17
    benchmark_text.py iwslt15 DOWNLOADS -o text    Thai-English, raw: SentencePiece segments Thai,
                                                   which has no spaces
    benchmark_text.py clean text -o text           {train,valid,test}.bpe.* to *.clean.*, for wmt14

Moses' scripts are replaced by sacremoses, their port to Python.
"""

import argparse
import collections
import contextlib
import itertools
import multiprocessing
import re
import shutil
import tarfile
import unicodedata
from pathlib import Path

from fairseq_seqkd.commands.decode import default_workers

LINES_AT_A_TIME = 1000
# Two languages are tokenised at a time, each with half of the cores that this process may use.
# A job on a cluster may use only some of a node's cores.
PROCESSES = max(1, default_workers(cpu=True) // 2)
AHEAD = 2 * PROCESSES  # chunks of text of one language that are tokenised ahead


# Reading.


class Archive:
    """A tar file. `member(ending)` yields the lines of the only file in it whose name ends so.

    That file is first copied to a folder of its own. Two sides are read at a time, and moving back
    and forth in a compressed archive would start at its beginning each time.
    """

    def __init__(self, path, copies):
        self.path, self.copies = path, copies

    def member(self, ending):
        copy = self.copies / ending
        if not copy.exists():
            self.copies.mkdir(parents=True, exist_ok=True)
            try:
                with tarfile.open(self.path) as tar:
                    found = [
                        member for member in tar if member.isfile() and member.name.endswith(ending)
                    ]
                    if len(found) != 1:
                        raise SystemExit(
                            f"benchmark_text: {self.path} has {len(found)} files named *{ending}, "
                            "it should have one"
                        )
                    with copy.with_suffix(".partial").open("wb") as file:
                        shutil.copyfileobj(tar.extractfile(found[0]), file)
            except (OSError, EOFError, tarfile.TarError) as error:
                raise SystemExit(
                    f"benchmark_text: {self.path} cannot be read ({error}); fetch it again"
                ) from None
            copy.with_suffix(".partial").rename(copy)
        with copy.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")


def talks(lines, dropped="url|talkid|keywords"):
    """The training text of TED, with titles and descriptions, without the lines about a talk."""
    for line in lines:
        if not re.search(f"<({dropped})", line):
            yield re.sub(r"</?(title|description)>", "", line).strip()


def segments(lines):
    """The sentences of a development or test set in NIST's XML."""
    for line in lines:
        found = re.match(r"\s*<seg id=\"?\d+\"?>(.*)</seg>", line)
        if found:
            yield found[1].strip().replace("’", "'")


def parallel(*sides):
    """Pairs of lines; refuses sides that are not equally long."""
    for number, pair in enumerate(itertools.zip_longest(*sides), 1):
        if None in pair:
            raise SystemExit(
                f"benchmark_text: one language ends before the other, at line {number}; "
                "fetch the archive again"
            )
        yield pair


# Cutting.


def tokenised(lines, lang, **options):
    """Lines as Moses' tokenizer cuts them. Options: normalise, aggressive, lower."""
    with multiprocessing.Pool(
        PROCESSES, initializer=begin_worker, initargs=(lang, options)
    ) as pool:
        waiting = collections.deque()
        while True:
            chunk = list(itertools.islice(lines, LINES_AT_A_TIME))
            if chunk:
                waiting.append(pool.apply_async(work, (chunk,)))
            if not waiting:
                return
            if not chunk or len(waiting) >= AHEAD:  # a whole corpus must not wait in memory
                yield from waiting.popleft().get()


def begin_worker(lang, options):
    import sacremoses

    global work_of_this_process
    tokenizer, normalizer = sacremoses.MosesTokenizer(lang), sacremoses.MosesPunctNormalizer(lang)

    def cut(line):
        if options.get("normalise"):
            line = "".join(
                " " if unicodedata.category(c).startswith("C") else c
                for c in normalizer.normalize(line)
            )
        line = tokenizer.tokenize(
            line, aggressive_dash_splits=bool(options.get("aggressive")), return_str=True
        )
        return line.lower() if options.get("lower") else line

    work_of_this_process = cut


def work(lines):
    return [work_of_this_process(line) for line in lines]


def clean(pairs, longest, ratio=1.5):
    """The pairs that Moses' clean-corpus-n keeps: no empty or long side, lengths within a ratio."""
    for pair in pairs:
        a, b = (len(side.split()) for side in pair)
        if 1 <= a <= longest and 1 <= b <= longest and max(a, b) <= ratio * min(a, b):
            yield pair


def write(out, langs, **parts):
    """Write pairs to files. For (pairs, n), every n-th pair goes to valid, not to train."""
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = {
            split: [
                stack.enter_context((out / f"{split}.{lang}").open("w", encoding="utf-8"))
                for lang in langs
            ]
            for split in ("train", "valid", "test")
        }
        counts = dict.fromkeys(files, 0)
        for split, (pairs, every) in parts.items():
            for number, pair in enumerate(pairs, 1):
                into = "valid" if every and number % every == 0 else split
                counts[into] += 1
                for line, file in zip(pair, files[into]):
                    print(line, file=file)
    if not all(counts.values()):
        raise SystemExit(
            f"benchmark_text: {', '.join(s for s, n in counts.items() if not n)} would be empty; "
            "is the archive complete?"
        )
    print(", ".join(f"{split}: {count:,} pairs" for split, count in counts.items()))


# The benchmarks.


def iwslt14(folder, out):
    """Prepare TED talks, lower-cased: 160,239 training pairs; valid is every 23rd of them."""
    tar = Archive(folder / "de-en.tgz", out / "raw")
    sets = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")

    def held_out(lang):
        return itertools.chain.from_iterable(
            segments(tar.member(f"IWSLT14.{name}.de-en.{lang}.xml")) for name in sets
        )

    train = [
        tokenised(talks(tar.member(f"train.tags.de-en.{lang}")), lang, lower=True)
        for lang in ("de", "en")
    ]
    test = [tokenised(held_out(lang), lang, lower=True) for lang in ("de", "en")]
    write(out, ("de", "en"), train=(clean(parallel(*train), 175), 23), test=(parallel(*test), None))


def wmt14(folder, out):
    """Prepare 4.5 million pairs, cased; valid is every 100th pair, test is newstest2014.

    BPE comes next, and cleaning after it.
    """
    corpora = {
        "training-parallel-europarl-v7.tgz": "europarl-v7.de-en",
        "training-parallel-commoncrawl.tgz": "commoncrawl.de-en",
        "training-parallel-nc-v9.tgz": "news-commentary-v9.de-en",
    }

    def text(lang):
        return itertools.chain.from_iterable(
            Archive(folder / name, out / "raw").member(f"{stem}.{lang}")
            for name, stem in corpora.items()
        )

    def held_out(side, lang):
        return segments(
            Archive(folder / "test-full.tgz", out / "raw").member(
                f"newstest2014-deen-{side}.{lang}.sgm"
            )
        )

    train = [tokenised(text(lang), lang, normalise=True, aggressive=True) for lang in ("en", "de")]
    test = [
        tokenised(held_out(*side), side[1], aggressive=True)
        for side in (("src", "en"), ("ref", "de"))
    ]
    write(out, ("en", "de"), train=(parallel(*train), 100), test=(parallel(*test), None))


def iwslt15(folder, out):
    """TED talks, raw; tst2010 and tst2011 to look at, tst2012 and tst2013 to test on."""
    tar = Archive(folder / "th-en.tgz", out / "raw")

    def sets(*years):
        files = [
            [f"IWSLT15.TED.tst{year}.th-en.{lang}.xml" for year in years] for lang in ("th", "en")
        ]
        return parallel(
            *(
                itertools.chain.from_iterable(segments(tar.member(name)) for name in side)
                for side in files
            )
        )

    about = "url|talkid|keywords|speaker|reviewer|translator|doc|/doc"
    train = (talks(tar.member(f"train.tags.th-en.{lang}"), about) for lang in ("th", "en"))
    pairs = (pair for pair in parallel(*train) if all(pair))
    write(
        out,
        ("th", "en"),
        train=(pairs, None),
        valid=(sets(2010, 2011), None),
        test=(sets(2012, 2013), None),
    )


def clean_pieces(folder, out):
    """Drop pairs of more than 250 subwords or of unequal lengths, except in test.

    fairseq's script does this with WMT's BPE.
    """
    for split in ("train", "valid", "test"):
        langs = sorted({file.name.rpartition(".")[2] for file in folder.glob(f"{split}.bpe.*")})
        with contextlib.ExitStack() as stack:
            sides = [
                stack.enter_context(
                    (folder / f"{split}.bpe.{lang}").open(encoding="utf-8", newline="\n")
                )
                for lang in langs
            ]
            files = [
                stack.enter_context((out / f"{split}.clean.{lang}").open("w", encoding="utf-8"))
                for lang in langs
            ]
            pairs = parallel(*sides)
            for pair in pairs if split == "test" else clean(pairs, 250):
                for line, file in zip(pair, files):
                    file.write(line)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {"iwslt14": iwslt14, "wmt14": wmt14, "iwslt15": iwslt15, "clean": clean_pieces}
    parser.add_argument("what", choices=commands)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the archives are")
    parser.add_argument("-o", dest="out", metavar="DIR", type=Path, required=True)
    arguments = parser.parse_args()
    commands[arguments.what](arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
