"""Tests of the licence check."""

import unittest

from tools.policy.licenses import allowed, findings

OURS = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"}


class Licenses(unittest.TestCase):
    def test_an_expression_is_allowed_when_our_licences_fulfil_it(self):
        for expression in ("MIT", "MIT OR GPL-3.0", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception OR GPL-3.0"):
            self.assertTrue(allowed(expression, OURS), expression)
        for expression in ("", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0", "MIT WITH strange-exception", "MIT)"):
            self.assertFalse(allowed(expression, OURS), expression)

    def test_crates_of_the_workspace_are_ours_and_all_others_are_looked_at(self):
        package = lambda name, source, license: {"id": name, "name": name, "version": "1.0.0", "source": source, "license": license}
        registry = "registry+somewhere"
        packages = [package("ours", None, None), package("fine", registry, "MIT"), package("copyleft", registry, "GPL-3.0"), package("fork", "git+somewhere", "MIT"), package("silent", registry, None)]
        found = list(findings({"workspace_members": ["ours"], "packages": packages}, OURS))
        self.assertEqual(found, ["copyleft 1.0.0 is licensed GPL-3.0", "fork 1.0.0 comes from git+somewhere", "silent 1.0.0 is licensed None"])


if __name__ == "__main__":
    unittest.main()
