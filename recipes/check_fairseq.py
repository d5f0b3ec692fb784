#!/usr/bin/env python3
"""Compare the installed fairseq with upstream's sources, file by file.

    git clone https://github.com/facebookresearch/fairseq clone
    python recipes/check_fairseq.py clone

Compares every installed Python and Cython file of fairseq and fairseq_cli with the same file of a
revision, and prints the lines that differ. Upstream's examples/ is installed as fairseq/examples.
Compiled files cannot be compared.
"""

import argparse
import difflib
import hashlib
import importlib.util
import posixpath
import subprocess
import sys
from pathlib import Path

PACKAGES = ("fairseq", "fairseq_cli")
LINK = "120000"  # git's mode of a symbolic link
BUILT_FROM = "ecbf110e"  # main on 2024-10-18, whose sources ve-fairseq 0.12.3 has


def git(clone, *words):
    done = subprocess.run(["git", "-C", clone, *words], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(
            f"check_fairseq: git cannot read {' '.join(words)} in {clone}; "
            "name a clone of fairseq and a revision in it"
        )
    return done.stdout


def blobs(clone, revision):
    """{installed path: git hash} of a revision's files; links are followed."""
    found, links = {}, {}
    for line in git(clone, "ls-tree", "-r", revision).decode().splitlines():
        facts, path = line.split("\t", 1)
        mode, _, blob = facts.split()
        if mode == LINK:
            links[path] = posixpath.normpath(
                posixpath.join(
                    posixpath.dirname(path), git(clone, "cat-file", "blob", blob).decode()
                )
            )
        else:
            found[path] = blob
    for link, target in links.items():
        for path in [path for path in found if path == target or path.startswith(f"{target}/")]:
            found[link + path[len(target) :]] = found[path]
    return {
        f"fairseq/{path}" if path.startswith("examples/") else path: blob
        for path, blob in found.items()
    }


def installed():
    """(path as upstream has it, file) of every source file that is installed."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"check_fairseq: {package} is not installed")
        folder = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(folder.rglob("*.py*")):
            if file.suffix in (".py", ".pyx"):
                yield f"{package}/{file.relative_to(folder)}", file


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", help="a git clone of fairseq")
    parser.add_argument("revision", nargs="?", default=BUILT_FROM, help="default: %(default)s")
    arguments = parser.parse_args()
    upstream, same, different, unknown = blobs(arguments.clone, arguments.revision), 0, [], []
    for path, file in installed():
        content = file.read_bytes()
        if path not in upstream:
            unknown.append(path)
        elif hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == upstream[path]:
            same += 1
        else:
            different.append(path)
            theirs = git(arguments.clone, "cat-file", "blob", upstream[path]).decode().splitlines()
            sys.stdout.writelines(
                line.rstrip("\n") + "\n"
                for line in difflib.unified_diff(
                    theirs,
                    content.decode().splitlines(),
                    f"upstream/{path}",
                    f"installed/{path}",
                    n=0,
                )
            )
    known = {path for path, _ in installed()}
    absent = [
        path
        for path in upstream
        if path.split("/")[0] in PACKAGES and path.endswith((".py", ".pyx")) and path not in known
    ]
    print(
        f"{same} files are upstream's of {arguments.revision}, "
        f"{len(different)} differ: {', '.join(different) or 'none'}"
    )
    print(f"not upstream's: {', '.join(unknown) or 'none'}; ", end="")
    print(f"not installed: {', '.join(absent) or 'none'}")


if __name__ == "__main__":
    main()
