"""No source that an amount passes through has a floating point number in it [B-26], and no route of any listener turns a clock [B-74]."""

import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
FOLDERS = ["libs/admission", "libs/contracts", "libs/money", "services/billing-service"]
FLOAT = re.compile(r"\bf(?:32|64)\b")
# Gauges, which are floating point by their nature, and a number of minutes.
NO_AMOUNTS = {
    "services/billing-service/src/budgets/webhooks/sender.rs",
    "services/billing-service/src/operations/readings.rs",
    "services/billing-service/src/stripe/reconcile.rs",
}
ROUTERS = ["auth-service", "billing-service", "chat-service"]
ROUTE = re.compile(r'"(/[^"\s]*)"')


def with_floats():
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder / "src").rglob("*.rs"))]
    assert len(found) > 200, len(found)
    code = lambda path: (line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
    return {str(path.relative_to(ROOT)) for path in found if any(FLOAT.search(line) for line in code(path))}


class MoneyPath(unittest.TestCase):
    def test_there_is_no_floating_point_number_where_amounts_are(self):
        self.assertEqual(with_floats(), NO_AMOUNTS)

    def test_no_route_turns_a_clock(self):
        for service in ROUTERS:
            routes = ROUTE.findall((ROOT / "services" / service / "src/router.rs").read_text())
            self.assertGreater(len(routes), 0, service)
            for route in routes:
                self.assertNotRegex(route, r"clock|/time|/now", service)


if __name__ == "__main__":
    unittest.main()
