"""`count.py FAILED TESTLOGS E2E_LOG`: sums the test cases of all runs into a last line, `N passed, N failed`, after `N skipped` when some were; exits with 1 when one failed.

`FAILED` is 1 when some step ended badly: then at least one failure is counted, whatever the logs say.
"""

import pathlib
import re
import sys

RUST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
PYTHON = re.compile(r"^Ran (\d+) tests? in .*\n\n(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)


def count(text):
    """Passed, failed and skipped cases of one log; a log without any known line is one case that passed."""
    passed = failed = skipped = 0
    known = False
    for match in RUST.finditer(text):
        known, passed, failed, skipped = True, passed + int(match[1]), failed + int(match[2]), skipped + int(match[3])
    for match in PLAIN.finditer(text):
        known, passed, failed = True, passed + int(match[1]), failed + int(match[2])
    for match in PYTHON.finditer(text):
        found = dict.fromkeys(("failures", "errors", "skipped", "expected failures", "unexpected successes"), 0)
        found.update((name, int(number)) for name, number in re.findall(r"([a-z ]+)=(\d+)", (match[2] or "").replace(", ", ",")))
        bad = found["failures"] + found["errors"] + found["unexpected successes"]
        known, failed, skipped = True, failed + bad, skipped + found["skipped"]
        passed += int(match[1]) - bad - found["skipped"]
    return (passed, failed, skipped) if known else (1, 0, 0)


def main():
    """Prints the sum as the last line."""
    bad, testlogs, e2e = sys.argv[1] == "1", pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    logs = list(testlogs.rglob("test.log")) if testlogs.exists() else []
    results = [count(path.read_text(errors="replace")) for path in logs]
    if e2e.exists():
        results.append(count(e2e.read_text(errors="replace")))
    passed, failed, skipped = (sum(result[part] for result in results) for part in range(3))
    if not logs:
        bad = True
        print("no test log was found", file=sys.stderr)
    failed = max(failed, 1) if bad else failed
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
