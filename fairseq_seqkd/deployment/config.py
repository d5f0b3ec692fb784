"""seqkd.json, the settings of a deployed folder: how text is segmented, and how it is translated.

Nothing here needs torch or fairseq: a deployed student starts at once, on a machine with neither.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Optional, Union

import msgspec
from msgspec import Meta, Struct, field

from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal

FILE = "seqkd.json"
FORMAT = 1

SubwordKind = Literal["sentencepiece", "subword_nmt", "fastbpe"]
SENTENCEPIECE: SubwordKind = "sentencepiece"
SUBWORD_NMT: SubwordKind = "subword_nmt"
FASTBPE: SubwordKind = "fastbpe"
Tokenizer = Literal["moses"]
SubwordFile = Literal["subwords.model"]
SUBWORD_FILE: SubwordFile = "subwords.model"  # differs from the names of CTranslate2's files

Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(gt=0)]


class DeployedConfig(Struct, tag_field="format", tag=FORMAT):
    """The settings of a deployed folder.

    Attributes:
        quantization: CTranslate2's name of the type of the weights on disk.
        max_source_tokens: the longest source that the model reads, EOS included.
        max_len_a: a translation has at most max_len_a * (source tokens) + max_len_b tokens.
        max_len_b: see max_len_a.
        max_target_tokens: the longest translation that the model writes, without EOS.
        subwords: the kind of the subword model; None if the text is segmented already.
        subword_file: the file of the subword model, in the folder.
        tokenizer: "moses" if the text is tokenised before it is segmented.
        post_process: how subwords are joined, as fairseq's --post-process.
        beam: the beam size.
        lenpen: the length penalty.
        checkpoint_sha256: the hash of the checkpoint that was exported.
        distillation_signature: the signature of the data that it was trained on.
    """

    source_lang: str
    target_lang: str
    quantization: str
    max_source_tokens: Annotated[int, Meta(gt=1)]
    max_len_a: Annotated[float, Meta(ge=0)]
    max_len_b: Count
    max_target_tokens: Size
    subwords: Optional[SubwordKind] = None
    subword_file: Optional[SubwordFile] = None
    tokenizer: Optional[Tokenizer] = None
    post_process: Optional[str] = field(name="joined_by", default=None)
    beam: Size = 1
    lenpen: float = 1.0
    checkpoint_sha256: Optional[str] = None
    distillation_signature: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.subwords is None) != (self.subword_file is None):
            raise ValueError("`subwords` and `subword_file` belong together")

    @property
    def length_limit(self) -> LengthLimit:
        """The limit of a translation's length."""
        return LengthLimit(self.max_len_a, self.max_len_b, self.max_target_tokens)

    def write(self, folder: Path) -> None:
        """Writes the settings to a folder."""
        text = json.dumps(msgspec.to_builtins(self), indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(folder: Union[str, Path]) -> DeployedConfig:
    """Reads the settings of a deployed folder.

    Raises:
        Refusal: `seqkd export` did not write this folder, or its settings are damaged.
    """
    file = Path(folder) / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=DeployedConfig)
    except OSError:
        raise Refusal(
            f"{folder} was not written by `seqkd export` (it has no {FILE}); export a checkpoint"
        ) from None
    except msgspec.MsgspecError as error:  # e.g. "Expected `int` >= 1 - at `$.beam`"
        raise Refusal(
            f"{file} is damaged, or of another version of `seqkd export` ({error}); export the "
            "checkpoint again"
        ) from None
