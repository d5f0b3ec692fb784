"""Recipes, run by the tests as a user runs them."""

import subprocess
import sys

import helpers
import warm


def recipe(script, folder, *words):
    """Runs a recipe with commands that start warm; `folder` is for what that takes."""
    (folder / "warm").mkdir(exist_ok=True)
    shims = warm.shims(folder / "warm", helpers.BIN)
    environment = helpers.environment(
        VIRTUAL_ENV=sys.prefix, PATH=f"{shims}:{helpers.BIN}:/usr/local/bin:/usr/bin:/bin"
    )
    return subprocess.run(
        ["bash", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
