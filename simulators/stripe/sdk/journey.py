"""The official Python library against the simulator, unmodified: `pip install stripe`, then `journey.py http://127.0.0.1:4020`."""

import sys

import stripe


def main(base):
    """Buys, changes, fails, refunds and meters; every step must answer as Stripe does."""
    client = stripe.StripeClient("sk_test_simulator", base_addresses={"api": base}, max_network_retries=2).v1
    customer = client.customers.create({"email": "ann@example.com", "metadata": {"organization": "org_1"}})
    method = client.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    client.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    product = client.products.create({"name": "Pro"})
    terms = {"product": product.id, "unit_amount": 1000, "currency": "usd", "recurring": {"interval": "month"}}
    price = client.prices.create(terms)

    items = [{"price": price.id}]
    bought = client.subscriptions.create({"customer": customer.id, "items": items, "expand": ["latest_invoice.payments"]})
    assert bought.status == "active", bought
    assert bought.latest_invoice.payments.data[0].status == "paid", bought
    item = bought["items"].data[0]
    assert item.current_period_end > item.current_period_start
    seats = {"items": [{"id": item.id, "quantity": 3}], "proration_behavior": "always_invoice", "expand": ["latest_invoice"]}
    changed = client.subscriptions.update(bought.id, seats)
    assert changed.latest_invoice.status == "paid", changed
    assert client.invoices.create_preview({"subscription": bought.id}).amount_due == 3000
    assert client.subscriptions.cancel(bought.id).status == "canceled"

    pack = {"price_data": {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Pack"}}, "quantity": 2}
    session = client.checkout.sessions.create({"mode": "payment", "success_url": "http://shop.example", "line_items": [pack]})
    assert (session.amount_total, session.payment_status) == (1000, "unpaid"), session

    try:
        client.payment_intents.create({"amount": 500, "currency": "usd", "payment_method": "pm_card_chargeDeclined", "confirm": True})
        raise AssertionError("a declined card paid")
    except stripe.CardError as error:
        assert (error.code, error.error.payment_intent.status) == ("card_declined", "requires_payment_method"), error
    try:
        client.customers.retrieve("cus_none")
        raise AssertionError("a customer that is none was found")
    except stripe.InvalidRequestError as error:
        assert (error.http_status, error.code) == (404, "resource_missing"), error

    once = {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    paid = [client.payment_intents.create(once, {"idempotency_key": f"order-{customer.id}"}).id for _ in range(2)]
    assert paid[0] == paid[1], paid
    assert client.refunds.create({"payment_intent": paid[0], "amount": 100}).status == "succeeded"
    client.customers.create({})
    assert len(list(client.customers.list({"limit": 1}).auto_paging_iter())) >= 2

    name = f"tokens_{customer.id}"
    client.billing.meters.create({"display_name": "Tokens", "event_name": name, "default_aggregation": {"formula": "sum"}})
    used = {"event_name": name, "identifier": name, "payload": {"stripe_customer_id": customer.id, "value": "5"}}
    client.billing.meter_events.create(used)
    try:
        client.billing.meter_events.create(used)
        raise AssertionError("usage was counted twice")
    except stripe.InvalidRequestError as error:
        assert "already exists" in str(error), error
    print("all steps answered as Stripe does")


if __name__ == "__main__":
    main(sys.argv[1])
