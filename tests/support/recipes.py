"""Runs recipes as a user does, but with commands that start quickly."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import warm
from commands import BIN, environment_with


def recipe(script: Path, folder: Path, *words: Any) -> "subprocess.CompletedProcess[str]":
    """Runs a recipe in a process of its own.

    Args:
        script: the recipe.
        folder: where the commands that it finds on PATH are put.
        words: its arguments.
    """
    (folder / "warm").mkdir(exist_ok=True)
    shims = warm.shims(folder / "warm", BIN)
    path = f"{shims}:{BIN}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        ["bash", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_with(VIRTUAL_ENV=sys.prefix, PATH=path),
    )
