"""Stripe's own libraries for Python and Node, as their registries have them, against the simulator: what talks to Stripe talks to it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from tools.stripe.toolbox import needs

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
SIMULATOR = ROOT / "simulators/stripe/stripe-simulator"
JOURNEYS = ROOT / "simulators/stripe/sdk"
SDKS = pathlib.Path(os.environ.get("STRIPE_SDKS", "/opt/stripe-sdks"))
PYTHON = SDKS / "python"
NODE_MODULES = SDKS / "node/node_modules"
NODE = SDKS / "node/bin/node"


class Journey(unittest.TestCase):
    def setUp(self):
        command = [SIMULATOR, "--bind", "127.0.0.1:0"]
        self.simulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end)
        for line in self.simulator.stdout:
            if address := json.loads(line).get("fields", {}).get("server.address"):
                self.base = f"http://{address}"
                return
        raise AssertionError("the simulator did not say where it listens")

    def end(self):
        self.simulator.terminate()
        self.simulator.wait()
        self.simulator.stdout.close()

    def walk(self, command, **environment):
        """Runs a journey to its end."""
        env = {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", **environment}
        done = subprocess.run([*command, self.base], env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "all steps answered as Stripe does\n"), done.stderr)

    @needs("stripe-python", PYTHON.is_dir())
    def test_the_python_library_buys_changes_fails_refunds_and_meters(self):
        self.walk([sys.executable, JOURNEYS / "journey.py"], PYTHONPATH=str(PYTHON))

    @needs("stripe-node", NODE.is_file())
    def test_the_node_library_buys_lists_and_reads_errors(self):
        self.walk([NODE, JOURNEYS / "journey.cjs"], NODE_PATH=str(NODE_MODULES))


if __name__ == "__main__":
    unittest.main()
