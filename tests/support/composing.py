"""Composes fairseq's configurations from ones composed before: hydra spends half a second on each.

`commands.run_here` uses it. tests/robustness/test_bad_inputs.py compares its results with hydra's.
"""

import contextlib
import copy
import functools
from typing import Any, Dict, FrozenSet, Iterator, List, Tuple

from fairseq.dataclass import utils as fairseq_utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

compose_by_hydra = fairseq_utils.compose
_parse = functools.lru_cache(maxsize=None)(OverridesParser.create().parse_override)

# The task, the criterion and so on, and which options there are: (all overrides, configuration).
_composed: Dict[Tuple[str, ...], Tuple[FrozenSet[str], DictConfig]] = {}


def compose(name: str, overrides: List[str], strict: bool) -> DictConfig:
    """Returns what hydra's `compose` returns, which is called once for each set of options."""
    parsed = [_parse(text) for text in overrides]
    kind = tuple(
        text if "." not in override.key_or_group else override.key_or_group
        for text, override in zip(overrides, parsed)
    )
    if kind not in _composed:
        config = compose_by_hydra(name, overrides=overrides, strict=strict)
        _composed[kind] = (frozenset(overrides), config)
    known, config = _composed[kind][0], copy.deepcopy(_composed[kind][1])
    for text, override in zip(overrides, parsed):
        if text not in known:
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return config


@contextlib.contextmanager
def compose_quickly() -> Iterator[Any]:
    """Puts `compose` in the place of hydra's while the context lasts."""
    before, fairseq_utils.compose = fairseq_utils.compose, compose
    try:
        yield
    finally:
        fairseq_utils.compose = before
