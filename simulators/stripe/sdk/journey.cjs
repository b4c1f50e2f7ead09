// The official Node library against the simulator, unmodified: `npm install stripe`, then `node journey.cjs http://127.0.0.1:4020`.
const assert = require("node:assert/strict");
const Stripe = require("stripe");

async function main(base) {
  const { hostname, port } = new URL(base);
  const stripe = new (Stripe.default ?? Stripe)("sk_test_simulator", { host: hostname, port, protocol: "http" });
  const customer = await stripe.customers.create({ email: "ann@example.com" });
  const method = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
  const price = await stripe.prices.create({
    unit_amount: 1000,
    currency: "jpy",
    recurring: { interval: "month" },
    product_data: { name: "Pro" },
  });
  const bought = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: price.id }],
    default_payment_method: method.id,
    expand: ["latest_invoice"],
  });
  assert.deepEqual([bought.status, bought.latest_invoice.amount_paid], ["active", 1000]);
  const line = { price: price.id, quantity: 1 };
  const session = await stripe.checkout.sessions.create({ mode: "subscription", success_url: "http://shop.example", line_items: [line] });
  assert.equal(session.status, "open");
  await assert.rejects(stripe.customers.retrieve("cus_none"), { code: "resource_missing", statusCode: 404 });
  const types = [];
  for await (const event of stripe.events.list({ limit: 3 })) types.push(event.type);
  assert.ok(types.includes("customer.subscription.created") && types.length > 3, types.join());
  assert.equal((await stripe.customers.del(customer.id)).deleted, true);
  console.log("all steps answered as Stripe does");
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
