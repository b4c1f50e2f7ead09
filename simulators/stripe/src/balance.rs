//! A customer's credit balance: what is owed to it (negative) or by it, settled with its next invoices.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::money;
use crate::page;
use crate::world::{World, number};

/// Moves the balance and keeps the transaction.
pub(crate) fn add(world: &mut World, customer: &Value, amount: i64, currency: &str, kind: &str, of: &[(&str, Value)]) -> Value {
    let mut customer = customer.clone();
    let ending = number(&customer, "balance") + amount;
    let mut transaction = json!({
        "id": world.id("cbtxn"), "object": "customer_balance_transaction", "amount": amount, "checkout_session": null,
        "created": world.now_of(&customer), "credit_note": null, "currency": currency, "customer": customer["id"], "description": null,
        "ending_balance": ending, "invoice": null, "livemode": false, "metadata": {}, "type": kind,
    });
    for (name, value) in of {
        transaction[*name] = value.clone();
    }
    world.put(&transaction);
    customer["balance"] = ending.into();
    if customer["currency"].is_null() {
        customer["currency"] = currency.into();
    }
    world.update("customer.updated", &customer);
    transaction
}

pub(crate) fn create(call: &mut Call) -> Answer {
    let customer = call.target("customer")?;
    let amount = call.params.required_integer("amount")?;
    let currency = money::currency(call.params.required("currency")?, "currency")?;
    let mut transaction = add(call.world, &customer, amount, &currency, "adjustment", &[]);
    call.params.change_texts(&mut transaction, "description");
    call.params.change_metadata(&mut transaction);
    call.world.put(&transaction);
    Ok(transaction)
}

pub(crate) fn list(call: &mut Call) -> Answer {
    let customer = call.target("customer")?;
    page::of(call, "customer_balance_transaction", |transaction| transaction["customer"] == customer["id"])
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    let id = call.path.get(1).cloned().unwrap_or_default();
    call.world.get("customer_balance_transaction", &id, "id")
}
