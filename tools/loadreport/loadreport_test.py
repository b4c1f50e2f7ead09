"""Tests of the load report."""

import unittest

from tools.loadreport.loadreport import ReportError, render


def row(lane, round_, rps, p50, p99):
    """One measurement."""
    return {"lane": lane, "kind": "whole", "concurrency": 1, "round": round_, "requests": 9, "rps": rps, "p50_us": p50, "p99_us": p99}


def report(measured):
    """A report with these measurements."""
    memory = {"chat-service": 12_345_678}
    return {"ready_ms": {"chat-service": 41.6}, "resident_bytes_idle": memory, "resident_bytes_after_load": memory, "measured": measured}


class Report(unittest.TestCase):
    def test_medians_are_compared_with_the_plain_proxy_of_the_same_run(self):
        proxy = [row("plain proxy", n, rps, 100, 200) for n, rps in enumerate((1000, 5000, 2000))]
        gateway = [row("gateway", n, 500, p50, 900) for n, p50 in enumerate((350, 400, 9000))]
        text = render(report(proxy + gateway))
        self.assertIn("| gateway | whole | 1 | 500 | 0.25 | 400 | +300 | 900 | +700 |", text)
        self.assertIn("| plain proxy | whole | 1 | 2000 |  | 100 |  | 200 |  |", text)
        self.assertIn("| chat-service | 42 | 12.3 | 12.3 |", text)

    def test_figures_without_anything_to_compare_with_are_refused(self):
        with self.assertRaises(ReportError):
            render(report([row("gateway", 0, 1, 1, 1)]))

    def test_figures_of_billing_service_are_listed_and_what_a_request_costs_by_sizes(self):
        point = {"wallets": 100, "rows_there": 1_000_000, "replicas": 2, "rows_per_second": 5123.4, "database_ms_per_row": 0.1234}
        point |= {"requests_per_second": 9000, "carried_per_second": 6000, "half_load_per_second": 3000, "calls_per_second": 300}
        point |= {"admission_p50_us": 400, "admission_p99_us": 900, "hurried_p99_us": 4000, "woken_p99_us": 250, "settled_p50_us": 700, "settled_p99_us": 1500}
        figures = [{"what": "export", "value": 5123.4, "unit": "rows/s"}, {"what": "p99", "value": 2.345, "unit": "ms"}]
        text = render({"figures": figures, "scaling": [point]})
        self.assertIn("| export | 5123 | rows/s |", text)
        self.assertIn("| p99 | 2.3 | ms |", text)
        self.assertIn("| 100 | 1000000 | 2 | 5123 | 0.123 | 9000 | 6000 | 3000 | 250 | 400 | 900 | 700 | 1500 | 4000 | 300 | 20.0 |", text)


if __name__ == "__main__":
    unittest.main()
