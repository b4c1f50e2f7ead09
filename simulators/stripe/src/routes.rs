//! Every endpoint of the API, with the parameters that it takes: the table of contents of the simulator.

use crate::call::{Answer, Call};
use crate::{
    balance, charges, checkout, coupons, credit_notes, customers, disputes, endpoints, events, invoice_items, invoices, meters, page,
    payment_methods, payments, portal, prices, products, refunds, schedules, subscriptions, tax_rates, test_clocks,
};

/// An endpoint.
pub(crate) struct Route {
    method: &'static str,
    /// `{}` stands for one segment.
    path: &'static str,
    /// Parameters in the way of [`crate::params::Params::check`].
    pub(crate) params: &'static str,
    pub(crate) handler: fn(&mut Call) -> Answer,
}

/// A route and the segments that its path left open.
pub(crate) struct Matched {
    pub(crate) route: &'static Route,
    pub(crate) path: Vec<String>,
}

/// The endpoint of a method and a path.
pub(crate) fn find(method: &str, path: &str) -> Option<Matched> {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let tables = [CATALOG, CUSTOMERS, PAYMENTS, BILLING, OPERATIONS];
    // A fixed segment is meant before an open one: the tables are in that order.
    tables
        .into_iter()
        .flatten()
        .filter(|route| route.method == method)
        .find_map(|route| Some(Matched { route, path: matched(route.path, &segments)? }))
}

fn matched(pattern: &str, segments: &[&str]) -> Option<Vec<String>> {
    let wanted: Vec<&str> = pattern.split('/').collect();
    if wanted.len() != segments.len() {
        return None;
    }
    let mut open = Vec::new();
    for (wanted, found) in wanted.into_iter().zip(segments) {
        if wanted == "{}" && !found.is_empty() {
            open.push((*found).to_owned());
        } else if wanted != *found {
            return None;
        }
    }
    Some(open)
}

const fn get(path: &'static str, params: &'static str, handler: fn(&mut Call) -> Answer) -> Route {
    Route { method: "GET", path, params, handler }
}

const fn post(path: &'static str, params: &'static str, handler: fn(&mut Call) -> Answer) -> Route {
    Route { method: "POST", path, params, handler }
}

const fn delete(path: &'static str, params: &'static str, handler: fn(&mut Call) -> Answer) -> Route {
    Route { method: "DELETE", path, params, handler }
}

/// The parameters of lists, and those of one list; written out because constants cannot be joined.
macro_rules! listed {
    ($more:literal) => {
        concat!("limit starting_after ending_before created created.gt created.gte created.lt created.lte ", $more)
    };
}

/// What is sold, and on what terms.
const CATALOG: &[Route] = &[
    post("/v1/products", products::NEW_FIELDS, products::create),
    get("/v1/products", listed!("active ids shippable url type"), products::list),
    get("/v1/products/{}", "", products::retrieve),
    post("/v1/products/{}", products::FIELDS, products::update),
    delete("/v1/products/{}", "", products::delete),
    post("/v1/prices", prices::NEW_FIELDS, prices::create),
    get("/v1/prices", listed!("active currency lookup_keys product recurring.interval type"), prices::list),
    get("/v1/prices/{}", "", prices::retrieve),
    post("/v1/prices/{}", prices::FIELDS, prices::update),
    post("/v1/coupons", coupons::FIELDS, coupons::create),
    get("/v1/coupons", page::PARAMS, coupons::list),
    get("/v1/coupons/{}", "", coupons::retrieve),
    post("/v1/coupons/{}", "name metadata.*", coupons::update),
    delete("/v1/coupons/{}", "", coupons::delete),
    post("/v1/promotion_codes", coupons::CODE_FIELDS, coupons::create_code),
    get("/v1/promotion_codes", listed!("active code coupon customer"), coupons::list_codes),
    get("/v1/promotion_codes/{}", "", coupons::retrieve_code),
    post("/v1/promotion_codes/{}", "active metadata.*", coupons::update_code),
    post("/v1/tax_rates", tax_rates::FIELDS, tax_rates::create),
    get("/v1/tax_rates", listed!("active inclusive"), tax_rates::list),
    get("/v1/tax_rates/{}", "", tax_rates::retrieve),
    post("/v1/tax_rates/{}", tax_rates::FIELDS, tax_rates::update),
];

/// Who buys, and with which card.
const CUSTOMERS: &[Route] = &[
    post("/v1/customers", customers::NEW_FIELDS, customers::create),
    get("/v1/customers", listed!("email test_clock"), customers::list),
    get("/v1/customers/{}", "", customers::retrieve),
    post("/v1/customers/{}", customers::FIELDS, customers::update),
    delete("/v1/customers/{}", "", customers::delete),
    post("/v1/customers/{}/balance_transactions", "amount currency description metadata.*", balance::create),
    get("/v1/customers/{}/balance_transactions", page::PARAMS, balance::list),
    get("/v1/customers/{}/balance_transactions/{}", "", balance::retrieve),
    get("/v1/customers/{}/payment_methods", listed!("type"), payment_methods::list_of_customer),
    post("/v1/payment_methods", payment_methods::NEW_FIELDS, payment_methods::create),
    get("/v1/payment_methods", listed!("customer type"), payment_methods::list),
    get("/v1/payment_methods/{}", "", payment_methods::retrieve),
    post("/v1/payment_methods/{}", payment_methods::FIELDS, payment_methods::update),
    post("/v1/payment_methods/{}/attach", "customer", payment_methods::attach),
    post("/v1/payment_methods/{}/detach", "", payment_methods::detach),
];

/// Money that moves, and goes back.
const PAYMENTS: &[Route] = &[
    post("/v1/payment_intents", payments::NEW_FIELDS, payments::create),
    get("/v1/payment_intents", listed!("customer"), payments::list),
    get("/v1/payment_intents/{}", "client_secret", payments::retrieve),
    post("/v1/payment_intents/{}", payments::FIELDS, payments::update),
    post("/v1/payment_intents/{}/confirm", payments::CONFIRM_FIELDS, payments::confirm),
    post("/v1/payment_intents/{}/capture", "amount_to_capture", payments::capture),
    post("/v1/payment_intents/{}/cancel", "cancellation_reason", payments::cancel),
    get("/v1/setup_intents/{}", "client_secret", payments::retrieve_setup),
    get("/v1/charges", listed!("customer payment_intent"), charges::list),
    get("/v1/charges/{}", "", charges::retrieve),
    post("/v1/refunds", refunds::FIELDS, refunds::create),
    get("/v1/refunds", listed!("charge payment_intent"), refunds::list),
    get("/v1/refunds/{}", "", refunds::retrieve),
    post("/v1/refunds/{}", "metadata.*", refunds::update),
    get("/v1/disputes", listed!("charge payment_intent"), disputes::list),
    get("/v1/disputes/{}", "", disputes::retrieve),
    post("/v1/disputes/{}", "evidence.* metadata.* submit", disputes::update),
    post("/v1/disputes/{}/close", "", disputes::accept),
    post("/v1/checkout/sessions", checkout::NEW_FIELDS, checkout::create),
    get("/v1/checkout/sessions", listed!("customer payment_intent subscription status"), checkout::list),
    get("/v1/checkout/sessions/{}", "", checkout::retrieve),
    post("/v1/checkout/sessions/{}", checkout::FIELDS, checkout::update),
    post("/v1/checkout/sessions/{}/expire", "", checkout::expire),
    get("/v1/checkout/sessions/{}/line_items", page::PARAMS, checkout::list_line_items),
    post("/v1/billing_portal/sessions", "customer return_url configuration locale", portal::create),
    post("/v1/billing_portal/configurations", portal::CONFIGURATION_FIELDS, portal::create_configuration),
    get("/v1/billing_portal/configurations", listed!("active is_default"), portal::list_configurations),
    get("/v1/billing_portal/configurations/{}", "", portal::retrieve_configuration),
    post("/v1/billing_portal/configurations/{}", portal::CONFIGURATION_FIELDS, portal::update_configuration),
];

/// What recurs.
const BILLING: &[Route] = &[
    post("/v1/subscriptions", subscriptions::NEW_FIELDS, subscriptions::create),
    get("/v1/subscriptions", listed!("customer status price collection_method test_clock"), subscriptions::list),
    get("/v1/subscriptions/{}", "", subscriptions::retrieve),
    post("/v1/subscriptions/{}", subscriptions::FIELDS, subscriptions::update),
    delete("/v1/subscriptions/{}", "cancellation_details.*", subscriptions::cancel),
    post("/v1/subscriptions/{}/resume", "billing_cycle_anchor", subscriptions::resume),
    post("/v1/subscription_schedules", schedules::NEW_FIELDS, schedules::create),
    get("/v1/subscription_schedules", listed!("customer"), schedules::list),
    get("/v1/subscription_schedules/{}", "", schedules::retrieve),
    post("/v1/subscription_schedules/{}", schedules::FIELDS, schedules::update),
    post("/v1/subscription_schedules/{}/release", "preserve_cancel_date", schedules::release),
    post("/v1/subscription_schedules/{}/cancel", "", schedules::cancel),
    post("/v1/invoices/create_preview", subscriptions::PREVIEW_FIELDS, invoices::create_preview),
    post("/v1/invoices", invoices::NEW_FIELDS, invoices::create),
    get("/v1/invoices", listed!("collection_method customer status subscription"), invoices::list),
    get("/v1/invoices/{}", "", invoices::retrieve),
    post("/v1/invoices/{}", invoices::FIELDS, invoices::update),
    delete("/v1/invoices/{}", "", invoices::delete),
    post("/v1/invoices/{}/finalize", "auto_advance", invoices::finalize),
    post("/v1/invoices/{}/pay", "payment_method off_session paid_out_of_band", invoices::pay),
    post("/v1/invoices/{}/void", "", invoices::void),
    post("/v1/invoices/{}/mark_uncollectible", "", invoices::mark_uncollectible),
    get("/v1/invoices/{}/lines", page::PARAMS, invoices::list_lines),
    get("/v1/invoice_payments", listed!("invoice status payment.type payment.payment_intent"), invoices::list_payments),
    post("/v1/invoiceitems", invoice_items::FIELDS, invoice_items::create),
    get("/v1/invoiceitems", listed!("customer invoice pending"), invoice_items::list),
    get("/v1/invoiceitems/{}", "", invoice_items::retrieve),
    delete("/v1/invoiceitems/{}", "", invoice_items::delete),
    post("/v1/credit_notes", credit_notes::FIELDS, credit_notes::create),
    get("/v1/credit_notes", listed!("customer invoice"), credit_notes::list),
    get("/v1/credit_notes/{}", "", credit_notes::retrieve),
    post("/v1/credit_notes/{}", "memo metadata.*", credit_notes::update),
    post("/v1/credit_notes/{}/void", "", credit_notes::void),
    get("/v1/credit_notes/{}/lines", page::PARAMS, credit_notes::list_lines),
    post("/v1/billing/meters", meters::FIELDS, meters::create),
    get("/v1/billing/meters", listed!("status"), meters::list),
    get("/v1/billing/meters/{}", "", meters::retrieve),
    post("/v1/billing/meters/{}", "display_name", meters::update),
    post("/v1/billing/meters/{}/deactivate", "", meters::deactivate),
    post("/v1/billing/meters/{}/reactivate", "", meters::reactivate),
    get("/v1/billing/meters/{}/event_summaries", listed!("customer start_time end_time value_grouping_window"), meters::summaries),
    post("/v1/billing/meter_events", "event_name identifier payload.* timestamp", meters::report),
    post("/v1/billing/meter_event_adjustments", "event_name type cancel.identifier", meters::adjust),
];

/// Events, where they go, and virtual time.
const OPERATIONS: &[Route] = &[
    get("/v1/events", listed!("type types delivery_success"), events::list),
    get("/v1/events/{}", "", events::retrieve),
    post("/v1/webhook_endpoints", "url enabled_events description metadata.* api_version connect", endpoints::create),
    get("/v1/webhook_endpoints", page::PARAMS, endpoints::list),
    get("/v1/webhook_endpoints/{}", "", endpoints::retrieve),
    post("/v1/webhook_endpoints/{}", "url enabled_events description metadata.* disabled", endpoints::update),
    delete("/v1/webhook_endpoints/{}", "", endpoints::delete),
    post("/v1/test_helpers/test_clocks", "frozen_time name", test_clocks::create),
    get("/v1/test_helpers/test_clocks", page::PARAMS, test_clocks::list),
    get("/v1/test_helpers/test_clocks/{}", "", test_clocks::retrieve),
    post("/v1/test_helpers/test_clocks/{}/advance", "frozen_time", test_clocks::advance),
    delete("/v1/test_helpers/test_clocks/{}", "", test_clocks::delete),
];
