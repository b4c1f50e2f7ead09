//! Products.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::text;

pub(crate) const FIELDS: &str = "active default_price description images marketing_features.name metadata.* name shippable \
    statement_descriptor tax_code unit_label url package_dimensions.*";
pub(crate) const NEW_FIELDS: &str = "active description id images marketing_features.name metadata.* name shippable \
    statement_descriptor tax_code type unit_label url package_dimensions.* default_price_data.*";

pub(crate) fn create(call: &mut Call) -> Answer {
    let name = call.params.required("name")?.to_owned();
    let id = call.params.text("id").map(str::to_owned);
    if id.as_deref().is_some_and(|id| call.world.find(id).is_some()) {
        return Err(Failure::invalid("Product already exists.").code("resource_already_exists").param("id"));
    }
    let id = id.unwrap_or_else(|| call.world.id("prod"));
    let product = from_name(call.world.clock.now(), &id, &name);
    let mut product = product;
    change(call, &mut product)?;
    call.world.put(&product);
    call.world.emit("product.created", &product);
    if let Some(data) = call.params.nested("default_price_data") {
        let price = crate::prices::make(call.world, &data, &id)?;
        product["default_price"] = price["id"].clone();
        call.world.put(&product);
    }
    Ok(product)
}

/// A product with nothing but a name.
pub(crate) fn from_name(now: i64, id: &str, name: &str) -> Value {
    json!({
        "id": id, "object": "product", "active": true, "attributes": [], "created": now, "default_price": null, "description": null,
        "images": [], "livemode": false, "marketing_features": [], "metadata": {}, "name": name, "package_dimensions": null,
        "shippable": null, "statement_descriptor": null, "tax_code": null, "type": "service", "unit_label": null, "updated": now,
        "url": null,
    })
}

fn change(call: &Call, product: &mut Value) -> Result<(), Failure> {
    call.params.change_texts(product, "description name statement_descriptor tax_code unit_label url");
    call.params.change_flags(product, "active shippable")?;
    call.params.change_metadata(product);
    for field in ["images", "marketing_features", "package_dimensions"].into_iter().filter(|field| call.params.has(field)) {
        product[field] = call.params.tree(field);
    }
    if let Some(price) = call.maybe_named("price", "default_price")? {
        product["default_price"] = price["id"].clone();
    }
    Ok(())
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut product = call.target("product")?;
    change(call, &mut product)?;
    product["updated"] = call.world.clock.now().into();
    call.world.update("product.updated", &product);
    Ok(product)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("product")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    let ids = call.params.texts("ids");
    page::of(call, "product", |product| {
        page::matches(call, product, "active shippable url type") && (ids.is_empty() || ids.contains(&text(product, "id")))
    })
}

/// Only without prices.
pub(crate) fn delete(call: &mut Call) -> Answer {
    let product = call.target("product")?;
    if call.world.all("price").any(|price| price["product"] == product["id"]) {
        let message = "This product cannot be deleted because it has one or more user-created prices.";
        return Err(Failure::invalid(message));
    }
    let id = text(&product, "id");
    call.world.emit("product.deleted", &product);
    Ok(call.world.delete(&id))
}
