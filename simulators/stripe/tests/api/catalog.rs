//! Products, prices, coupons, promotion codes, tax rates.

use super::client::{Shop, id};

#[tokio::test]
async fn prices_are_found_by_their_lookup_key_which_only_one_has() {
    let shop = Shop::start().await;
    let form = "unit_amount=1000&currency=usd&product_data[name]=Pro&recurring[interval]=month&lookup_key=pro";
    let first = shop.post("prices", form).await;
    assert_eq!((&first["type"], &first["recurring"]["interval_count"]), (&"recurring".into(), &1.into()));
    let (status, taken) = shop.try_post("prices", form).await;
    assert_eq!((status, &taken["error"]["param"]), (400, &"lookup_key".into()));
    let second = shop.post("prices", &format!("{form}&transfer_lookup_key=true")).await;
    let found = shop.get("prices?lookup_keys[]=pro&active=true").await;
    assert_eq!(found["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), [id(&second)]);
}

#[tokio::test]
async fn amounts_and_currencies_that_make_no_sense_are_refused() {
    let shop = Shop::start().await;
    for (form, param) in [
        ("unit_amount=1.5&currency=usd&product_data[name]=x", "unit_amount"),
        ("unit_amount=-1&currency=usd&product_data[name]=x", "unit_amount"),
        ("unit_amount=1&currency=xxx&product_data[name]=x", "currency"),
        ("unit_amount=1&currency=usd", "product"),
        ("currency=usd&product_data[name]=x", "unit_amount"),
        ("unit_amount=1&currency=usd&product=prod_none", "product"),
        ("unit_amount=1&currency=usd&product_data[name]=x&recurring[interval]=hour", "recurring[interval]"),
    ] {
        let (status, refused) = shop.try_post("prices", form).await;
        assert_eq!((status, &refused["error"]["param"]), (400, &param.into()), "{form}");
    }
    for currency in ["jpy", "kwd"] {
        assert_eq!(shop.post("prices", &format!("unit_amount=1500&currency={currency}&product_data[name]=x")).await["unit_amount"], 1500);
    }
}

#[tokio::test]
async fn a_coupon_takes_off_a_percentage_or_an_amount_and_not_both() {
    let shop = Shop::start().await;
    let percent = shop.post("coupons", "percent_off=12.5&duration=once&id=SPRING").await;
    assert_eq!((&percent["id"], &percent["percent_off"], &percent["valid"]), (&"SPRING".into(), &12.5.into(), &true.into()));
    shop.post("coupons", "amount_off=500&currency=usd&duration=forever").await;
    assert_eq!(shop.try_post("coupons", "amount_off=500&currency=usd&percent_off=1").await.0, 400);
    assert_eq!(shop.try_post("coupons", "duration=forever").await.0, 400);
    assert_eq!(shop.try_post("coupons", "percent_off=101").await.0, 400);
    assert_eq!(shop.try_post("coupons", "percent_off=5&duration=repeating").await.0, 400);
    let code = shop.post("promotion_codes", "promotion[type]=coupon&promotion[coupon]=SPRING&code=hello").await;
    assert_eq!((&code["code"], &code["promotion"]["coupon"]), (&"HELLO".into(), &"SPRING".into()));
    assert_eq!(shop.get("promotion_codes?code=HELLO").await["data"][0]["id"], code["id"]);
}

#[tokio::test]
async fn a_code_is_for_its_customer_and_for_as_often_as_it_says() {
    let shop = Shop::start().await;
    let (owner, other) = (shop.customer_with("pm_card_visa").await, shop.customer_with("pm_card_visa").await);
    let price = shop.price(1000, "usd", Some("month")).await;
    shop.post("coupons", "percent_off=50&duration=forever&id=HALF").await;
    let form = format!("promotion[type]=coupon&promotion[coupon]=HALF&code=ONE&customer={owner}&max_redemptions=1");
    let code = id(&shop.post("promotion_codes", &form).await);
    let buy = |customer: &str| format!("customer={customer}&items[0][price]={price}&discounts[0][promotion_code]={code}");
    assert_eq!(shop.try_post("subscriptions", &buy(&other)).await.0, 400);
    assert_eq!(shop.try_post("subscriptions", &buy(&owner)).await.0, 200);
    assert_eq!(shop.try_post("subscriptions", &buy(&owner)).await.0, 400);
    assert_eq!(shop.get("coupons/HALF").await["times_redeemed"], 1);
}

#[tokio::test]
async fn a_product_with_prices_cannot_be_deleted() {
    let shop = Shop::start().await;
    let price = shop.price(100, "usd", None).await;
    let product = shop.get(&format!("prices/{price}")).await["product"].as_str().unwrap().to_owned();
    assert_eq!(shop.request(reqwest::Method::DELETE, &format!("products/{product}"), "").send().await.unwrap().status(), 400);
    let free = id(&shop.post("products", "name=Free").await);
    assert_eq!(shop.delete(&format!("products/{free}")).await["deleted"], true);
}

#[tokio::test]
async fn a_tax_rate_keeps_its_percentage() {
    let shop = Shop::start().await;
    let rate = shop.post("tax_rates", "display_name=VAT&percentage=19&inclusive=false").await;
    assert_eq!(rate["percentage"], 19);
    assert_eq!(shop.try_post(&format!("tax_rates/{}", id(&rate)), "percentage=20").await.0, 400);
    assert_eq!(shop.post(&format!("tax_rates/{}", id(&rate)), "active=false").await["active"], false);
}
