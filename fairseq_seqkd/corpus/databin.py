"""fairseq's binarised text (a data-bin): which files a split has, and a writer that needs 8 bytes a sentence.

fairseq's own builder keeps Python lists of sizes, and its merge overflows past 2 GiB under NumPy 2.
"""

import itertools
import os
import struct
from pathlib import Path

import numpy as np

from fairseq_seqkd.corpus.atomic import sha256
from fairseq_seqkd.errors import Refusal, first_line

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
# The types of tokens, as fairseq/data/indexed_dataset.py numbers them.
CODES = {
    np.dtype(np.uint16): 8,
    np.dtype(np.int32): 4,
    np.dtype(np.uint32): 9,
    np.dtype(np.int64): 5,
    np.dtype(np.uint64): 10,
}
TYPES = {code: dtype for dtype, code in CODES.items()}
HEADER = struct.Struct(
    f"<{len(MAGIC)}sQBQ"
)  # of an index: magic, version, code of the type, sentences

POINTERS_AT_A_TIME = 1 << 12  # they are eight bytes a sentence, and need not all be in memory
TOKENS_AT_A_TIME = 1 << 20


def token_dtype(vocabulary):
    """The type that fairseq-preprocess takes for a dictionary of this size."""
    return np.dtype(np.uint16 if vocabulary < 65500 else np.uint32)


def spellings(source_lang, target_lang):
    """How the names of files may spell a pair of languages; fairseq reads either, this one first."""
    return f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}"


class Split:
    """The files of one split: `train` of a data-bin, for one pair of languages."""

    def __init__(self, folder, name, source_lang, target_lang):
        self.folder, self.name = Path(folder), name
        self.source_lang, self.target_lang = source_lang, target_lang
        for pair in spellings(source_lang, target_lang):
            if (self.folder / f"{name}.{pair}.{source_lang}.bin").is_file():
                self.pair = pair
                break
        else:
            text = self.folder / f"{name}.{source_lang}-{target_lang}.{source_lang}"
            if text.is_file():
                raise Refusal(
                    f"{text} is not binarised; run fairseq-preprocess with --dataset-impl mmap"
                )
            raise Refusal(
                f"there is no split {name!r} for {source_lang}-{target_lang} in {self.folder}; "
                f"it has: {', '.join(self.splits()) or 'none'}"
            )
        for prefix in (self.prefix(source_lang), self.prefix(target_lang)):
            index, data = (prefix.with_name(prefix.name + ending) for ending in (".idx", ".bin"))
            if data.is_file() and not data.stat().st_size:
                raise Refusal(
                    f"{data} is empty: split {name!r} has no sentences, or fairseq-preprocess did not finish"
                )
            if index.is_file() and index.open("rb").read(len(MAGIC)) != MAGIC:
                raise Refusal(
                    f"{index} is no index of fairseq's mmap format; run fairseq-preprocess again"
                )
            if index.is_file() != data.is_file():
                missing, there = (data, index) if index.is_file() else (index, data)
                raise Refusal(
                    f"{missing} is missing, although {there.name} is there; run fairseq-preprocess again"
                )
            if index.is_file():
                check_pair(index, data)
        if (
            len({self.sentences(lang) for lang in (source_lang, target_lang) if self.files(lang)})
            > 1
        ):
            raise Refusal(
                f"split {name!r} in {self.folder} has more sentences on one side than on the other; binarise it again"
            )

    def splits(self):
        return sorted({file.name.split(".")[0] for file in self.folder.glob("*.bin")})

    def prefix(self, lang):
        """The path of a side without its ending."""
        return self.folder / f"{self.name}.{self.pair}.{lang}"

    def files(self, lang):
        """[.bin, .idx] of a side; empty where there is none, as on the target side of monolingual text."""
        prefix = self.prefix(lang)
        files = [prefix.with_name(prefix.name + ending) for ending in (".bin", ".idx")]
        return files if all(file.is_file() for file in files) else []

    def sentences(self, lang):
        """How many a side has, as its index says."""
        return read_header(self.files(lang)[1])[-1]

    def sizes(self, lang):
        """(sentences,) int32: the tokens of each sentence of a side, EOS counted, memory-mapped."""
        index = self.files(lang)[1]
        return np.memmap(index, np.int32, "r", HEADER.size, self.sentences(lang))

    def check_symbols(self, vocabularies):
        """Refuses a side with ids that are no symbols of its dictionary. Args: vocabularies: sizes of (source, target)."""
        for lang, vocabulary in zip((self.source_lang, self.target_lang), vocabularies):
            if not self.files(lang):
                continue
            data = self.files(lang)[0]
            tokens = np.memmap(data, self.dtype(lang), "r")
            blocks = (
                tokens[start : start + TOKENS_AT_A_TIME]
                for start in range(0, len(tokens), TOKENS_AT_A_TIME)
            )
            if any(block.max() >= vocabulary or block.min() < 0 for block in blocks):
                raise Refusal(
                    f"{data} holds ids that are no symbols of its dictionary, which has {vocabulary:,}: it is damaged, or the "
                    "dictionary is another one; copy both again"
                )

    def read(self, lang):
        """A side as fairseq reads it, memory-mapped: sentence id -> tensor of ids."""
        from fairseq.data.indexed_dataset import MMapIndexedDataset

        return MMapIndexedDataset(str(self.prefix(lang)))

    def dtype(self, lang):
        """The type of a side's tokens, as its index says."""
        index = self.files(lang)[1]
        _, code, _ = read_header(index)
        if code not in TYPES:
            raise Refusal(
                f"{index} holds tokens of an unknown type ({code}); run fairseq-preprocess again"
            )
        return TYPES[code]


def read_header(index):
    """(version, code of the tokens' type, sentences) of an index; None where it is too short to have a header."""
    with index.open("rb") as file:
        header = file.read(HEADER.size)
    return HEADER.unpack(header)[1:] if len(header) == HEADER.size else None


def fit_together(index, data):
    """Whether an index is whole, and says of every sentence that it stands in the data right behind the one before it."""
    header = read_header(index)
    if not header:
        return False
    version, code, count = header
    if version != VERSION or code not in TYPES or index.stat().st_size != HEADER.size + 12 * count:
        return False
    itemsize = TYPES[code].itemsize
    sizes = np.memmap(index, np.int32, "r", HEADER.size, count) if count else np.zeros(0, np.int32)
    pointers = (
        np.memmap(index, np.int64, "r", HEADER.size + 4 * count, count)
        if count
        else np.zeros(0, np.int64)
    )
    end = 0
    for start in range(0, count, POINTERS_AT_A_TIME):
        mine = sizes[start : start + POINTERS_AT_A_TIME].astype(np.int64) * itemsize
        ends = end + np.cumsum(mine)
        if mine.min() < 0 or not np.array_equal(
            pointers[start : start + POINTERS_AT_A_TIME], ends - mine
        ):
            return False
        end = int(ends[-1])
    return end == data.stat().st_size


def check_pair(index, data):
    if not fit_together(index, data):
        raise Refusal(f"{index} and {data.name} are damaged, or not of one split; copy them again")


def check_files(folder, name):
    """Refuses a split with an index and data that do not fit together; in other formats than mmap nothing is looked at."""
    for index in sorted(Path(folder).glob(f"{name}.*.idx")):
        data = index.with_suffix(".bin")
        if data.is_file() and index.open("rb").read(len(MAGIC)) == MAGIC:
            check_pair(index, data)


def training_splits(folder, name, source_lang, target_lang):
    """The splits that fairseq-train puts together: train, train1, train2, ... as far as they are there."""
    return [
        Split(folder, n, source_lang, target_lang)
        for n in (name, *further_splits(folder, name, source_lang, target_lang))
    ]


def further_splits(folder, name, source_lang, target_lang):
    """The names of those that fairseq-train puts behind a split: train1, train2, ..."""
    pairs = spellings(source_lang, target_lang)
    further = (f"{name}{k}" for k in itertools.count(1))
    there = itertools.takewhile(
        lambda n: any((Path(folder) / f"{n}.{p}.{source_lang}.bin").is_file() for p in pairs),
        further,
    )
    return list(there)


def load_dictionary(path):
    """fairseq's Dictionary of a file. Raises Refusal for one that is absent or damaged."""
    from fairseq.data import Dictionary

    try:
        return Dictionary.load(str(path))
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; name a folder that fairseq-preprocess made") from None
    except Exception as error:  # fairseq's own for what is no UTF-8 is of no narrower type
        raise Refusal(
            f"{path} is damaged ({first_line(error)}); copy it again, or run fairseq-preprocess again"
        ) from None


def split_hashes(split):
    """What a split's content is recognised by; the target's is None where there is none."""
    target = split.files(split.target_lang)
    return {
        "source_sha256": sha256(*split.files(split.source_lang)),
        "target_sha256": sha256(*target) if target else None,
        "dictionaries_sha256": [
            sha256(split.folder / f"dict.{lang}.txt")
            for lang in (split.source_lang, split.target_lang)
        ],
    }


def holds(split, data):
    """Whether a split is what a manifest's settings["data"] describe."""
    dictionaries = [
        split.folder / f"dict.{lang}.txt" for lang in (split.source_lang, split.target_lang)
    ]
    return all(file.is_file() for file in dictionaries) and all(
        data[key] == value for key, value in split_hashes(split).items()
    )


def check_unchanged(split, data, folder):
    """Refuses a split that is not what a directory was begun with any more: what was found may be of either text.

    Args: data: settings["data"] of the directory; folder: the directory.
    """
    if not split.files(split.source_lang):
        raise Refusal(
            f"{split.prefix(split.source_lang)}.bin is missing by now; put it back, and run the same command again"
        )
    if not holds(split, data):
        raise Refusal(
            f"{split.folder} has changed since {folder} was begun, perhaps by fairseq-preprocess, and what was found may be of "
            "either text; let nothing write there, and begin again with another --distill-dir"
        )


class Writer:
    """Writes one side of a split, sentence by sentence or in blocks; memory is four bytes a sentence, eight while closing."""

    def __init__(self, prefix, dtype):
        self.prefix, self.dtype = Path(prefix), np.dtype(dtype)
        self.data = self.prefix.with_name(self.prefix.name + ".bin").open("wb")
        self.sizes = []  # arrays, one for each call of add

    def add(self, tokens, sizes):
        """tokens: (sum of sizes,) ids, every sentence closed by EOS; sizes: (sentences,)."""
        self.data.write(np.ascontiguousarray(tokens, dtype=self.dtype).tobytes())
        self.sizes.append(np.asarray(sizes, dtype=np.int32))

    def close(self):
        self.data.flush()
        os.fsync(self.data.fileno())
        self.data.close()
        sizes = np.concatenate(self.sizes) if self.sizes else np.zeros(0, np.int32)
        self.sizes = []
        with self.prefix.with_name(self.prefix.name + ".idx").open("wb") as index:
            index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], len(sizes)))
            index.write(memoryview(sizes))
            address = 0
            for start in range(0, len(sizes), POINTERS_AT_A_TIME):
                ends = (
                    np.cumsum(sizes[start : start + POINTERS_AT_A_TIME], dtype=np.int64)
                    * self.dtype.itemsize
                    + address
                )
                index.write(memoryview(np.concatenate([[address], ends[:-1]])))
                address = int(ends[-1])
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self.data.close()
