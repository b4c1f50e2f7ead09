"""What deny.toml forbids is not in Cargo.lock, and the lints of Cargo.toml are the ones that Bazel applies."""

import os
import pathlib
import re
import tomllib
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")


def read(name):
    """A TOML file of the root."""
    return tomllib.loads((ROOT / name).read_text())


class Dependencies(unittest.TestCase):
    def test_no_banned_crate_is_locked(self):
        banned = {entry["crate"] for entry in read("deny.toml")["bans"]["deny"]}
        locked = {package["name"] for package in read("Cargo.lock")["package"]}
        self.assertTrue({"openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "rsa"} <= banned)
        self.assertEqual(banned & locked, set())

    def test_crates_with_known_holes_are_at_least_at_the_version_that_mends_them(self):
        floors = {"jsonwebtoken": (10, 3, 0), "sqlx": (0, 8, 1), "axum-core": (0, 3, 0), "idna": (1, 0, 0)}
        for package in read("Cargo.lock")["package"]:
            if package["name"] in floors:
                version = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)\.(\d+)", package["version"]).groups())
                self.assertGreaterEqual(version, floors[package["name"]], package["name"])

    def test_every_crate_of_the_workspace_is_known_to_bazel(self):
        members = read("Cargo.toml")["workspace"]["members"]
        listed = (ROOT / "tools/bazel/rust.MODULE.bazel").read_text()
        for member in members:
            self.assertIn(f'"//{member}:Cargo.toml"', listed)

    def test_bazel_applies_the_lints_of_the_workspace(self):
        lints = read("Cargo.toml")["workspace"]["lints"]
        flags = re.search(r"clippy_flags=(\S+)", (ROOT / ".bazelrc").read_text())[1].split(",")
        letters = {"deny": "-D", "warn": "-W", "allow": "-A", "forbid": "-F"}
        expected = []
        for group, prefix in (("rust", ""), ("clippy", "clippy::")):
            for name, level in lints[group].items():
                level = level["level"] if isinstance(level, dict) else level
                expected.append(f"{letters[level]}{prefix}{name}")
        self.assertEqual(sorted(flags), sorted(expected))


if __name__ == "__main__":
    unittest.main()
