"""Packaging of fairseq_seqkd: the metadata is in pyproject.toml."""

from setuptools import setup

setup()
