"""fairseq's --post-process, --bpe and --tokenizer for commands that make text of ids, with the options of whichever is named."""

import argparse

from fairseq_seqkd.corpus.detokenise import NONE, beside_bpe
from fairseq_seqkd.errors import Refusal, first_line

OF_DECODERS = "Options of the --bpe and --tokenizer named, such as --sentencepiece-model, are spelled as fairseq spells them."


def add_decoders(parser, default="seen from the dictionary"):
    """Adds the three options to a parser, whose `rest` gets the options of what they name.

    Args: default: how subwords are joined, in words.
    """
    parser.set_defaults(rest=[])
    parser.add_argument(
        "--post-process",
        metavar="P",
        help=f"how subwords are joined, as fairseq's --post-process; none: not at all (default: {default})",
    )
    parser.add_argument(
        "--bpe", metavar="NAME", help="fairseq's --bpe, undone on both sides; none: none"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="fairseq's --tokenizer, undone on both sides; none: none",
    )


class Decoders:
    """What a command line names, to be set up for any languages.

    Args: arguments: with bpe, tokenizer and rest; command: the name of the seqkd command, for messages.
    """

    def __init__(self, arguments, command):
        self.names = {group: getattr(arguments, group) for group in ("bpe", "tokenizer")}
        self.names = {group: None if name == NONE else name for group, name in self.names.items()}
        self.rest, self.command = arguments.rest, command
        if self.rest and not any(self.names.values()):
            raise Refusal(self._unknown(self.rest))
        named = [
            word for group, name in self.names.items() if name for word in (f"--{group}", name)
        ]
        self.words = " ".join(
            [*named, *self.rest]
        )  # what was told, which decides what text is made

    def _unknown(self, words):
        return f"unknown options: {' '.join(words)}; see `seqkd {self.command} --help`, and name --bpe or --tokenizer for theirs"

    def post_process(self, told):
        """How subwords are joined, where the user says so or names a BPE."""
        return beside_bpe(told, self.names["bpe"])

    def __call__(self, languages, i):
        """(BPE, tokenizer) of one side, each or None, built by fairseq's own registries from the options that are theirs.

        Args: languages: (source, target); i: 0 for the source, 1 for the target. A tokenizer's text is undone in its "target
        language": that of the side, whichever side it is.
        """
        from fairseq.data import encoders
        from fairseq.dataclass.utils import gen_parser_from_dataclass
        from fairseq.registry import REGISTRIES

        parser = argparse.ArgumentParser(
            add_help=False, allow_abbrev=False, conflict_handler="resolve"
        )
        for group, name in self.names.items():
            known = REGISTRIES[group]["registry"]
            if name is None:
                continue
            if name not in known:
                raise Refusal(f"--{group} {name} is none of fairseq's: {', '.join(sorted(known))}")
            # As fairseq.options does: a dataclass declares the options, in older encoders a method.
            if hasattr(known[name], "add_args"):
                known[name].add_args(parser)
            elif name in REGISTRIES[group]["dataclass_registry"]:
                gen_parser_from_dataclass(parser, REGISTRIES[group]["dataclass_registry"][name]())
        parser.set_defaults(source_lang=languages[0], target_lang=languages[1])
        options, unknown = parser.parse_known_args(self.rest)
        if unknown:
            raise Refusal(self._unknown(unknown))
        vars(options).update(self.names)
        options.target_lang = (options.source_lang, options.target_lang)[i]
        try:
            return encoders.build_bpe(options), encoders.build_tokenizer(options)
        except (ImportError, OSError, RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = first_line(error)
            raise Refusal(
                f"--bpe or --tokenizer cannot be set up ({reason}); name it with the options that it needs"
            ) from error
