"""Every request that billing-service builds for Stripe, held against Stripe's own specification by stripe-mock.

A test of billing-service holds the file equal to what is built; this one sends what stands there.
"""

import os
import pathlib
import re
import shutil
import subprocess
import unittest
import urllib.error
import urllib.parse
import urllib.request

from tools.stripe.toolbox import needs

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
REQUESTS = ROOT / "services/billing-service/data/stripe_requests.txt"
MOCK = os.environ.get("STRIPE_MOCK") or shutil.which("stripe-mock")


def requests():
    """Method, path and form of each."""
    lines = REQUESTS.read_text().splitlines()
    return [(*line.split(" ", 2), "")[:3] for line in lines]


class File(unittest.TestCase):
    def test_there_are_requests_of_every_kind(self):
        found = {(method, path.split("/")[2]) for method, path, _ in requests()}
        kinds = {("POST", kind) for kind in ("billing_portal", "checkout", "coupons", "customers", "invoiceitems", "invoices", "prices", "products", "refunds")}
        kinds |= {("GET", kind) for kind in ("checkout", "credit_notes", "customers", "disputes", "events", "invoices", "payment_intents", "prices", "refunds", "setup_intents")}
        self.assertEqual(kinds - found, set())

    def test_there_are_requests_for_what_happens_seldom(self):
        found = [f"{method} {path} {form}" for method, path, form in requests()]
        seldom = [
            r"POST /v1/invoices auto_advance=false&automatic_tax\[enabled\]=true&",
            r"POST /v1/invoices/in_1 metadata\[left\]=text",
            r"POST /v1/coupons amount_off=1&currency=usd&duration=once&",
            r"POST /v1/coupons duration=repeating&duration_in_months=1&",
            r"POST /v1/products/catalog_1 active=false&",
        ]
        self.assertEqual([pattern for pattern in seldom if not any(re.match(pattern, line) for line in found)], [])


@needs("stripe-mock", MOCK)
class Contract(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        command = [MOCK, "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
        cls.mock = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in cls.mock.stdout:
            if found := re.search(r"HTTP at address: (127\.0\.0\.1:\d+)", line):
                cls.base = f"http://{found[1]}"
                return
        raise AssertionError("stripe-mock did not say where it listens")

    @classmethod
    def tearDownClass(cls):
        cls.mock.terminate()
        cls.mock.wait()
        cls.mock.stdout.close()

    def send(self, method, path, form):
        """Status and body."""
        fields = [tuple(field.split("=", 1)) for field in form.split("&") if field]
        encoded = urllib.parse.urlencode(fields)
        url, body = self.base + path, None
        if method == "POST":
            body = encoded.encode()
        elif encoded:
            url += "?" + encoded
        request = urllib.request.Request(url, data=body, method=method, headers={"Authorization": "Bearer sk_test_contract"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def test_stripes_specification_takes_every_request(self):
        for method, path, form in requests():
            with self.subTest(f"{method} {path} {form}"):
                status, body = self.send(method, path, form)
                self.assertEqual(status, 200, body)

    def test_a_field_that_stripe_does_not_have_is_refused(self):
        self.assertEqual(self.send("POST", "/v1/refunds", "payment_intent=pi_1&no_such_field=1")[0], 400)
        self.assertEqual(self.send("GET", "/v1/no_such_path", "")[0], 404)


if __name__ == "__main__":
    unittest.main()
