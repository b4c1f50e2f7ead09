"""Tests of the document checks, and the checks themselves on every document of the repository."""

import os
import pathlib
import re
import unittest

from tools.docs.examples import DocumentError, examples, script

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)")


def documents():
    """The Markdown files that the test was given."""
    found = sorted(path for path in ROOT.rglob("*.md") if "node_modules" not in path.parts)
    return [path for path in found if path.is_file()]


class Examples(unittest.TestCase):
    def test_a_marked_block_is_found_with_its_line(self):
        text = "a\n<!-- run: repo -->\n```sh\necho 1\n```\n```sh\nnot me\n```\n"
        self.assertEqual([(e.kind, e.line, e.script) for e in examples(text)], [("repo", 3, "echo 1\n")])

    def test_a_mark_over_nothing_is_an_error(self):
        for text in ("<!-- run: repo -->\ntext\n", "<!-- run: repo -->", "<!-- run: moon -->\n```sh\n```\n", "```sh\n"):
            with self.assertRaises(DocumentError, msg=text):
                list(examples(text))

    def test_a_marked_block_in_another_language_is_an_error(self):
        with self.assertRaises(DocumentError):
            list(examples("<!-- run: repo -->\n```python\nprint()\n```\n"))

    def test_published_ports_are_mapped(self):
        [example] = examples("<!-- run: stack -->\n```sh\ncurl localhost:3001/health 127.0.0.1:9\n```\n")
        text = script([example], {"3001": "13001"})
        self.assertIn("localhost:13001/health", text)
        self.assertIn("127.0.0.1:9", text)


class Documents(unittest.TestCase):
    def test_there_are_documents(self):
        names = {path.name for path in documents()}
        self.assertIn("README.md", names)
        self.assertIn("ARCHITECTURE.md", names)

    def test_every_mark_stands_over_a_shell_block(self):
        for path in documents():
            with self.subTest(path.name):
                list(examples(path.read_text()))

    def test_every_relative_link_leads_to_a_file_that_is_given(self):
        for path in documents():
            for target in LINK.findall(path.read_text()):
                with self.subTest(f"{path.name}: {target}"):
                    self.assertTrue((path.parent / target).exists(), target)


if __name__ == "__main__":
    unittest.main()
