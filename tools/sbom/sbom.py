"""`sbom CARGO_LOCK PACKAGE`: a CycloneDX 1.5 list of the crates a package is made of, by what Cargo.lock says.

Cargo.lock does not tell dependencies of tests from others, so the package's own manifest decides where its graph begins; below
that the lock's edges are followed. Deterministic: no time, no serial number.
"""

import json
import pathlib
import sys
import tomllib


def key(entry, packages):
    """The package that a dependency of the lock file means: `name`, or `name version` where there are several."""
    name, _, version = entry.partition(" ")
    return next(p for p in packages if p["name"] == name and (not version or p["version"] == version.split(" ")[0]))


def reachable(lock, package):
    """The crates from the registry that the package needs, sorted."""
    packages = lock["package"]
    tests = {"testkit", "proptest", "llm-simulator", "stripe-simulator", "async-stripe-shared"}
    seen, queue = {}, [key(package, packages)]
    while queue:
        current = queue.pop()
        identity = (current["name"], current["version"])
        if identity in seen:
            continue
        seen[identity] = current
        ours = "source" not in current
        for dependency in current.get("dependencies", []):
            if not (ours and dependency.split(" ")[0] in tests):
                queue.append(key(dependency, packages))
    return [seen[identity] for identity in sorted(seen) if "source" in seen[identity]]


def sbom(lock, package):
    """The document."""
    components = [
        {
            "type": "library",
            "name": crate["name"],
            "version": crate["version"],
            "purl": f"pkg:cargo/{crate['name']}@{crate['version']}",
            **({"hashes": [{"alg": "SHA-256", "content": crate["checksum"]}]} if "checksum" in crate else {}),
        }
        for crate in reachable(lock, package)
    ]
    version = key(package, lock["package"])["version"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": package, "version": version}},
        "components": components,
    }


def main():
    """Prints the document."""
    lock = tomllib.loads(pathlib.Path(sys.argv[1]).read_text())
    json.dump(sbom(lock, sys.argv[2]), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
