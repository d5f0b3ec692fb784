"""The results file of `seqkd evaluate`: measurements of systems and comparisons of pairs, for `seqkd report`.

It is JSON, {"results": [...], "pairs": [...]}, written whole after every system, and continued where it is there.
"""

import contextlib
import json
from pathlib import Path

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.corpus.locks import lock
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.shapes import (
    first_fault,
    is_above_zero,
    is_count,
    is_number,
    is_text,
    is_there,
    is_tree,
    list_of,
    or_none,
)

PAIR = (
    "a",
    "search_a",
    "checkpoint_a",
    "b",
    "search_b",
    "checkpoint_b",
    "seed",
)  # what makes a comparison itself
NUMBERS = (
    "params", "nonzero_params", "bleu_greedy", "bleu_beam5", "chrf_greedy", "chrf_beam5", "comet_greedy", "comet_beam5",
    "ppl", "mode_probability", "sentences_per_second_greedy", "sentences_per_second_beam5",
    "length_ratio_greedy", "length_ratio_beam5", "hit_limit_greedy", "hit_limit_beam5",
    "greedy_equals_beam5", "sentences",
)  # fmt: skip
SCORED_BY = ("sacrebleu_signature", "chrf_signature", "comet_signature")
SIGNATURES = (*SCORED_BY, "distillation_signature")
COMPARABLE = ("data_sha256", "settings")  # different: the numbers may not stand in one table
OUTPUTS = (
    "name",
    "seed",
    "checkpoint_sha256",
    "versions",
    "machine",
    *COMPARABLE,
)  # what a row's translations depend on
COMET = ("comet_greedy", "comet_beam5", "comet_signature")

RESULT = {
    "name": is_text,
    "seed?": or_none(is_count),
    "checkpoint?": or_none(is_text),
    "settings?": is_tree,
    **{f"{key}?": or_none(is_number) for key in NUMBERS},
    **{f"{key}?": or_none(is_text) for key in SIGNATURES},
}
COMPARISON = {
    **dict.fromkeys(PAIR, or_none(is_text)),
    "seed": or_none(is_count),
    "difference": is_number,
    "p_value": is_number,
}
BENCH = {
    "speeds": bool,
    "settings": is_tree,
    "settings.split": is_text,
    "counted?": is_text,
    **dict.fromkeys(("settings.max_len_a", "settings.max_len_b"), is_number),
    **dict.fromkeys(("data_sha256", "versions", "machine", "date"), is_there),
}
SPEED = {
    **dict.fromkeys(("name", "engine"), is_text),
    "computed_in?": is_text,
    **dict.fromkeys(("beam", "size_bytes", "nonzero_params"), is_count),
    "words_per_second": is_above_zero,
    "words_per_second_rounds": list_of(is_above_zero),
    "bleu": is_number,
    "sacrebleu_signature": is_text,
    "distillation_signature": or_none(is_text),
}


def first_difference(a, b):
    """The first setting in which two measurements differ, None where they compare; tokens a batch are each engine's own."""
    return next(
        (name for name in sorted({*a, *b} - {"max_tokens"}) if a.get(name) != b.get(name)), None
    )


def read(path):
    """The list of results in a file. Raises Refusal for a file that is absent, damaged, or something else."""
    return of(read_json(path), path)


def read_json(path):
    """The content of a file of `seqkd evaluate` or `seqkd bench`, a dictionary."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(
            f"there is no {path}; `seqkd evaluate` and `seqkd bench` make such a file with -o"
        ) from None
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path} is no JSON ({error}); remove it, and measure again") from None
    if not isinstance(content, dict):
        raise Refusal(
            f"{path} holds no results of `seqkd evaluate` or `seqkd bench`; name another file"
        )
    return content


def speeds(content, path):
    """The content of a file of `seqkd bench`, looked at before anything is made of it."""
    found = content.get("speeds")
    fault = first_fault(content, BENCH) or fault_of(found, SPEED)
    if fault:
        raise Refusal(
            f"{path} holds no measurements of `seqkd bench` ({fault}); measure again, or name another file"
        )
    return content


def of(content, path):
    """The list of results in the content of a file."""
    found = content.get("results")
    fault = fault_of(found, RESULT)
    if fault:
        raise Refusal(f"{path} holds no results of `seqkd evaluate` ({fault}); name another file")
    return found


def pairs_of(content, path):
    """The comparisons in the content of a file; none where it has none."""
    found = content.get("pairs", [])
    fault = fault_of(found, COMPARISON)
    if fault:
        raise Refusal(
            f"{path} holds damaged comparisons ({fault}); measure again with `seqkd evaluate`"
        )
    return found


def fault_of(entries, shape):
    """What is wrong with a list of measurements, in words, or None."""
    if not list_of(is_tree)(entries):
        return "they are no list"
    return next(filter(None, (first_fault(entry, shape) for entry in entries)), None)


def pairs_among(pairs, results):
    """The comparisons of checkpoints that stand among the results under the same names, each once, the latest."""
    known = {(result["name"], result.get("checkpoint_sha256")) for result in results}
    found = {tuple(pair[key] for key in PAIR): pair for pair in pairs}
    sides = (("a", "checkpoint_a"), ("b", "checkpoint_b"))
    return [
        pair
        for pair in found.values()
        if all((pair[name], pair[checkpoint]) in known for name, checkpoint in sides)
    ]


def why_no_seed(result, others):
    """Why a result is no further seed of the results of its name, in words; None where it is one, or has the name alone."""
    for other in others:
        if other["name"] != result["name"]:
            continue
        if (other.get("seed") is None) != (result.get("seed") is None):
            return "one has a seed, and one has none"
        params, known = result.get("params"), other.get("params")
        if None not in (params, known) and params != known:
            return f"one has {known:,} parameters, and one has {params:,}"
    return None


def to_json(content):
    """The text of a file of results, speeds, or a whole report."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


class Results:
    """What is known so far: the results of a file, if one is named, and those that are added.

    Systems that the command does not name stay, before those that it names; a result with the same name and seed as a
    new one is replaced by it.
    """

    def __init__(self, path=None):
        self.path, self.kept, self.pairs, self.new, self.checked = path, [], [], [], []
        self._take_in()

    def _take_in(self):
        """Reads what the file holds by now, where it is there."""
        if self.path and Path(self.path).exists():
            content = read_json(self.path)
            self.kept, self.pairs = (
                of(content, self.path),
                [*pairs_of(content, self.path), *self.pairs],
            )

    def check(self, result):
        """Refuses what may not stand in one table with the file's results, or with what was checked before it.

        Args: result: its name, its seed and what is COMPARABLE of it, before anything is measured.
        """
        self._check_kept(result)
        for other in self.checked:
            if different(other, result):
                raise Refusal(
                    f"{other['name']} and {result['name']} do not translate the same sentences into the same language, so they "
                    "do not belong in one table; evaluate them apart"
                )
        self._check_seed(result, self.checked)
        self.checked.append(result)

    def _check_kept(self, result):
        """Refuses what may not stand in one table with the file's results."""
        found = next(filter(None, (different(other, result) for other in self.kept)), None)
        if found:
            what = "on other data" if "data_sha256" in found else "with other settings"
            raise Refusal(
                f"{self.path} holds results that were measured {what}; name another file with -o, or remove it"
            )

    def check_scorer(self, signature):
        """Refuses a model of COMET other than that of results of the file that stay. It comes after `check` of all that come."""
        coming = {identity(result) for result in self.checked}
        for other in self.kept:
            if identity(other) not in coming and other.get("comet_signature") not in (
                None,
                signature,
            ):
                raise Refusal(
                    f"{self.path} holds COMET of {other['name']} by another model ({other['comet_signature']}); name that with "
                    "--comet, or another file with -o"
                )

    def _check_seed(self, result, others):
        """Refuses a result that is no further seed of its name among the file's results and others."""
        kept = [
            other for other in self.kept if identity(other) != identity(result)
        ]  # which it will replace
        odd = why_no_seed(result, [*kept, *others])
        if odd:
            raise Refusal(
                f"there are several of {result['name']}: {odd}; name seeds NAME@SEED=PATH, and other systems otherwise"
            )

    def add(self, result):
        """Adds a result, and writes the file where there is one; refuses models of other sizes as seeds before it is written.

        COMET of the same outputs stays where it is not measured again.
        """
        with self._continued():
            self._check_kept(result)
            self._check_seed(result, self.new)
            known = next(
                (
                    other
                    for other in self.kept
                    if all(other.get(key) == result.get(key) for key in OUTPUTS)
                ),
                {},
            )
            self.new.append({**{key: known[key] for key in COMET if key in known}, **result})

    def compare(self, pairs):
        """Adds comparisons to those that are still of these systems, and writes the file where there is one."""
        with self._continued():
            self.pairs += pairs

    @contextlib.contextmanager
    def _continued(self):
        """Takes in what another process has written meanwhile, and writes the file when the block ends; one process at a time."""
        with (
            lock(Path(self.path).absolute().parent, wait=True)
            if self.path
            else contextlib.nullcontext()
        ):
            self._take_in()
            yield
            self.pairs = pairs_among(self.pairs, self.all())
            if self.path:
                with whole_file(self.path) as file:
                    file.write(to_json(self.content()).encode())

    def content(self):
        return {"results": self.all(), "pairs": self.pairs}

    def all(self):
        named = {identity(result) for result in self.new}
        return [result for result in self.kept if identity(result) not in named] + self.new


def different(a, b):
    """What is COMPARABLE and differs between two results."""
    return [key for key in COMPARABLE if a.get(key) != b.get(key)]


def identity(result):
    return result["name"], result.get("seed")
