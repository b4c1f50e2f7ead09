"""Every step that a program can be ended at is in the list of the drill and the reverse: `chassis::step!` and `proof/src/steps.rs`."""

import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
FOLDERS = ["libs/admission", "libs/chassis", "services/auth-service", "services/billing-service", "services/chat-service"]
TAKEN = re.compile(r'\bstep!\("([^"]+)"\)')
LISTED = re.compile(r'^    (?:(?:auth|billing|chat|rare)\("([^"]+)"(?:, [A-Z_]+)?\),|    name: "([^"]+)",)$', re.MULTILINE)
# What the documentation and the test of the macro itself take.
EXAMPLES = {"test.taken"}


def taken():
    """Names in the source, as often as they stand there."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder / "src").rglob("*.rs"))]
    lines = [line for path in found for line in path.read_text().splitlines() if not line.lstrip().startswith("//")]
    return [name for line in lines for name in TAKEN.findall(line) if name not in EXAMPLES]


def listed():
    """Names in the drill's list; those that several programs take are there once for each."""
    text = (ROOT / "proof/src/steps.rs").read_text()
    table = re.search(r"pub const STEPS: &\[Step\] = &\[\n(.*?)^\];", text, re.MULTILINE | re.DOTALL)
    return {first or second for first, second in LISTED.findall(table.group(1))}


class Steps(unittest.TestCase):
    def test_each_step_in_the_source_is_in_the_list_and_the_reverse(self):
        self.assertGreater(len(taken()), 40)
        self.assertEqual(sorted(set(taken())), sorted(listed()))

    def test_a_name_is_one_place(self):
        names = taken()
        self.assertEqual(sorted({name for name in names if names.count(name) > 1}), [])

    def test_a_name_says_whose_and_what_has_been_done(self):
        for name in taken():
            self.assertRegex(name, r"^[a-z_]+\.[a-z_]+$")


if __name__ == "__main__":
    unittest.main()
