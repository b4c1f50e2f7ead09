"""No Rust source that an amount passes through has a floating point number in it [B-26], and no route of any listener turns a clock [B-74].

The scripts of Redis are not looked at: they are Lua, whose numbers are doubles, exact for whole ones below 2**53 (nine billion dollars in micro-units)."""

import json
import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
FOLDERS = ["libs/admission", "libs/contracts", "libs/money", "services/billing-service", "services/chat-service"]
# The type, also at the end of a literal or of a method's name, and a literal that needs none.
FLOAT = re.compile(r"(?<![A-Za-z])f(?:32|64)\b|(?<![\w.])\d[\d_]*\.\d")
NOT_CODE = re.compile(r"'(?:[^'\\]|\\.)'|" r'r(#+)".*?"\1|"(?:[^"\\]|\\.)*"|//[^\n]*', re.DOTALL)
# Gauges and histograms, which are floating point by their nature, and a number of minutes.
NO_AMOUNTS = {
    "services/billing-service/src/budgets/webhooks/sender.rs",
    "services/billing-service/src/operations/readings.rs",
    "services/billing-service/src/stripe/reconcile.rs",
    "services/chat-service/src/meters.rs",
}
SERVICES = ["auth-service", "billing-service", "chat-service"]
# Of a router, and of what a handler says of itself.
ROUTE = re.compile(r'(?:route\(\s*|\bpath = )"(/[^"\s]*)"')


def sources(folder):
    return sorted((ROOT / folder / "src").rglob("*.rs"))


def code(path):
    return NOT_CODE.sub("", path.read_text().partition("#[cfg(test)]\nmod tests {")[0])


def with_floats():
    found = [path for folder in FOLDERS for path in sources(folder)]
    assert len(found) > 300, len(found)
    return {str(path.relative_to(ROOT)) for path in found if FLOAT.search(code(path))}


class MoneyPath(unittest.TestCase):
    def test_there_is_no_floating_point_number_where_amounts_are(self):
        self.assertEqual(with_floats(), NO_AMOUNTS)

    def test_a_floating_point_number_is_seen_in_whatever_form(self):
        for code in ["let x: f64 = y;", "value.as_f64()", "0.5f64", "1_f64", "let half = 0.5 * x;", "Duration::from_secs_f64(x)"]:
            self.assertRegex(NOT_CODE.sub("", code), FLOAT)
        for code in ["0..5", "'\"'", "self.0.1", 'r#"0.5"#', '"0.5"', "// 0.5 f64", "buf64", "1.max(2)"]:
            self.assertNotRegex(NOT_CODE.sub("", code), FLOAT)

    def test_a_route_is_seen_wherever_it_is_said(self):
        for code in ['.route("/a", get(b))', '.route(\n    "/a",', '#[utoipa::path(get, path = "/a")]']:
            self.assertEqual(ROUTE.findall(code), ["/a"])

    def test_no_route_turns_a_clock(self):
        for service in SERVICES:
            routes = {route for path in sources(f"services/{service}") for route in ROUTE.findall(path.read_text())}
            documented = set(json.loads((ROOT / f"docs/api/{service}.json").read_text())["paths"])
            self.assertLessEqual(documented, routes, service)
            for route in routes:
                self.assertNotRegex(route, r"clock|/time|/now", service)


if __name__ == "__main__":
    unittest.main()
