"""Train one SentencePiece BPE model for both languages of a folder of text, and segment the text.

Reads FOLDER/{train,valid,test}.{source,target}. Writes FOLDER/spm.model and
FOLDER/{train,valid,test}.spm.{source,target}. With --model an existing model segments the text, and
is copied to FOLDER/spm.model.
"""

import argparse
import shutil
from pathlib import Path

import sentencepiece


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--langs", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument(
        "--vocabulary",
        type=int,
        default=8000,
        metavar="N",
        help="subwords for both languages together (default: %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="FILE", help="an existing SentencePiece model, instead of a new one"
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train", "valid", "test"],
        metavar="SPLIT",
        help="splits to segment (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.model:
        shutil.copyfile(arguments.model, arguments.folder / "spm.model")
    else:
        train(arguments.folder, arguments.langs, arguments.vocabulary)
    for split in arguments.splits:
        for lang in arguments.langs:
            segment(arguments.folder, f"{split}.{lang}", f"{split}.spm.{lang}")


def train(folder, langs, vocabulary):
    sentencepiece.SentencePieceTrainer.train(
        input=[str(folder / f"train.{lang}") for lang in langs],
        model_prefix=str(folder / "spm"),
        vocab_size=vocabulary,
        model_type="bpe",
        character_coverage=1.0,
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=1,
    )


def segment(folder, name, out):
    """Write one line of subwords per line; only a line feed ends a line."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    with (folder / name).open(encoding="utf-8", newline="\n") as text, (folder / out).open(
        "w", encoding="utf-8"
    ) as file:
        for line in text:
            print(*model.encode(line.rstrip("\n"), out_type=str), file=file)


if __name__ == "__main__":
    main()
