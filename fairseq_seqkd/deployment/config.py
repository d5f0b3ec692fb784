"""What a deployed folder holds beside CTranslate2's model: how text becomes pieces, and how long a translation may be.

It is seqkd.json, with the subword model's file beside it. Nothing here needs torch or fairseq, so that a deployed
student starts at once, on a machine that has neither.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional

from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.shapes import (
    first_fault,
    is_count,
    is_number,
    is_one_of,
    is_size,
    is_text,
    or_none,
    shorten,
)

FILE = "seqkd.json"
FORMAT = 1
UNKNOWN = "<unk>"
SENTENCEPIECE, SUBWORD_NMT, FASTBPE = "sentencepiece", "subword_nmt", "fastbpe"
SUBWORD_FILE = "subwords.model"  # whatever it was called: no name of CTranslate2's files
MOSES = "moses"
SPACE = "\u2581"  # SentencePiece's mark of a space


@dataclass
class Folder:
    """The settings of a deployed folder."""

    source_lang: str
    target_lang: str
    quantization: str  # of the weights on disk, as CTranslate2 calls it
    max_source_tokens: int  # what the model reads, EOS counted
    max_len_a: float  # a translation has at most max_len_a * (source tokens, EOS counted) + max_len_b tokens
    max_len_b: int
    max_target_tokens: int
    subwords: Optional[str] = (
        None  # SENTENCEPIECE, SUBWORD_NMT, FASTBPE; None: the text is cut already
    )
    subword_file: Optional[str] = None
    tokenizer: Optional[str] = None  # MOSES, or None
    joined_by: Optional[str] = None  # how pieces become text, as fairseq's --post-process
    beam: int = 1
    lenpen: float = 1.0
    checkpoint_sha256: Optional[str] = None
    distillation_signature: Optional[str] = None

    def write(self, path):
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        (Path(path) / FILE).write_text(text + "\n", encoding="utf-8")


def read(path):
    """The Folder of a path. Raises Refusal for a folder that `seqkd export` did not make."""
    try:
        content = json.loads((Path(path) / FILE).read_text(encoding="utf-8"))
    except OSError:
        raise Refusal(
            f"{path} is no folder of `seqkd export`: it has no {FILE}; make one from a checkpoint"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Refusal(
            f"{Path(path) / FILE} is damaged ({error}); export the checkpoint again"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Refusal(
            f"{Path(path) / FILE} is of another version of `seqkd export`; export the checkpoint again"
        )
    fault = first_fault(content, SHAPE)
    if not fault and bool(content.get("subwords")) != bool(content.get("subword_file")):
        fault = f"subword_file is {shorten(content.get('subword_file'))}"
    if fault:
        raise Refusal(f"{Path(path) / FILE} is damaged ({fault}); export the checkpoint again")
    known = {field.name for field in fields(Folder)}
    return Folder(**{key: value for key, value in content.items() if key in known})


def is_finite(value):
    return is_number(value) and math.isfinite(value)


SHAPE = {  # whoever damages or edits the file hears of it before text is translated wrongly
    **dict.fromkeys(("source_lang", "target_lang", "quantization"), is_text),
    "max_source_tokens": lambda value: is_size(value) and value > 1,
    "max_target_tokens": is_size,
    "max_len_a": lambda value: is_finite(value) and value >= 0,
    "max_len_b": is_count,
    "beam?": is_size,
    "lenpen?": is_finite,
    "subwords?": or_none(is_one_of(SENTENCEPIECE, SUBWORD_NMT, FASTBPE)),
    "subword_file?": or_none(is_one_of(SUBWORD_FILE)),
    "tokenizer?": or_none(is_one_of(MOSES)),
    "joined_by?": or_none(is_text),
}


class Text:
    """Text to pieces and back, as the folder says.

    Args: path: where the subword model is; folder: a Folder. Raises Refusal where a library or the model is missing.
    """

    def __init__(self, path, folder):
        self.folder = folder
        self.moses = moses(folder) if folder.tokenizer == MOSES else None
        self.cut = splitter(
            Path(path) / folder.subword_file if folder.subword_file else None, folder.subwords
        )

    def pieces(self, line):
        if self.moses:
            # With the options that fairseq's --tokenizer moses has when none are named.
            line = self.moses[0].tokenize(
                line, return_str=True, escape=True, aggressive_dash_splits=True
            )
        return self.cut(line)

    def text(self, pieces):
        line = join(pieces, self.folder.joined_by)
        return self.moses[1].detokenize(line.split()) if self.moses else line

    def source(self, pieces, joined_by):
        """What a source was before it was cut: the other way of `pieces`. Args: joined_by: as of `join`."""
        line = join(pieces, joined_by)
        return self.moses[2].detokenize(line.split()) if self.moses else line


def join(pieces, joined_by):
    """Pieces to text; joined_by as fairseq's --post-process names it."""
    if joined_by == SENTENCEPIECE:
        return "".join(pieces).replace(SPACE, " ").strip()
    line = " ".join(pieces)
    return re.sub("@@( |$)", "", line).rstrip() if joined_by else line


def splitter(file, subwords):
    """line -> pieces."""
    if subwords is None:
        return str.split
    if not Path(file).is_file():
        raise Refusal(f"{file} is missing: it cuts text into pieces; export the checkpoint again")
    try:
        if subwords == SENTENCEPIECE:
            from sentencepiece import SentencePieceProcessor

            processor = SentencePieceProcessor(model_file=str(file))
            return lambda line: processor.encode(line, out_type=str)
        if subwords == FASTBPE:
            from fastBPE import fastBPE

            codes = fastBPE(str(file))
            return lambda line: codes.apply([line])[0].split()
        from subword_nmt.apply_bpe import BPE

        with Path(file).open(encoding="utf-8") as codes_file:
            codes = BPE(codes_file)
        return lambda line: codes.process_line(line).split()
    except ImportError as error:
        package = {SENTENCEPIECE: "sentencepiece", FASTBPE: "fastBPE", SUBWORD_NMT: "subword-nmt"}[
            subwords
        ]
        raise Refusal(
            f"{file} wants {package}, which is not installed: pip install {package}"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise Refusal(f"{file} is no model of {subwords}: {first_line(error)}") from error


def moses(folder):
    """(tokenizer of the source, detokenizer of the target, detokenizer of the source)."""
    try:
        from sacremoses import MosesDetokenizer, MosesTokenizer
    except ImportError:
        raise Refusal(
            "this folder's text is tokenised by sacremoses, which is not installed: pip install sacremoses"
        ) from None
    languages = folder.source_lang, folder.target_lang
    return (
        MosesTokenizer(lang=languages[0]),
        MosesDetokenizer(lang=languages[1]),
        MosesDetokenizer(lang=languages[0]),
    )
