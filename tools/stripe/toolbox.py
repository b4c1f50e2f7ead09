"""Tools that a test needs and that not every machine can get.

The toolbox gets them when it is made, and has a file for each that it could not get. Where one is neither there nor in that list, somebody
broke the making of it: the test fails then, instead of saying quietly that it did not run.
"""

import os
import pathlib
import unittest

WITHOUT = pathlib.Path(os.environ.get("STRIPE_SDKS", "/opt/stripe-sdks")) / "without"


def verdict(name, found, without, is_ci):
    """Whether the test runs, is skipped or fails: `run`, `skip`, `fail`."""
    if found:
        return "run"
    if (without / name).exists():
        return "skip"
    # The folder is there, empty or not, wherever the toolbox is.
    return "fail" if is_ci or without.is_dir() else "skip"


def needs(name, found, without=WITHOUT, is_ci=bool(os.environ.get("CI"))):
    """For a test, or a case of tests: it runs where the tool was found."""
    what = verdict(name, found, without, is_ci)
    if what == "skip":
        return unittest.skip(f"{name} is not here; the toolbox has it where it can be had")
    if what == "run":
        return lambda test: test

    def fail(self):
        self.fail(f"{name} is not here, and {without / name} does not say that it cannot be had")

    return lambda test: type(test.__name__, (unittest.TestCase,), {"test_it_is_here": fail}) if isinstance(test, type) else fail
