"""Tests of what becomes of a test whose tool is missing."""

import pathlib
import tempfile
import unittest

from tools.stripe.toolbox import needs, verdict


class Toolbox(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.nowhere, self.without = pathlib.Path(folder.name, "nowhere"), pathlib.Path(folder.name, "without")
        self.without.mkdir()

    def test_what_the_toolbox_could_not_get_is_skipped_also_in_ci(self):
        (self.without / "stripe-mock").touch()
        for is_ci in (False, True):
            self.assertEqual(verdict("stripe-mock", None, self.without, is_ci), "skip")

    def test_what_is_missing_in_the_toolbox_or_in_ci_and_not_known_to_be_fails(self):
        self.assertEqual(verdict("stripe-mock", None, self.without, False), "fail")
        self.assertEqual(verdict("stripe-mock", None, self.nowhere, True), "fail")
        self.assertEqual(verdict("stripe-mock", None, self.nowhere, False), "skip")
        self.assertEqual(verdict("stripe-mock", "/usr/local/bin/stripe-mock", self.without, True), "run")

    def test_a_case_and_a_test_that_fail_for_it_say_so(self):
        missing = needs("stripe-mock", None, self.without, True)

        @missing
        class Case(unittest.TestCase):
            def test_one(self):
                pass

        class Other(unittest.TestCase):
            @missing
            def test_one(self):
                pass

        for case in (Case, Other):
            result = unittest.defaultTestLoader.loadTestsFromTestCase(case).run(unittest.TestResult())
            self.assertEqual((result.testsRun, len(result.failures)), (1, 1))
            self.assertIn("does not say that it cannot be had", result.failures[0][1])


if __name__ == "__main__":
    unittest.main()
