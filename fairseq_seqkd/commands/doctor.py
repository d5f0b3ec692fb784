"""`seqkd doctor`: what is installed, what is known to be wrong with it, and what to do about it."""

import json

from fairseq_seqkd.commands.shared import quieten


def add(commands):
    parser = commands.add_parser(
        "doctor",
        help="what is installed, what is known to be wrong with it, and what to do",
        description="Tells which Python, fairseq, torch, CTranslate2 and sacrebleu are in use, and what is known to be wrong "
        "with them. The exit code is 1 where something prevents work.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments):
    """Prints the findings. Returns 1 where one is an error."""
    quieten()
    from fairseq_seqkd import diagnosis

    found = diagnosis.examine()
    if arguments.json:
        print(json.dumps({"findings": found}, ensure_ascii=False, indent=1))
    else:
        width = max(len(finding["what"]) for finding in found)
        for finding in found:
            mark = {"ok": "ok     ", "warning": "known  ", "error": "WRONG  "}[finding["level"]]
            print(f"{mark} {finding['what']:<{width}}  {finding['says']}")
            if finding["do"]:
                print(f"{'':<{8 + width}}  -> {finding['do']}")
    return int(any(finding["level"] == "error" for finding in found))
