"""`count.py FAILED TESTLOGS E2E_LOG`: sums the test cases of all runs into one line, `N passed, N failed`; exits with 1 when one failed.

`FAILED` is 1 when some step ended badly: then at least one failure is counted, whatever the logs say.
"""

import pathlib
import re
import sys

RUST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
PYTHON = re.compile(r"^Ran (\d+) tests? in .*\n\n(OK|FAILED(?: \((.*)\))?)", re.MULTILINE)
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)


def count(text):
    """Passed and failed cases of one log; a log without any known line is one case that passed."""
    passed = failed = 0
    known = False
    for pattern in (RUST, PLAIN):
        for match in pattern.finditer(text):
            known, passed, failed = True, passed + int(match[1]), failed + int(match[2])
    for match in PYTHON.finditer(text):
        bad = sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", match[3] or ""))
        known, passed, failed = True, passed + int(match[1]) - bad, failed + bad
    return (passed, failed) if known else (1, 0)


def main():
    """Prints the sum as the last line."""
    bad, testlogs, e2e = sys.argv[1] == "1", pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    logs = list(testlogs.rglob("test.log")) if testlogs.exists() else []
    results = [count(path.read_text(errors="replace")) for path in logs]
    if e2e.exists():
        results.append(count(e2e.read_text(errors="replace")))
    passed, failed = sum(result[0] for result in results), sum(result[1] for result in results)
    if not logs:
        bad = True
        print("no test log was found", file=sys.stderr)
    failed = max(failed, 1) if bad else failed
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
