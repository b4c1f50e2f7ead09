"""`./dev` as far as it goes without Docker, the sum of test results, and shellcheck over every script."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from tools.dev.count import __file__ as count_file
from tools.dev.count import count

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")


def scripts():
    """Every script that the test was given."""
    found = [path for path in ROOT.rglob("*") if path.is_file() and "external" not in path.parts and path.suffix in ("", ".sh")]
    shells = (b"#!/bin/bash", b"#!/bin/sh", b"# shellcheck shell=")
    return sorted(path for path in found if path.read_bytes().startswith(shells))


def dev(*arguments, **variables):
    """Runs `./dev` with nothing on its path but the tools of the system."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("TEST_TMPDIR", "/tmp"), **variables}
    return subprocess.run(["bash", str(ROOT / "dev"), *arguments], capture_output=True, text=True, env=environment)


class Dev(unittest.TestCase):
    def test_help_names_every_command(self):
        text = dev("help").stdout
        for command in ("up", "down", "test", "soak", "status", "logs", "secret", "shell", "bazel", "cargo", "compose", "doctor", "clean", "help"):
            self.assertRegex(text, rf"(?m)^  {command}\b")
        self.assertEqual(dev().stdout, text)

    def test_an_unknown_command_is_refused_and_told_what_there_is(self):
        done = dev("fly")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no command 'fly'", done.stderr)
        self.assertIn("doctor", done.stderr)

    def test_the_mode_can_be_chosen_and_commands_then_run_here(self):
        done = dev("bazel", "--version", TRIVET_DEV_MODE="direct", PATH=str(self.fake("bazel", 'echo "fake $*"')) + ":/usr/bin:/bin")
        self.assertEqual((done.returncode, done.stdout), (0, "fake --version\n"), done.stderr)

    def fake(self, name, body):
        """A folder with a program of that name."""
        folder = pathlib.Path(os.environ.get("TEST_TMPDIR", "/tmp")) / f"fake-{name}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
        return folder


class Up(unittest.TestCase):
    def start(self, logs):
        """Runs `compose/up.sh` with a Docker that cannot start the stack and has these logs."""
        return self.run_with(f'case "$2" in logs) echo "{logs}" ;; *) exit 1 ;; esac')

    def run_with(self, docker):
        """Runs `compose/up.sh` with a Docker that is this script."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR", "/tmp")))
        (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (folder / "docker").chmod(0o755)
        environment = {"PATH": "/usr/bin:/bin", "DOCKER": str(folder / "docker"), "BUILD_WORKSPACE_DIRECTORY": str(folder)}
        command = ["bash", str(ROOT / "compose/up.sh"), "/dev/null", "/dev/null", "/dev/null"]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def test_secrets_that_do_not_open_the_volume_are_named_with_three_ways_out(self):
        done = self.start("FATAL: password authentication failed for user billing_migrator")
        self.assertEqual(done.returncode, 1)
        for way in ("another clone", "./dev down --volumes", "COMPOSE_PROJECT_NAME"):
            self.assertIn(way, done.stderr)

    def test_another_failure_is_not_blamed_on_the_secrets(self):
        done = self.start("out of memory")
        self.assertEqual((done.returncode, "passwords" in done.stderr), (1, False), done.stderr)

    def test_simulators_whose_profile_is_off_are_taken_away_and_no_others(self):
        docker = 'case "$*" in *--services) printf "billing-service\\n%s\\n" {} ;; *) echo "$*" ;; esac'
        removed = lambda services: [line for line in self.run_with(docker.format(services)).stdout.splitlines() if " rm " in line]
        removal = "compose --profile {0} rm --stop --force {0}"
        # Somebody has set a key of Stripe's: the simulator must not stay beside it, with a key of its own that nobody changes.
        self.assertEqual(removed("llm-simulator"), [removal.format("stripe-simulator")])
        self.assertEqual(removed("stripe-simulator llm-simulator"), [])
        self.assertEqual(removed("jaeger"), [removal.format("llm-simulator"), removal.format("stripe-simulator")])


class Count(unittest.TestCase):
    def test_results_of_every_runner_are_summed(self):
        self.assertEqual(count("test result: ok. 12 passed; 0 failed; 0 ignored\n"), (12, 0, 0))
        self.assertEqual(count("Ran 5 tests in 0.1s\n\nOK\n"), (5, 0, 0))
        self.assertEqual(count("Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=1)\n"), (3, 2, 0))
        self.assertEqual(count("ok  a\n17 passed, 2 failed\n"), (17, 2, 0))
        self.assertEqual(count("a test that only ends well\n"), (1, 0, 0))

    def test_a_case_that_was_skipped_is_none_that_passed(self):
        self.assertEqual(count("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured\n"), (12, 0, 3))
        self.assertEqual(count("Ran 5 tests in 0.1s\n\nOK (skipped=2)\n"), (3, 0, 2))
        self.assertEqual(count("Ran 9 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=3)\n"), (3, 3, 3))
        self.assertEqual(count("Ran 2 tests in 0.1s\n\nOK (skipped=1, expected failures=1)\n"), (1, 0, 1))

    def test_what_was_skipped_is_told_before_the_sum_which_stays_the_last_line(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR", "/tmp")))
        (folder / "a").mkdir()
        (folder / "a" / "test.log").write_text("Ran 5 tests in 0.1s\n\nOK (skipped=2)\n")
        command = [sys.executable, count_file, "0", str(folder), str(folder / "none")]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "2 skipped\n3 passed, 0 failed\n"), done.stderr)


class Shellcheck(unittest.TestCase):
    def test_there_are_scripts(self):
        self.assertGreater(len(scripts()), 10, scripts())

    @unittest.skipUnless(shutil.which("shellcheck"), "shellcheck is not on this machine; the toolbox has it")
    def test_no_script_has_a_finding(self):
        # The parts of ./dev share variables, and what an init folder holds is not known: not for a look at one file.
        shared = "--exclude=SC2034,SC2154,SC1090"
        found = subprocess.run(["shellcheck", "--severity=warning", shared, *scripts()], capture_output=True, text=True)
        self.assertEqual(found.returncode, 0, found.stdout)


if __name__ == "__main__":
    unittest.main()
