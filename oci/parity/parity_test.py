"""The images of this folder: the bytes that rules_oci 2.3 makes of the same inputs, and readable by crane.

Arguments: the layouts of the scratch image, of the one derived from it and of the index of both, and the archive of the derived one.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

SCRATCH, DERIVED, INDEX, TARBALL = (None,) * 4
GOLDEN = pathlib.Path(__file__).parent / "golden.json"


def top(layout):
    """The descriptor of the image or index of a layout."""
    return json.loads((pathlib.Path(layout) / "index.json").read_bytes())["manifests"][0]


class Digests(unittest.TestCase):
    """The digest covers the manifest, which covers the configuration and the layers."""

    def test_the_digests_are_those_of_fixed_inputs(self):
        found = {"scratch": top(SCRATCH)["digest"], "derived": top(DERIVED)["digest"], "index": top(INDEX)["digest"]}
        self.assertEqual(found, json.loads(GOLDEN.read_text()))


@unittest.skipUnless(shutil.which("crane"), "crane is not on this machine; the toolbox has it")
class Crane(unittest.TestCase):
    """Pushes the layouts into a registry of crane's own, on loopback, and lets crane check what is there."""

    @classmethod
    def setUpClass(cls):
        cls.registry = subprocess.Popen(
            ["crane", "registry", "serve", "--address", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env={**os.environ, "HOME": os.environ.get("TEST_TMPDIR", "/tmp")}
        )
        for line in cls.registry.stderr:
            if found := re.search(r"(?:port |:)(\d{2,5})\s*$", line.strip()):
                cls.address = f"127.0.0.1:{found[1]}"
                return
        raise AssertionError("crane's registry did not say where it listens")

    @classmethod
    def tearDownClass(cls):
        cls.registry.terminate()
        cls.registry.wait()
        cls.registry.stderr.close()

    def crane(self, *arguments):
        """What crane prints."""
        environment = {**os.environ, "HOME": os.environ.get("TEST_TMPDIR", "/tmp")}
        done = subprocess.run(["crane", *arguments], capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def pushed(self, layout, name):
        """The layout's name in the registry."""
        name = f"{self.address}/{name}"
        self.crane("push", str(layout), name)
        self.assertEqual(self.crane("digest", name).strip(), top(layout)["digest"])
        return name

    def texts(self, name):
        """The text files of an image's file system, as crane puts the layers together. (Its full validation takes every layer for gzip.)"""
        with tempfile.TemporaryDirectory() as folder:
            archive = f"{folder}/files.tar"
            self.crane("export", name, archive)
            with tarfile.open(archive) as tar:
                return {member.name.lstrip("./"): tar.extractfile(member).read().decode() for member in tar if member.isfile()}

    def test_crane_validates_a_scratch_image_and_reads_its_configuration(self):
        name = self.pushed(SCRATCH, "scratch:a")
        self.crane("validate", "--fast", "--remote", name)
        config = json.loads(self.crane("config", name))["config"]
        self.assertEqual((config["User"], config["Entrypoint"], config["Cmd"]), ("1001:1001", ["/app/hello"], ["serve", "--verbose"]))
        self.assertEqual(set(config["ExposedPorts"]), {"8080/tcp", "9090"})
        self.assertIn("GREETING=grüße <&>", config["Env"])
        self.assertEqual(self.texts(name), {"data/first.txt": "The first layer.\n"})

    def test_crane_validates_a_derived_image_with_the_layers_of_both(self):
        name = self.pushed(DERIVED, "derived:a")
        self.crane("validate", "--fast", "--remote", name)
        self.assertEqual(len(json.loads(self.crane("manifest", name))["layers"]), 2)
        config = json.loads(self.crane("config", name))["config"]
        self.assertEqual((config["Entrypoint"], config["WorkingDir"], config["User"]), (["/app/other"], "/app", "1001:1001"))
        self.assertNotIn("Cmd", config)
        self.assertLessEqual({"PATH=/app:/bin", "NEW=UTC!", "TZ=UTC"}, set(config["Env"]))
        self.assertEqual(config["Labels"], {"a": "1", "b": "2", "c": "3"})
        self.assertEqual(self.texts(name), {"data/first.txt": "The first layer.\n", "data/second.txt": "The second layer.\n"})

    def test_crane_validates_an_index_and_each_image_of_it(self):
        name = self.pushed(INDEX, "index:a")
        self.crane("validate", "--fast", "--remote", name)
        manifests = json.loads(self.crane("manifest", name))["manifests"]
        self.assertEqual([entry["digest"] for entry in manifests], [top(DERIVED)["digest"], top(SCRATCH)["digest"]])
        self.assertEqual({(entry["platform"]["os"], entry["platform"]["architecture"]) for entry in manifests}, {("linux", "amd64")})

    def test_crane_validates_the_archive_that_is_loaded(self):
        self.crane("validate", "--tarball", TARBALL)


if __name__ == "__main__":
    SCRATCH, DERIVED, INDEX, TARBALL = sys.argv[1:5]
    unittest.main(argv=sys.argv[:1])
