"""--post-process, --bpe and --tokenizer of commands that turn token ids into text.

The options of the BPE and tokenizer named, e.g. --sentencepiece-model, are fairseq's own.
"""

import argparse
from typing import List, Optional, Sequence, Tuple

from fairseq_seqkd.corpus.detokenise import NONE, beside_bpe
from fairseq_seqkd.errors import Refusal, first_line

GROUPS = ("bpe", "tokenizer")  # the names of fairseq's registries, and of the options
EPILOG = (
    "The options of the --bpe and --tokenizer named are accepted too, spelled as in fairseq, "
    "e.g. --sentencepiece-model FILE."
)


def add_text_options(
    parser: argparse.ArgumentParser, default: str = "recognised from the dictionary"
) -> None:
    """Adds the three options to a parser. `cli.main` puts the options it does not know beside them.

    Args:
        parser: the parser of a command.
        default: how subwords are joined if --post-process is not given, in words.
    """
    parser.set_defaults(fairseq_options=[])
    parser.add_argument(
        "--post-process",
        metavar="P",
        help="how to join subwords, as fairseq --post-process, e.g. sentencepiece or '@@ '; "
        f"'none' disables it (default: {default})",
    )
    for option in GROUPS:
        parser.add_argument(
            f"--{option}",
            metavar="NAME",
            help=f"fairseq --{option} to undo on both sides; 'none' disables it (default: none)",
        )


class TextOptions:
    """The BPE and tokenizer that a command line names, to be built for any language pair.

    Args:
        arguments: the parsed command line, with `bpe`, `tokenizer` and `fairseq_options`.
        command: the name of the subcommand, for error messages.

    Raises:
        Refusal: there are unknown options, and no BPE or tokenizer that could know them.
    """

    def __init__(self, arguments: argparse.Namespace, command: str) -> None:
        self.command = command
        self.options: List[str] = arguments.fairseq_options
        named = {group: getattr(arguments, group) for group in GROUPS}
        self.names = {group: name for group, name in named.items() if name not in (None, NONE)}
        if self.options and not self.names:
            raise Refusal(self._unknown(self.options))

    @property
    def words(self) -> str:
        """The options as one string: it decides what text is made, and is kept with results."""
        named = [word for group, name in self.names.items() for word in (f"--{group}", name)]
        return " ".join([*named, *self.options])

    def post_process(self, value: Optional[str]) -> Optional[str]:
        """Returns how subwords are joined, or None if the dictionary decides.

        Args:
            value: the option --post-process. A BPE that is named replaces its default.
        """
        return beside_bpe(value, self.names.get("bpe"))

    def build(self, languages: Sequence[str], side: int) -> Tuple[object, object]:
        """Builds the BPE and the tokenizer of one side, each None if it is not named.

        A fairseq tokenizer detokenises its "target language", here that of the side.

        Args:
            languages: source and target language.
            side: 0 for the source, 1 for the target.

        Raises:
            Refusal: fairseq has no BPE or tokenizer of that name, or cannot build it.
        """
        from fairseq.data import encoders

        settings, unknown = self._parser(languages).parse_known_args(self.options)
        if unknown:
            raise Refusal(self._unknown(unknown))
        vars(settings).update({group: self.names.get(group) for group in GROUPS})
        settings.target_lang = (settings.source_lang, settings.target_lang)[side]
        try:
            return encoders.build_bpe(settings), encoders.build_tokenizer(settings)
        except (ImportError, OSError, RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise Refusal(
                f"--bpe or --tokenizer cannot be set up ({first_line(error)}); "
                "pass the options that it needs"
            ) from error

    def _parser(self, languages: Sequence[str]) -> argparse.ArgumentParser:
        """Makes a parser of the options of the BPE and the tokenizer named."""
        from fairseq.dataclass.utils import gen_parser_from_dataclass
        from fairseq.registry import REGISTRIES

        parser = argparse.ArgumentParser(
            add_help=False, allow_abbrev=False, conflict_handler="resolve"
        )
        for group, name in self.names.items():
            classes = REGISTRIES[group]["registry"]
            dataclasses = REGISTRIES[group]["dataclass_registry"]
            if name not in classes:
                raise Refusal(
                    f"fairseq has no --{group} {name}; it has {', '.join(sorted(classes))}"
                )
            # As in fairseq.options: a dataclass declares the options, in older encoders a method.
            if hasattr(classes[name], "add_args"):
                classes[name].add_args(parser)
            elif name in dataclasses:
                gen_parser_from_dataclass(parser, dataclasses[name]())
        parser.set_defaults(source_lang=languages[0], target_lang=languages[1])
        return parser

    def _unknown(self, words: Sequence[str]) -> str:
        return (
            f"unknown options: {' '.join(words)}; see `seqkd {self.command} --help`, "
            "and pass --bpe or --tokenizer if these are their options"
        )
