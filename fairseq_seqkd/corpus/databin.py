"""fairseq's binarised text (a data-bin): its dictionaries, and the files of one split.

Everything that reads or copies training data goes through `Split`: decoding, criterions,
evaluation and reports.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from fairseq_seqkd.corpus import mmap_format
from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.errors import Refusal, first_line

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from fairseq.data.indexed_dataset import MMapIndexedDataset


BINARISE = "run fairseq-preprocess again"


class LanguagePair(NamedTuple):
    """Source and target language, as fairseq names them (for example ``de`` and ``en``)."""

    source: str
    target: str

    def __str__(self) -> str:
        """Returns the pair as in the names of files, e.g. ``de-en``."""
        return f"{self.source}-{self.target}"

    @property
    def spellings(self) -> Tuple[str, str]:
        """The spellings in names of files: fairseq reads ``de-en`` first, then ``en-de``."""
        return f"{self.source}-{self.target}", f"{self.target}-{self.source}"


class SplitHashes(NamedTuple):
    """The content of a split. Splits with equal hashes are the same data."""

    source_sha256: str
    target_sha256: Optional[str]  # None without a target side
    dictionaries_sha256: List[str]  # source, target


class Split:
    """The files of one split of a data-bin, for one language pair.

    Args:
        folder: the data-bin.
        name: e.g. "train".
        languages: the source language and the target language. The target side may be missing.

    Raises:
        Refusal: the split does not exist, or its files are damaged.
    """

    def __init__(self, folder: Union[str, Path], name: str, languages: LanguagePair) -> None:
        self.folder, self.name, self.languages = Path(folder), name, languages
        self.spelling = self._find_spelling()
        for language in languages:
            self._check_side(language)
        if len({self.sentences(language) for language in languages if self.files(language)}) > 1:
            raise Refusal(
                f"split {name!r} in {self.folder} has more sentences on one side than on the "
                "other; binarise it again"
            )

    def _find_spelling(self) -> str:
        """Returns the language pair as the names of the files spell it."""
        source = self.languages.source
        for spelling in self.languages.spellings:
            if (self.folder / f"{self.name}.{spelling}.{source}.bin").is_file():
                return spelling
        text = self.folder / f"{self.name}.{self.languages}.{source}"
        if text.is_file():
            raise Refusal(
                f"{text} is not binarised; run fairseq-preprocess with --dataset-impl mmap"
            )
        splits = sorted({file.name.split(".")[0] for file in self.folder.glob("*.bin")})
        raise Refusal(
            f"there is no split {self.name!r} for {self.languages} in {self.folder}; "
            f"it has: {', '.join(splits) or 'none'}"
        )

    def _check_side(self, language: str) -> None:
        data, index = self._paths(language)
        if data.is_file() and not data.stat().st_size:
            raise Refusal(
                f"{data} is empty: split {self.name!r} has no sentences, or fairseq-preprocess did "
                "not finish"
            )
        if index.is_file() and not mmap_format.has_magic(index):
            raise Refusal(f"{index} is no index of fairseq's mmap format; {BINARISE}")
        if index.is_file() != data.is_file():
            missing, present = (data, index) if index.is_file() else (index, data)
            raise Refusal(f"{missing} is missing, although {present.name} is there; {BINARISE}")
        if index.is_file():
            mmap_format.check_pair(index, data)

    def prefix(self, language: str) -> Path:
        """The path of a side, without ``.bin`` or ``.idx``."""
        return self.folder / f"{self.name}.{self.spelling}.{language}"

    def _paths(self, language: str) -> Tuple[Path, Path]:
        prefix = self.prefix(language)
        return prefix.with_name(prefix.name + ".bin"), prefix.with_name(prefix.name + ".idx")

    def files(self, language: str) -> List[Path]:
        """The ``.bin`` and ``.idx`` of a side; empty if it is missing (monolingual text)."""
        paths = self._paths(language)
        return list(paths) if all(path.is_file() for path in paths) else []

    def has(self, language: str) -> bool:
        """Whether a side exists."""
        return bool(self.files(language))

    @property
    def dictionaries(self) -> Tuple[Path, Path]:
        """The files of the source and target dictionaries; they may be missing."""
        source, target = (self.folder / f"dict.{language}.txt" for language in self.languages)
        return source, target

    def sentences(self, language: str) -> int:
        """The number of sentences of a side."""
        return len(self.sizes(language))

    def sizes(self, language: str) -> np.ndarray:
        """The number of tokens of each sentence of a side, EOS included: (sentences,) int32."""
        return mmap_format.map_sizes(self._paths(language)[1])

    def dtype(self, language: str) -> "np.dtype[Any]":
        """The type of the tokens of a side."""
        return mmap_format.read_dtype(self._paths(language)[1])

    def read(self, language: str) -> "MMapIndexedDataset":
        """Maps a side as fairseq reads it: sentence id to a tensor of token ids."""
        from fairseq.data.indexed_dataset import MMapIndexedDataset

        return MMapIndexedDataset(str(self.prefix(language)))

    def check_symbols(self, vocabularies: Tuple[int, int]) -> None:
        """Checks that all token ids are symbols of the dictionaries.

        Args:
            vocabularies: the sizes of the source and target dictionary.

        Raises:
            Refusal: a side holds larger ids.
        """
        for language, vocabulary in zip(self.languages, vocabularies):
            data = self._paths(language)[0]
            if self.has(language) and not mmap_format.has_ids_below(
                data, self.dtype(language), vocabulary
            ):
                raise Refusal(
                    f"{data} holds ids that are no symbols of its dictionary, which has "
                    f"{vocabulary:,}: it is damaged, or the dictionary is another one; copy both "
                    "again"
                )

    @cached_property
    def hashes(self) -> SplitHashes:
        """The hashes of the content, computed once: a later change of the files does not show."""
        return self._read_hashes()

    def _read_hashes(self) -> SplitHashes:
        source, target = (self.files(language) for language in self.languages)
        return SplitHashes(
            sha256(*source),
            sha256(*target) if target else None,
            [sha256(file) for file in self.dictionaries],
        )

    def has_hashes(self, hashes: SplitHashes) -> bool:
        """Whether the content has these hashes, e.g. `settings.data.hashes` of a manifest."""
        return all(file.is_file() for file in self.dictionaries) and self.hashes == hashes

    def check_unchanged(self, folder: Union[str, Path]) -> None:
        """Hashes the files again, and compares them with `hashes`.

        Args:
            folder: the directory that was begun with these data.

        Raises:
            Refusal: the data have changed, so the directory may mix both versions.
        """
        source = self._paths(self.languages.source)[0]
        if not source.is_file():
            raise Refusal(f"{source} is missing by now; put it back and run the same command again")
        complete = all(file.is_file() for file in self.dictionaries)
        if not complete or self._read_hashes() != self.hashes:
            raise Refusal(
                f"{self.folder} has changed since {folder} was begun, perhaps by "
                f"fairseq-preprocess, and {folder} may hold either text; let nothing write to "
                f"{self.folder}, and begin again with another --distill-dir"
            )


def check_files(folder: Union[str, Path], name: str) -> None:
    """Refuses a split with damaged files. Only files of the mmap format are checked."""
    for index in sorted(Path(folder).glob(f"{name}.*.idx")):
        data = index.with_suffix(".bin")
        if data.is_file() and mmap_format.has_magic(index):
            mmap_format.check_pair(index, data)


def training_splits(folder: Union[str, Path], name: str, languages: LanguagePair) -> List[Split]:
    """Returns the splits that fairseq-train concatenates: train, train1, train2, ..."""
    names = (name, *further_splits(folder, name, languages))
    return [Split(folder, split, languages) for split in names]


def further_splits(folder: Union[str, Path], name: str, languages: LanguagePair) -> List[str]:
    """Returns the names of the splits that fairseq-train appends: train1, train2, ..."""

    endings = [f"{pair}.{languages.source}.bin" for pair in languages.spellings]
    splits: List[str] = []
    while any((Path(folder) / f"{name}{len(splits) + 1}.{end}").is_file() for end in endings):
        splits.append(f"{name}{len(splits) + 1}")
    return splits


def load_dictionary(path: Union[str, Path]) -> "Dictionary":
    """Loads a fairseq dictionary.

    Raises:
        Refusal: the file is missing or damaged.
    """
    from fairseq.data import Dictionary

    try:
        return Dictionary.load(str(path))
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; name a folder that fairseq-preprocess made") from None
    except Exception as error:  # fairseq raises a bare Exception for what is no UTF-8
        raise Refusal(
            f"{path} is damaged ({first_line(error)}); copy it again, or {BINARISE}"
        ) from None
