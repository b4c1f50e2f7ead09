"""H-15: the layers below the program have the same digests in every image, so that they are stored and sent once."""

import json
import pathlib
import sys


def layers(layout):
    """The digests of a layout's layers, bottom to top."""
    root = pathlib.Path(layout)
    blob = lambda digest: json.loads((root / "blobs" / digest.replace(":", "/")).read_bytes())
    top = json.loads((root / "index.json").read_bytes())["manifests"][0]
    return [layer["digest"] for layer in blob(top["digest"])["layers"]]


def main():
    """Exits with 1 when two images differ below their program."""
    shared = {layout: layers(layout)[:-1] for layout in sys.argv[1:]}
    assert len(shared) > 1, "one image shares with nobody"
    assert all(len(below) == 2 for below in shared.values()), shared
    assert len({tuple(below) for below in shared.values()}) == 1, f"H-15: lower layers differ: {shared}"


if __name__ == "__main__":
    main()
