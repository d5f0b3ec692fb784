"""Trains one SentencePiece BPE model for both languages of a folder of text, and cuts the text with it.

From FOLDER/{train,valid,test}.{source,target} to FOLDER/spm.model and FOLDER/{train,valid,test}.spm.{source,target}. With
--model a model that is there cuts it, and becomes FOLDER/spm.model.
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
        help="pieces for both languages (default: %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="FILE", help="a SentencePiece model that is there, instead of a new one"
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train", "valid", "test"],
        metavar="SPLIT",
        help="what is cut (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.model:
        shutil.copyfile(arguments.model, arguments.folder / "spm.model")
    else:
        train(arguments.folder, arguments.langs, arguments.vocabulary)
    for split in arguments.splits:
        for lang in arguments.langs:
            cut(arguments.folder, f"{split}.{lang}", f"{split}.spm.{lang}")


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


def cut(folder, name, out):
    """A line for every line; only a line feed ends one, as in the rest of the pipeline."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    with (folder / name).open(encoding="utf-8", newline="\n") as text, (folder / out).open(
        "w", encoding="utf-8"
    ) as file:
        for line in text:
            print(*pieces.encode(line.rstrip("\n"), out_type=str), file=file)


if __name__ == "__main__":
    main()
