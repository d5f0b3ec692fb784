"""The recipes of public benchmarks on archives of their shape: the text that is cut, and every
command of --try.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
from commands import ROOT

from recipes import recipe

RECIPES = ROOT / "recipes"
WORDS = {
    "de": ["Haus", "Hund", "geht", "schnell", "ja,", "nein!"],
    "en": ["house", "dog", "goes", "fast", "yes,", "no!"],
}
WORDS["th"] = ["บ้าน", "หมา", "ไป", "เร็ว", "ใช่", "ไม่"]
TALK = "<url>http://ted.com</url>\n<talkid>1</talkid>\n<title>{title}</title>\n<description>{title}</description>\n"


def sentences(lang, count, seed=0):
    """Lines of the toy language: word for word the same in every language."""
    found = []
    for i in range(count):
        picked = [(i * 7 + j * (3 + i % 5) + seed) % 6 for j in range(3 + i % 6)]
        found.append(("" if lang == "th" else " ").join(WORDS[lang][word] for word in picked))
    return found


def xml(lines):
    return (
        "<mteval>\n<doc>\n"
        + "".join(f'<seg id="{n}"> {line} </seg>\n' for n, line in enumerate(lines, 1))
        + "</doc>\n</mteval>\n"
    )


def pack(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            content = text.encode()
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def iwslt14(folder):
    files = {}
    for lang in ("de", "en"):
        files[f"train.tags.de-en.{lang}"] = (
            TALK.format(title=sentences(lang, 1)[0]) + "\n".join(sentences(lang, 400)) + "\n"
        )
        for seed, name in enumerate(
            ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
        ):
            files[f"IWSLT14.{name}.de-en.{lang}.xml"] = xml(sentences(lang, 6, seed))
    pack(folder / "de-en.tgz", files)


def wmt14(folder):
    names = {
        "europarl-v7": "europarl-v7",
        "commoncrawl": "commoncrawl",
        "nc-v9": "news-commentary-v9",
    }
    for seed, (name, stem) in enumerate(names.items()):
        texts = {
            f"{stem}.de-en.{lang}": "\n".join(sentences(lang, 200, seed)) + "\n"
            for lang in ("de", "en")
        }
        pack(folder / f"training-parallel-{name}.tgz", texts)
    sides = {"src.en": "en", "ref.de": "de"}
    pack(
        folder / "test-full.tgz",
        {f"newstest2014-deen-{side}.sgm": xml(sentences(lang, 9)) for side, lang in sides.items()},
    )


def iwslt15(folder):
    files = {}
    for lang in ("th", "en"):
        files[f"train.tags.th-en.{lang}"] = (
            TALK.format(title=sentences(lang, 1)[0]) + "\n".join(sentences(lang, 400)) + "\n"
        )
        for year in range(2010, 2014):
            files[f"IWSLT15.TED.tst{year}.th-en.{lang}.xml"] = xml(sentences(lang, 5, year))
    pack(folder / "th-en.tgz", files)


MAKE = {"iwslt14_de_en": iwslt14, "wmt14_en_de": wmt14, "iwslt15_th_en": iwslt15}


def cut(what, folder, out):
    command = [sys.executable, RECIPES / "benchmark_text.py", what, folder, "-o", out]
    return subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def tokens(line):
    """A line of the toy language as Moses' tokenizer cuts it."""
    return line.replace(",", " ,").replace("!", " !")


def lines(path):
    return path.read_text().splitlines()


def test_iwslt14_is_cut_as_fairseqs_script_does(tmp_path):
    iwslt14(tmp_path)
    done = cut("iwslt14", tmp_path, tmp_path / "text")
    assert done.returncode == 0, done.stdout
    every = [tokens(line.lower()) for line in sentences("de", 1) * 2 + sentences("de", 400)]
    assert lines(tmp_path / "text" / "valid.de") == every[22::23]
    assert lines(tmp_path / "text" / "train.de") == [
        line for n, line in enumerate(every, 1) if n % 23
    ]
    assert len(lines(tmp_path / "text" / "test.en")) == 30 and not any(
        "<" in line for line in lines(tmp_path / "text" / "test.en")
    )


def test_wmt14_is_normalised_and_cut_at_hyphens(tmp_path):
    wmt14(tmp_path)
    pairs = {"en": "A well-known “house”\tBarks !", "de": "Ein wohl-bekanntes „Haus“ bellt!"}
    pack(
        tmp_path / "training-parallel-nc-v9.tgz",
        {f"news-commentary-v9.de-en.{lang}": f"{pairs[lang]}\n" for lang in pairs},
    )
    done = cut("wmt14", tmp_path, tmp_path / "text")
    assert done.returncode == 0, done.stdout
    for lang, last in (
        ("en", "A well @-@ known &quot; house &quot; Barks !"),
        ("de", "Ein wohl @-@ bekanntes &quot; Haus &quot; bellt !"),
    ):
        train, valid = (
            lines(tmp_path / "text" / f"{split}.{lang}") for split in ("train", "valid")
        )
        every = [tokens(line) for seed in (0, 1) for line in sentences(lang, 200, seed)]
        assert valid == every[99::100] and train == [
            line for n, line in enumerate(every, 1) if n % 100
        ] + [last]
        assert lines(tmp_path / "text" / f"test.{lang}") == [
            tokens(line) for line in sentences(lang, 9)
        ]


def test_iwslt15_stays_raw(tmp_path):
    iwslt15(tmp_path)
    done = cut("iwslt15", tmp_path, tmp_path / "text")
    assert done.returncode == 0, done.stdout
    for lang in ("th", "en"):
        train, valid, test = (
            lines(tmp_path / "text" / f"{split}.{lang}") for split in ("train", "valid", "test")
        )
        assert train == sentences(lang, 1) * 2 + sentences(lang, 400)
        assert valid == sentences(lang, 5, 2010) + sentences(lang, 5, 2011)
        assert test == sentences(lang, 5, 2012) + sentences(lang, 5, 2013)


def test_clean_keeps_what_moses_keeps(tmp_path):
    pairs = [
        ("a b c", "x y"),
        ("a b c d", "x y"),
        ("", "x"),
        ("a " * 251, "x " * 251),
        ("a " * 250, "x " * 250),
    ]
    for split in ("train", "valid", "test"):
        for side, lang in enumerate(("de", "en")):
            (tmp_path / f"{split}.bpe.{lang}").write_text(
                "".join(pair[side] + "\n" for pair in pairs)
            )
    assert cut("clean", tmp_path, tmp_path).returncode == 0
    kept = [pairs[0][0], pairs[4][0]]
    assert lines(tmp_path / "train.clean.de") == lines(tmp_path / "valid.clean.de") == kept
    assert len(lines(tmp_path / "test.clean.en")) == 5


def test_damaged_archives_are_refused(tmp_path):
    (tmp_path / "de-en.tgz").write_bytes(b"\x1f\x8b damaged")
    done = cut("iwslt14", tmp_path, tmp_path / "text")
    assert (
        done.returncode != 0 and "cannot be read" in done.stdout and "Traceback" not in done.stdout
    )
    pack(
        tmp_path / "de-en.tgz",
        {"train.tags.de-en.de": "eins\nzwei\n", "train.tags.de-en.en": "one\n"},
    )
    done = cut("iwslt14", tmp_path, tmp_path / "text")
    assert done.returncode != 0 and "one language ends before the other" in done.stdout


@pytest.mark.slow
def test_archives_are_compared_with_their_checksums(tmp_path):
    iwslt14(tmp_path)
    done = recipe(
        RECIPES / "iwslt14_de_en.sh", tmp_path, "--data", tmp_path, "--work", tmp_path / "work"
    )
    found = hashlib.md5((tmp_path / "de-en.tgz").read_bytes()).hexdigest()
    refusal = f"has the md5 {found}, it should have 10936dfdf616504ddbd844e91b94ef4a"
    assert done.returncode != 0 and refusal in done.stdout
    # What was taken unchecked once is compared when that is no longer said. A data-bin that is none
    # ends the run behind it.
    (tmp_path / "work" / "done").mkdir(exist_ok=True)
    for name in ("text", "pieces", "binarise"):
        (tmp_path / "work" / "done" / name).touch()
    for unchecked in (["--unchecked"], []):
        done = recipe(
            RECIPES / "iwslt14_de_en.sh",
            tmp_path,
            "--data",
            tmp_path,
            "--work",
            tmp_path / "work",
            *unchecked,
        )
        assert done.returncode != 0 and ("teacher: FAILED" in done.stdout) == bool(unchecked) != (
            refusal in done.stdout
        )
    done = recipe(
        RECIPES / "wmt14_en_de.sh", tmp_path, "--data", tmp_path, "--work", tmp_path / "wmt"
    )
    assert (
        done.returncode != 0
        and "has no training-parallel-europarl-v7.tgz; it is at http" in done.stdout
    )


def test_without_a_network_it_says_what_to_do(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "curl").write_text(
        "#!/bin/sh\necho 'curl: (6) Could not resolve host' >&2\nexit 6\n"
    )
    (tmp_path / "bin" / "curl").chmod(0o755)
    script = (
        f'PATH="{tmp_path / "bin"}:$PATH" exec bash {RECIPES / "iwslt15_th_en.sh"} '
        f"--work {tmp_path / 'work'}"
    )
    (tmp_path / "offline.sh").write_text(script)
    done = recipe(tmp_path / "offline.sh", tmp_path)
    assert (
        done.returncode != 0
        and "Could not resolve host" in done.stdout
        and "name its folder with --data" in done.stdout
    )
    assert not list((tmp_path / "work" / "downloads").iterdir())


def test_a_page_in_place_of_an_archive_is_not_kept(tmp_path):
    """Where no checksum is known, the first download's would count for ever; the next one finds its
    way.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "curl").write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\necho "<html>log in</html>" >"$2"\n'
    )
    (tmp_path / "bin" / "curl").chmod(0o755)
    script = (
        f'PATH="{tmp_path / "bin"}:$PATH" exec bash {RECIPES / "iwslt15_th_en.sh"} '
        f'--work {tmp_path / "work"} "$@"'
    )
    (tmp_path / "page.sh").write_text(script)
    for given in ([], ["--data", tmp_path]):
        (tmp_path / "th-en.tgz").write_text("<html>log in</html>")
        done = recipe(tmp_path / "page.sh", tmp_path, *given)
        assert (
            done.returncode != 0 and "what was fetched as th-en.tgz is no archive" in done.stdout
        ), done.stdout[-2000:]
        assert (
            not list((tmp_path / "work" / "downloads").iterdir())
            and (tmp_path / "th-en.tgz").exists()
        )


@pytest.mark.parametrize(
    "name",
    [
        "iwslt15_th_en",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("iwslt14_de_en", "wmt14_en_de")),
    ],
)
def test_every_command_of_a_recipe_runs(name, tmp_path):
    MAKE[name](tmp_path)
    words = [
        "--data",
        tmp_path,
        "--unchecked",
        "--try",
        "--work",
        tmp_path / "work",
        "--max-tokens",
        600,
    ]
    done = recipe(RECIPES / f"{name}.sh", tmp_path, *words, "--", "--jobs", 2)
    assert done.returncode == 0, done.stdout[-4000:]
    rows = json.loads((tmp_path / "work" / "students" / "report.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Teacher", "Student", "Seq-KD", "Seq-KD + Seq-Inter"]


@pytest.mark.slow
def test_the_papers_tables_from_end_to_end(tmp_path):
    """examples/multi30k/paper.sh, every part of it, on toy text and with a 400th of its updates."""
    sizes = {"train": 300, "val": 20, "test_2016_flickr": 24, "test_2017_flickr": 17}
    for seed, (name, count) in enumerate(sizes.items()):
        for lang in ("de", "en"):
            with gzip.open(tmp_path / f"{name}.{lang}.gz", "wt") as file:
                file.writelines(line + "\n" for line in sentences(lang, count, seed))
    paper = ROOT / "examples" / "multi30k" / "paper.sh"
    words = [
        "--text",
        tmp_path,
        "--train-teacher",
        "--work",
        tmp_path / "work",
        "--shorten",
        400,
        "--seeds",
        "1,2",
    ]
    done = recipe(paper, tmp_path, *words)
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads((tmp_path / "work" / "results.json").read_text())
    names = [
        "Teacher",
        "Teacher + Seq-Inter",
        "Student",
        "Word-KD",
        "Seq-KD",
        "Student + Seq-Inter",
        "Word-KD + Seq-Inter",
    ]
    names += ["Seq-KD + Seq-Inter", "Seq-KD + Word-KD", "Seq-KD + Seq-Inter + Word-KD"]
    for pair in ("transformer", "lstm"):
        for student in ("small", "medium"):
            for test in ("test_2016_flickr", "test_2017_flickr"):
                rows = [
                    r
                    for r in found["table1"]
                    if (r["pair"], r["student"], r["test"]) == (pair, student, test)
                ]
                assert [row["name"] for row in rows] == names
                assert rows[0]["seeds"] == [None] and rows[4]["seeds"] == [1, 2]
                assert rows[4]["bleu_greedy"]["mean"] == pytest.approx(
                    sum(rows[4]["bleu_greedy"]["seeds"]) / 2
                )
                assert (
                    rows[4]["bleu_greedy"]["std"] is not None
                    and rows[0]["bleu_greedy"]["std"] is None
                )
    assert {row["engine"] for row in found["table2"] if row["pair"] == "lstm"} == {"fairseq"}
    shares = [row["pruned"] for row in found["table3"] if row["test"] == "test_2016_flickr"]
    assert shares == pytest.approx([0, 0, 0, 0.5, 0.5, 0.8, 0.8, 0.85, 0.85, 0.9, 0.9], abs=0.02)
    assert len([row for row in found["sweeps"] if row["test"] == "val"]) == 13
    # From a teacher that is there, as --model takes it: its dictionary and its pieces, and what it
    # is trained further from.
    model = tmp_path / "model"
    (model / "data-bin").mkdir(parents=True)
    for name, source in (
        ("teacher.pt", "transformer/teacher/checkpoint_last.pt"),
        ("spm.model", "text/spm.model"),
        ("data-bin/dict.de.txt", "bin/dict.de.txt"),
    ):
        shutil.copy(tmp_path / "work" / source, model / name)
    further = [
        "--text",
        tmp_path,
        "--model",
        model,
        "--work",
        tmp_path / "further",
        "--shorten",
        400,
    ]
    done = recipe(
        paper, tmp_path, *further, "--pairs", "transformer", "--students", "small", "table1"
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert [
        row["name"]
        for row in json.loads((tmp_path / "further" / "results.json").read_text())["table1"]
    ][:10] == names
    assert (tmp_path / "further" / "text" / "train.spm.de").read_text() == (
        tmp_path / "work" / "text" / "train.spm.de"
    ).read_text()
    again = recipe(paper, tmp_path, *words, "results")
    assert again.returncode == 0 and (tmp_path / "work" / "RESULTS.md").read_text().startswith(
        "# Kim & Rush (2016)"
    )
    assert "hours of stages; 2 ran side by side" in again.stdout
    fewer = recipe(paper, tmp_path, *words, "--pairs", "lstm", "--students", "small")
    assert fewer.returncode == 0, fewer.stdout[-4000:]
    assert re.findall(r"^(?:table\d|sweeps)$", fewer.stdout, re.MULTILINE) == ["table1", "table2"]
    assert (
        "bench@lstm.small: " in fewer.stdout and "train@lstm.small.student.1: there" in fewer.stdout
    )
    assert "prune@" not in fewer.stdout and "evaluate_sweeps@" not in fewer.stdout
