"""Finds the commands in the documents that are marked as runnable, and runs them.

A fenced block is runnable when the line before it is an HTML comment `<!-- run: KIND -->`. The blocks of one kind in one
file share one shell, so that a later block may use what an earlier one set. Kinds:

* `stack`: needs a started stack; the published ports may be mapped to others.
* `repo`: needs only the checkout.
"""

import argparse
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

MARK = re.compile(r"^<!-- run: (?P<kind>[a-z]+) -->\s*$")
FENCE = re.compile(r"^```(?P<language>[a-z]*)\s*$")
KINDS = ("repo", "stack")
LANGUAGES = ("sh", "bash", "shell")


class Example(NamedTuple):
    """One runnable block: its kind, the line of its fence (from 1) and its text."""

    kind: str
    line: int
    script: str


class DocumentError(Exception):
    """A mark that stands over nothing, or names an unknown kind or language."""


def examples(text):
    """Yields the runnable blocks of a Markdown text, in order."""
    kind, block = None, None
    for number, line in enumerate(text.split("\n"), start=1):
        if block is not None:
            if line.strip() == "```":
                if block[0]:
                    yield Example(block[0], block[1], "\n".join(block[2]) + "\n")
                block = None
            else:
                block[2].append(line)
            continue
        fence = FENCE.match(line)
        if kind and not fence:
            raise DocumentError(f"line {number}: a run mark must stand right before a fenced block")
        if fence:
            if kind and fence["language"] not in LANGUAGES:
                raise DocumentError(f"line {number}: a runnable block must be one of {', '.join(LANGUAGES)}")
            block, kind = (kind, number, []), None
            continue
        mark = MARK.match(line)
        if mark:
            kind = mark["kind"]
            if kind not in KINDS:
                raise DocumentError(f"line {number}: unknown kind {kind}, known are {', '.join(KINDS)}")
    if kind or block is not None:
        raise DocumentError("the text ends inside a block or after a run mark")


def script(found, ports):
    """One shell script of several blocks; `ports` maps published ports to the ones in use."""
    text = "".join(f"printf '\\n# line {example.line}\\n' >&2\n{example.script}" for example in found)
    return re.sub(r"(localhost|127\.0\.0\.1):(\d+)", lambda m: f"{m[1]}:{ports.get(m[2], m[2])}", text)


def main():
    """Runs the blocks of one kind of each file; exits with 1 when one fails."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--port", action="append", default=[], metavar="PUBLISHED=USED")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for the blocks of one file")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    ports = dict(pair.split("=", 1) for pair in args.port)
    failed = 0
    for file in args.files:
        found = [example for example in examples(file.read_text()) if example.kind == args.kind]
        if not found:
            continue
        run = subprocess.run(["bash", "-euo", "pipefail", "-c", script(found, ports)], timeout=args.timeout)
        print(f"{file}: {len(found)} {args.kind} blocks {'ran' if run.returncode == 0 else 'FAILED'}", flush=True)
        failed += run.returncode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
