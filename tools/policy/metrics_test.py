"""Every measure of billing-service has an entry in its runbook and the reverse; the dashboard asks only for measures that there are."""

import json
import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")

# What registers a measure by a literal name, and the table of gauges that are set by name.
REGISTERED = re.compile(r'\b(?:metrics::)?(counter|gauge|histogram)!\(\s*"([a-z0-9_]+)"')
TABLE = re.compile(r'^\s*"([a-z0-9_]+)" \[[A-Z]', re.MULTILINE)
# What the language of Prometheus knows besides names of measures and labels.
WORDS = {"by", "le", "max", "sum", "min", "avg", "rate", "increase", "histogram_quantile", "without", "on", "clamp_min"}


def sources(*folders):
    """The text of all Rust files in these folders."""
    found = [path for folder in folders for path in sorted((ROOT / folder / "src").rglob("*.rs"))]
    assert found, folders
    return "\n".join(path.read_text() for path in found)


def measures():
    """Names and kinds of all that billing-service registers, with what the chassis registers for it."""
    text = sources("services/billing-service", "libs/chassis")
    kinds = {name: kind for kind, name in REGISTERED.findall(text)}
    gauges = (ROOT / "services/billing-service/src/operations/gauges.rs").read_text()
    return kinds | {name: "gauge" for name in TABLE.findall(gauges)}


def expressions(node):
    """Every query in a dashboard."""
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from expressions(child)


def asked_for(expression):
    """Names of measures in a query: what is no word of the language, no label, no text and no time."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(?:by|without|on)\s*\([^)]*\)", "", bare)
    return {word for word in re.findall(r"\b[a-z_][a-z0-9_]*\b", bare) if word not in WORDS}


class Metrics(unittest.TestCase):
    def test_the_runbook_has_an_entry_for_each_measure_and_no_other(self):
        runbook = (ROOT / "docs/operations/RUNBOOK.md").read_text()
        entries = re.findall(r"^### (\S+)$", runbook, re.MULTILINE)
        self.assertEqual(len(entries), len(set(entries)), "an entry is there twice")
        self.assertEqual(sorted(entries), sorted(measures()))
        bodies = re.split(r"^### \S+$", runbook, flags=re.MULTILINE)[1:]
        for name, body in zip(entries, bodies, strict=True):
            said = re.split(r"^## ", body, flags=re.MULTILINE)[0].strip()
            self.assertGreater(len(said), 20, f"{name} has nothing to say")

    def test_names_follow_the_conventions_of_prometheus(self):
        for name, kind in measures().items():
            with self.subTest(name):
                self.assertEqual(name.endswith("_total"), kind == "counter")
                self.assertNotRegex(name, r"_(ms|millis|minutes|kb|mb)(_|$)")
                self.assertTrue(kind != "histogram" or name.endswith(("_seconds", "_bytes")))

    def test_what_has_a_limit_says_it_in_its_entry(self):
        runbook = (ROOT / "docs/operations/RUNBOOK.md").read_text()
        gauges = (ROOT / "services/billing-service/src/operations/gauges.rs").read_text()
        limits = re.findall(r'^\s*"(\w+)" \[[^\]]*\] Limit::(Above|Below)\(([\d_]+)\)', gauges, re.MULTILINE)
        self.assertGreater(len(limits), 5)
        for name, direction, limit in limits:
            entry = runbook.split(f"### {name}\n")[1].split("\n### ")[0]
            self.assertIn(f"**{direction} {int(limit):,}**", entry, name)

    def test_the_dashboard_asks_only_for_measures_that_are_registered(self):
        dashboard = json.loads((ROOT / "docs/operations/grafana/billing.json").read_text())
        known = measures()
        names = set(known)
        for name in (name for name, kind in known.items() if kind == "histogram"):
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        queries = list(expressions(dashboard))
        self.assertGreater(len(queries), 20)
        for query in queries:
            asked = asked_for(query)
            self.assertTrue(asked, query)
            self.assertEqual(asked - names, set(), query)
        ids = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))


if __name__ == "__main__":
    unittest.main()
