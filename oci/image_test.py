"""The rules of an image (H-1 to H-20), read from its files; no daemon is asked.

Arguments: layout folder, SBOM, name, port, budget in 10^6 bytes.
"""

import io
import json
import pathlib
import re
import stat
import struct
import sys
import tarfile
import unittest

LAYOUT, SBOM, NAME, PORT, BUDGET = (None,) * 5


class Image(unittest.TestCase):
    """One case for each rule; its number is in the message."""

    @classmethod
    def setUpClass(cls):
        root = pathlib.Path(LAYOUT)
        cls.blob = staticmethod(lambda digest: (root / "blobs" / digest.replace(":", "/")).read_bytes())
        top = json.loads((root / "index.json").read_bytes())["manifests"][0]
        cls.manifest = json.loads(cls.blob(top["digest"]))
        cls.image = json.loads(cls.blob(cls.manifest["config"]["digest"]))
        cls.config = cls.image["config"]
        cls.files = {}
        for layer in cls.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(cls.blob(layer["digest"]))) as tar:
                for member in tar:
                    data = tar.extractfile(member).read() if member.isfile() else None
                    cls.files["/" + member.name.strip("./")] = (member, data)
        cls.program = cls.files[f"/app/{NAME}"]

    def test_h1_the_user_is_a_number_other_than_root(self):
        self.assertEqual(self.config["User"], "1001:1001", "H-1")

    def test_h2_there_is_no_shell_and_nothing_but_the_program_can_be_run(self):
        runnable = [path for path, (member, _) in self.files.items() if member.isfile() and member.mode & 0o111]
        self.assertEqual(runnable, [f"/app/{NAME}"], "H-2")

    def test_h4_no_file_is_setuid_or_setgid(self):
        for path, (member, _) in self.files.items():
            self.assertFalse(member.mode & (stat.S_ISUID | stat.S_ISGID), f"H-4: {path}")

    def test_h5_no_file_is_owned_or_writable_by_the_user(self):
        for path, (member, _) in self.files.items():
            self.assertEqual((member.uid, member.gid), (0, 0), f"H-5: {path}")
            if member.isfile():
                self.assertFalse(member.mode & 0o222, f"H-5: {path} is writable ({member.mode:o})")
            else:
                self.assertFalse(member.mode & 0o022, f"H-5: {path} is writable ({member.mode:o})")

    def test_h6_the_program_may_be_read_and_run_by_all_and_changed_by_none(self):
        self.assertEqual(self.program[0].mode, 0o555, "H-6")

    def test_h7_no_secret_and_no_fixture_is_in_a_layer(self):
        expected = {"/app/" + NAME, "/etc/group", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt"}
        self.assertEqual({path for path, (member, _) in self.files.items() if member.isfile()}, expected, "H-7")
        for path, (_, data) in self.files.items():
            if data and path != f"/app/{NAME}":
                self.assertNotIn(b"PRIVATE KEY", data, f"H-7: {path}")

    def test_h8_no_default_of_the_environment_is_a_credential(self):
        names = [entry.split("=", 1)[0] for entry in self.config.get("Env", [])]
        self.assertEqual(names, ["SSL_CERT_FILE"], "H-8")

    def test_h9_the_entrypoint_is_the_program_itself(self):
        self.assertEqual(self.config["Entrypoint"], [f"/app/{NAME}"], "H-9")
        self.assertNotIn("Cmd", self.config, "H-9")

    def test_h10_exactly_one_port_is_exposed_and_needs_no_privilege(self):
        self.assertEqual(list(self.config["ExposedPorts"]), [f"{PORT}/tcp"], "H-10")
        self.assertGreaterEqual(int(PORT), 1024, "H-10")

    def test_h11_the_labels_say_what_it_is_and_where_it_comes_from(self):
        for key in ("title", "description", "source", "revision", "version", "licenses"):
            self.assertTrue(self.config["Labels"].get(f"org.opencontainers.image.{key}"), f"H-11: {key}")

    def test_h12_the_ca_bundle_is_where_the_environment_says(self):
        path = dict(entry.split("=", 1) for entry in self.config["Env"])["SSL_CERT_FILE"]
        self.assertGreater(self.files[path][1].count(b"BEGIN CERTIFICATE"), 100, "H-12")

    def test_h13_all_layers_together_are_within_the_budget(self):
        size = sum(layer["size"] for layer in self.manifest["layers"])
        self.assertLessEqual(size, float(BUDGET) * 1_000_000, f"H-13: {size / 1e6:.1f} MB")

    def test_h14_nothing_in_it_is_of_the_moment_it_was_made(self):
        self.assertEqual(self.image["created"], "1970-01-01T00:00:00Z", "H-14")
        self.assertEqual({member.mtime for member, _ in self.files.values()}, {946684800}, "H-14: times of files")

    def test_h14_no_path_of_the_machine_that_built_it_is_in_the_program(self):
        found = re.findall(rb"/(?:home|root|work)/[\w./-]{8,60}", self.program[1])
        self.assertEqual(found, [], "H-14")

    def test_h16_the_program_is_static_position_independent_and_stripped(self):
        data = self.program[1]
        self.assertEqual(data[:5], b"\x7fELF\x02", "H-16: a 64-bit ELF file")
        kind, machine = struct.unpack_from("<HH", data, 16)
        machines = {"amd64": 62, "arm64": 183}
        self.assertEqual((kind, machine), (3, machines[self.image["architecture"]]), "H-16: position independent, of the image's architecture")
        headers, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
        kinds = [struct.unpack_from("<I", data, headers + index * size)[0] for index in range(count)]
        self.assertNotIn(3, kinds, "H-16: an interpreter means that it is not static")
        self.assertNotIn(b".debug_info", data[-100_000:], "H-16: debug information")
        self.assertNotIn(b".symtab", data[-100_000:], "H-16: symbols")

    def test_h17_the_sbom_lists_the_crates_that_the_program_is_made_of(self):
        sbom = json.loads(pathlib.Path(SBOM).read_bytes())
        self.assertEqual((sbom["bomFormat"], sbom["specVersion"]), ("CycloneDX", "1.5"), "H-17")
        self.assertEqual(sbom["metadata"]["component"]["name"], NAME, "H-17")
        names = {component["name"] for component in sbom["components"]}
        self.assertTrue({"tokio", "axum", "serde"} <= names, f"H-17: {sorted(names)[:10]}")
        self.assertFalse({"testkit", "proptest"} & names, "H-17: crates of tests are not in the image")
        for component in sbom["components"]:
            self.assertTrue(component["purl"].startswith("pkg:cargo/"), f"H-17: {component}")

    def test_h20_the_program_knows_its_own_health_check(self):
        self.assertIn(b"healthcheck", self.program[1], "H-20")


if __name__ == "__main__":
    LAYOUT, SBOM, NAME, PORT, BUDGET = sys.argv[1:6]
    unittest.main(argv=sys.argv[:1])
