"""`loadreport FILE.json`: the raw figures of `bench` as Markdown tables. Medians over the rounds; nothing is left out."""

import json
import pathlib
import statistics
import sys

# What each kind of measurement is compared with.
BASES = ("plain proxy", "call per request")


class ReportError(Exception):
    """The file is not what `bench` writes."""


def table(header, rows):
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def medians(measured):
    """The median of each figure over the rounds, by kind, concurrency and lane, in the order they were measured first."""
    groups = {}
    for row in measured:
        groups.setdefault((row["kind"], row["concurrency"], row["lane"]), []).append(row)
    figures = ("rps", "p50_us", "p99_us")
    return {key: {figure: statistics.median(row[figure] for row in rows) for figure in figures} for key, rows in sorted(groups.items())}


def latency(measured):
    """Latency and throughput of each lane, and what it adds to the lane it is compared with."""
    found = medians(measured)
    rows = []
    for (kind, concurrency, lane), figures in found.items():
        base = next((found[kind, concurrency, name] for name in BASES if (kind, concurrency, name) in found), None)
        if base is None:
            raise ReportError(f"{kind} at {concurrency} has nothing to compare with: none of {', '.join(BASES)}")
        added = [f"{figures[name] - base[name]:+.0f}" for name in ("p50_us", "p99_us")] if lane not in BASES else ["", ""]
        ratio = f"{figures['rps'] / base['rps']:.2f}" if lane not in BASES else ""
        rows.append([lane, kind, str(concurrency), f"{figures['rps']:.0f}", ratio, f"{figures['p50_us']:.0f}", added[0], f"{figures['p99_us']:.0f}", added[1]])
    return table(["lane", "answer", "clients", "requests/s", "ratio", "p50 µs", "added", "p99 µs", "added"], rows)


def programs(report):
    """Start and memory of each program."""
    megabytes = lambda key, name: f"{report[key][name] / 1e6:.1f}"
    rows = [
        [name, f"{milliseconds:.0f}", megabytes("resident_bytes_idle", name), megabytes("resident_bytes_after_load", name)]
        for name, milliseconds in sorted(report["ready_ms"].items())
    ]
    return table(["program", "ready, ms after exec", "resident, idle, MB", "resident, after load, MB"], rows)


def figures(report):
    """Single figures, as they were measured."""
    number = lambda value: f"{value:.1f}" if value < 100 else f"{value:.0f}"
    return table(["what", "measured", "unit"], [[row["what"], number(row["value"]), row["unit"]] for row in report["figures"]])


def scaling(report):
    """What a request costs, by how much there is of everything."""
    rows = [
        [
            str(row["wallets"]),
            str(row["rows_there"]),
            str(row["replicas"]),
            f"{row['rows_per_second']:.0f}",
            f"{row['database_ms_per_row']:.3f}",
            f"{row['requests_per_second']:.0f}",
            f"{row['carried_per_second']:.0f}",
            f"{row['half_load_per_second']:.0f}",
            # Reports of before have none.
            f"{row['woken_p99_us']:.0f}" if "woken_p99_us" in row else "",
            f"{row['admission_p50_us']:.0f}",
            f"{row['admission_p99_us']:.0f}",
            f"{row['settled_p50_us']:.0f}",
            f"{row['settled_p99_us']:.0f}",
            f"{row['hurried_p99_us']:.0f}",
            f"{row['calls_per_second']:.0f}",
            f"{row['carried_per_second'] / row['calls_per_second']:.1f}",
        ]
        for row in report["scaling"]
    ]
    header = ["wallets", "usage rows there", "replicas", "rows posted/s", "database ms a row", "requests/s, 32 clients", "full load: posted too", "half load", "woken, p99 µs", "admitted, p50 µs", "p99 µs", "settled, p50 µs", "p99 µs", "admitted in a hurry, p99 µs", "calls/s", "ratio"]
    return table(header, rows)


def render(report):
    """The whole report, of the gateway or of billing-service alone."""
    if "figures" in report:
        return f"{figures(report)}\n\n{scaling(report)}\n"
    return f"{programs(report)}\n\n{latency(report['measured'])}\n"


def main():
    """Prints the report of the file."""
    sys.stdout.write(render(json.loads(pathlib.Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
