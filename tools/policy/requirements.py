"""`requirements.py [--write]`: which test proves which requirement of billing, kept in docs/security/BILLING.md.

A test proves what its doc comment cites: `/// [B-37]` a requirement, `/// [B17]` an incident. The last column of the tables is made from
these citations; without `--write` the program says what is wrong with the document.
"""

import argparse
import pathlib
import re
import sys

DOCUMENT = "docs/security/BILLING.md"
# What proves something of the product; tests of the simulators prove something of the simulators.
FOLDERS = ("libs", "services")
# Drills are programs: what they prove stands in their first lines, and a target of the build runs them.
DRILLS = {"proof/src/main.rs": "//proof:kills_test"}
ROW = re.compile(r"^\| (B-?\d+) \| (.+?) \| (.*) \|$")
CITATION = re.compile(r"\[(B-?\d+)\]")
FUNCTION = re.compile(r"(?:pub )?(?:async )?fn (\w+)")
TEST = re.compile(r"#\[(?:tokio::)?test[\](]")
OPEN = "not yet"
# Nothing may be added to these: what is proven stays proven.
NOT_YET = frozenset()


def tests(text):
    """Yields the name and the doc comment of each test in a Rust source."""
    doc, is_test = [], False
    for line in text.split("\n"):
        line = line.strip()
        function = FUNCTION.match(line)
        if line.startswith("///"):
            doc.append(line[3:])
        elif function and is_test:
            yield function[1], " ".join(doc)
            doc, is_test = [], False
        elif line.startswith("#["):
            is_test = is_test or bool(TEST.match(line))
        else:
            doc, is_test = [], False


def module(path):
    """`services/billing-service/tests/api/stripe.rs` as `billing-service::api::stripe`."""
    parts = path.with_suffix("").parts
    at = next(index for index, part in enumerate(parts) if part in ("src", "tests"))
    return "::".join([parts[at - 1], *(part for part in parts[at + 1 :] if part != "lib")])


def citations(root):
    """Which tests cite what: `{"B-37": ["billing-service::api::limits::a_wallet…", …]}`, sorted."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.rs")):
            for name, doc in tests(path.read_text()):
                for cited in CITATION.findall(doc):
                    found.setdefault(cited, []).append(f"{module(path.relative_to(root))}::{name}")
    for path, target in DRILLS.items():
        first = "\n".join(line for line in (root / path).read_text().split("\n") if line.startswith("//!"))
        for cited in CITATION.findall(first):
            found.setdefault(cited, []).append(target)
    return {cited: sorted(set(names)) for cited, names in found.items()}


def cell(names):
    """The last column of a row: one module after the other, each with its tests."""
    modules = {}
    for name in names:
        at, _, test = name.rpartition("::")
        modules.setdefault(at, []).append(test)
    return "; ".join(f"`{at}`: {', '.join(names)}" if at else f"`{names[0]}`" for at, names in modules.items()) or OPEN


def rows(text):
    """Yields number, requirement and last column of each row."""
    for line in text.split("\n"):
        row = ROW.match(line)
        if row:
            yield row.groups()


def not_yet(text):
    """The numbers under `## Not yet (N)`, and N."""
    part = re.search(r"^## Not yet \((\d+)\)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return (re.findall(r"^- (B-?\d+): \S", part[2], re.MULTILINE), int(part[1])) if part else ([], -1)


def written(text, cited):
    """The document with its last columns made anew."""
    def line(old):
        row = ROW.match(old)
        return f"| {row[1]} | {row[2]} | {cell(cited.get(row[1], []))} |" if row else old

    return "\n".join(line(old) for old in text.split("\n"))


def findings(text, cited):
    """One line for everything that is wrong."""
    found = list(rows(text))
    numbers = [number for number, _, _ in found]
    for expected in [f"B-{number}" for number in range(1, 83)] + [f"B{number}" for number in range(1, 29)]:
        if numbers.count(expected) != 1:
            yield f"{expected} has {numbers.count(expected)} rows"
    listed, count = not_yet(text)
    if len(listed) != count or len(set(listed)) != count:
        yield f"'Not yet' says {count} and lists {len(listed)}"
    for number in sorted(set(listed) - NOT_YET):
        yield f"{number} is under 'Not yet', and that list only shrinks"
    for number, _, column in found:
        expected = cell(cited.get(number, []))
        if column != expected:
            yield f"{number} says '{column[:60]}', its tests say '{expected[:60]}': run tools/policy/requirements.py --write"
        if expected == OPEN and number not in listed:
            yield f"{number} has no test that cites it and is not under 'Not yet'"


def main():
    """Writes the document, or prints what is wrong with it and exits with 1."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true")
    root = pathlib.Path(__file__).resolve().parents[2]
    document, cited = root / DOCUMENT, citations(root)
    if parser.parse_args().write:
        document.write_text(written(document.read_text(), cited))
    found = list(findings(document.read_text(), cited))
    print("\n".join(found) if found else f"{len(list(rows(document.read_text())))} rows, each with its tests")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
