"""Packaging of fairseq_seqkd. The dependencies are explained where they are listed; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
HAS_WHEEL = 'python_version>="3.11" and python_version<"3.13" and sys_platform=="linux" and platform_machine=="x86_64"'
HAS_NONE = 'python_version>="3.13" or (python_version>="3.11" and (sys_platform!="linux" or platform_machine!="x86_64"))'


def version():
    for line in (HERE / "fairseq_seqkd" / "version.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("fairseq_seqkd/version.py has no __version__")


setup(
    name="fairseq_seqkd",
    version=version(),
    description="Sequence-level knowledge distillation (Kim & Rush, 2016) as a plugin for an unmodified fairseq",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["fairseq_seqkd", "fairseq_seqkd.*"]),
    package_data={"fairseq_seqkd.report": ["*.j2"]},
    python_requires=">=3.9",
    install_requires=[
        # No official fairseq release imports on Python 3.11 and later (fairseq issue 5012): a build of upstream's main does.
        # It has wheels for two of them; another build is compiled elsewhere.
        f"ve-fairseq==0.12.3; {HAS_WHEEL}",
        f"fairseq-fixed==0.12.3.1; {HAS_NONE}",
        'fairseq==0.12.2; python_version<"3.11"',
        # Generation with fairseq 0.12.2 dies with torch 1.13. An older torch cannot load with weights only, so there
        # the package installs, and refuses to read checkpoints.
        'torch>=2.6,<2.14; python_version>="3.11"',
        'torch<1.13; python_version<"3.11"',
        "sacrebleu>=2.4,<3",  # similarity to gold, and every BLEU that is reported
        "sentencepiece>=0.2,<0.3",  # subwords of the recipes, and --bpe sentencepiece
        "safetensors>=0.4.3,<1",  # the n-best store: memory-mapped, and no pickle
        'numpy>=1.26,<3; python_version>="3.11"',
        'numpy<1.24; python_version<"3.11"',  # fairseq 0.12.2 uses names that 1.24 removed
        "tqdm>=4.62,<5",  # progress bars
    ],
    extras_require={
        # The source of fastBPE 0.1.0 holds C++ that Python 3.11 no longer compiles. Cython makes it anew:
        #   pip install cython && pip install --no-build-isolation -e ".[fastbpe]"
        "fastbpe": ["fastBPE==0.1.0"],
        # The fast engine of teacher_decoding, and of exported students.
        "ctranslate2": ["ctranslate2>=4.8.2,<5"],
        "report": ["matplotlib>=3.9,<4", "jinja2>=3,<4"],  # pictures and the page of `seqkd report`
        "benchmarks": [
            "sacremoses>=0.1,<1",
            "subword-nmt>=0.3.8,<1",
        ],  # how published baselines cut their text
        "browser": ["selenium>=4.20,<5"],  # for the tests of that page
        "test": [
            "ctranslate2>=4.8.2,<5",
            "matplotlib>=3.9,<4",
            "pytest>=8,<10",
            "pytest-xdist>=3.5,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.6,<1",
            "sacremoses>=0.1,<1",
            "subword-nmt>=0.3.8,<1",
            "tensorboard>=2.15,<3",
            "tensorboardX>=2.6,<3",
        ],  # fmt: skip
    },
    entry_points={"console_scripts": ["seqkd=fairseq_seqkd.cli:main"]},
    classifiers=["License :: OSI Approved :: MIT License", "Programming Language :: Python :: 3"],
)
