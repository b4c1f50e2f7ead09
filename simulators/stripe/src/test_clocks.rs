//! Test clocks: virtual time of some customers.

use serde_json::json;

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::world::{number, text};
use crate::{page, time_passes};

/// A clock is forgotten after 30 days.
const KEPT_SECONDS: i64 = 30 * 86_400;
/// A clock goes at most two years ahead at once.
const LONGEST_STEP_SECONDS: i64 = 2 * 366 * 86_400;

pub(crate) fn create(call: &mut Call) -> Answer {
    let frozen = call.params.required_integer("frozen_time")?;
    let now = call.world.clock.now();
    let clock = json!({
        "id": call.world.id("clock"), "object": "test_helpers.test_clock", "created": now, "deletes_after": now + KEPT_SECONDS,
        "frozen_time": frozen, "livemode": false, "name": call.params.value("name"), "status": "ready", "status_details": {},
    });
    call.world.put(&clock);
    call.world.emit("test_helpers.test_clock.created", &clock);
    Ok(clock)
}

/// Stripe answers `advancing` and works on; here all is done when `ready` is told by an event.
pub(crate) fn advance(call: &mut Call) -> Answer {
    let mut clock = call.target("test_helpers.test_clock")?;
    let to = call.params.required_integer("frozen_time")?;
    let from = number(&clock, "frozen_time");
    if to <= from {
        return Err(Failure::invalid("You cannot advance a test clock to a time before its current frozen_time.").param("frozen_time"));
    }
    if to - from > LONGEST_STEP_SECONDS {
        return Err(Failure::invalid("You cannot advance a test clock by more than two years at once.").param("frozen_time"));
    }
    clock["status"] = "advancing".into();
    clock["status_details"] = json!({ "advancing": { "target_frozen_time": to } });
    call.world.put(&clock);
    call.world.emit("test_helpers.test_clock.advancing", &clock);
    // Nothing fails from here on, and two years are much to remember.
    call.world.commit();
    time_passes::until(call.world, &text(&clock, "id"), to);
    let mut reached = call.target("test_helpers.test_clock")?;
    reached["status"] = "ready".into();
    reached["status_details"] = json!({});
    call.world.put(&reached);
    call.world.emit("test_helpers.test_clock.ready", &reached);
    Ok(clock)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("test_helpers.test_clock")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "test_helpers.test_clock", |_| true)
}

/// Its customers go with it.
pub(crate) fn delete(call: &mut Call) -> Answer {
    let clock = call.target("test_helpers.test_clock")?;
    let customers: Vec<String> =
        call.world.all("customer").filter(|customer| customer["test_clock"] == clock["id"]).map(|customer| text(customer, "id")).collect();
    for customer in customers {
        call.world.delete(&customer);
    }
    call.world.emit("test_helpers.test_clock.deleted", &clock);
    Ok(call.world.delete(&text(&clock, "id")))
}
