"""Tests of the table of requirements, and the table itself."""

import os
import pathlib
import unittest

from tools.policy.requirements import DOCUMENT, citations, findings, not_yet, rows, tests, written

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
SOURCE = '''
/// [B-1] [B17] A sentence.
#[tokio::test]
async fn it_holds() {}

/// [B-2]
fn helper() {}

proptest! {
    /// [B-3]
    #[test]
    fn always(number in 0..9) {}
}
'''


def document(last, not_yet="## Not yet (0)\n"):
    """A document with all rows; the last column of each is `last(number)`."""
    numbers = [f"B-{number}" for number in range(1, 83)] + [f"B{number}" for number in range(1, 29)]
    return "\n".join(f"| {number} | Must hold. | {last(number)} |" for number in numbers) + f"\n\n{not_yet}"


class Requirements(unittest.TestCase):
    def test_tests_are_found_with_their_doc_comments_and_other_functions_are_not(self):
        self.assertEqual(list(tests(SOURCE)), [("it_holds", " [B-1] [B17] A sentence."), ("always", " [B-3]")])

    def test_an_empty_row_a_test_that_is_gone_and_a_longer_list_are_found(self):
        cited = {number: [f"a::b::{number.replace('-', '_')}"] for number, _, _ in rows(document(lambda _: "x"))}
        good = written(document(lambda _: "x"), cited)
        self.assertEqual(list(findings(good, cited)), [])
        gone = {number: names for number, names in cited.items() if number != "B-37"}
        self.assertEqual(len(list(findings(good, gone))), 2, "the row names a test that does not exist, and has none")
        self.assertIn("B-37 has no test", "\n".join(findings(written(good, gone), gone)))
        self.assertIn("only shrinks", "\n".join(findings(good.replace("(0)\n", "(1)\n- B-37: later\n"), cited)))
        self.assertIn("says 2 and lists 1", "\n".join(findings(good.replace("(0)\n", "(2)\n- B-75: later\n"), cited)))
        self.assertIn("B-1 has 0 rows", "\n".join(findings(good.replace("| B-1 |", "| C-1 |"), cited)))


class Table(unittest.TestCase):
    def test_every_requirement_and_incident_has_its_tests_or_is_counted_as_not_yet_proven(self):
        text = (ROOT / DOCUMENT).read_text()
        cited = citations(ROOT)
        self.assertGreater(sum(map(len, cited.values())), 150, "the test was not given the sources")
        self.assertEqual(list(findings(text, cited)), [])

    def test_what_is_not_yet_proven_says_why(self):
        listed, count = not_yet((ROOT / DOCUMENT).read_text())
        self.assertEqual(len(listed), count)


if __name__ == "__main__":
    unittest.main()
