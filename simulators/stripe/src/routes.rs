//! Every endpoint of the API, with the parameters that it takes: the table of contents of the simulator.

use crate::call::{Answer, Call};
use crate::{coupons, customers, endpoints, events, page, payment_methods, prices, products, tax_rates, test_clocks};

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
    let tables = [CATALOG, CUSTOMERS, OPERATIONS];
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
    get("/v1/customers/{}/payment_methods", listed!("type"), payment_methods::list_of_customer),
    post("/v1/payment_methods", payment_methods::NEW_FIELDS, payment_methods::create),
    get("/v1/payment_methods", listed!("customer type"), payment_methods::list),
    get("/v1/payment_methods/{}", "", payment_methods::retrieve),
    post("/v1/payment_methods/{}", payment_methods::FIELDS, payment_methods::update),
    post("/v1/payment_methods/{}/attach", "customer", payment_methods::attach),
    post("/v1/payment_methods/{}/detach", "", payment_methods::detach),
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
