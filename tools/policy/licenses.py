"""`licenses.py`: fails when a crate that the product is built of has a licence that deny.toml does not list, or comes from elsewhere than the registry.

Reads `cargo metadata` of the locked, fetched workspace. The same rules as `cargo deny check licenses sources`, for machines that do not have it.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

TOKEN = re.compile(r"\(|\)|[A-Za-z0-9.+-]+")


def allowed(expression, licenses):
    """Whether an SPDX expression (annex D) can be fulfilled by the licences; `/` is what older crates write for OR."""
    tokens = TOKEN.findall(expression.replace("/", " OR "))

    def term():
        token = tokens.pop(0)
        if token == "(":
            value = disjunction()
            tokens.pop(0)
            return value
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in licenses

    def conjunction():
        value = term()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            value = term() and value
        return value

    def disjunction():
        value = conjunction()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            value = conjunction() or value
        return value

    return bool(tokens) and disjunction() and not tokens


def findings(metadata, licenses):
    """One line for each crate that may not be in the product."""
    members = set(metadata["workspace_members"])
    for package in metadata["packages"]:
        if package["id"] in members:
            continue
        name = f"{package['name']} {package['version']}"
        if not (package["source"] or "").startswith("registry+"):
            yield f"{name} comes from {package['source']}"
        if not allowed(package["license"] or "", licenses):
            yield f"{name} is licensed {package['license']}"


def main():
    """Prints the findings; exits with 1 when there are any."""
    root = pathlib.Path(__file__).resolve().parents[2]
    licenses = set(tomllib.loads((root / "deny.toml").read_text())["licenses"]["allow"])
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True).stdout)
    found = sorted(findings(metadata, licenses))
    print("\n".join(found) if found else f"{len(metadata['packages'])} crates, all of them licensed as deny.toml allows")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
