//! What happens because time passes: each thing at its instant, in order.

use std::time::Duration;

use crate::simulator::Simulator;
use crate::world::{World, text};
use crate::{checkout, invoices, schedules, subscriptions};

const TICK: Duration = Duration::from_secs(1);

/// Moves a clock (`""` is the global one) to an instant, and does on the way what is due.
pub(crate) fn until(world: &mut World, clock: &str, to: i64) {
    while let Some((at, id)) = world.next_due(clock, to) {
        set(world, clock, at);
        wake(world, &id);
    }
    set(world, clock, to);
}

/// Wakes what is due on a clock that goes on by itself.
pub(crate) async fn by_itself(simulator: Simulator) {
    loop {
        tokio::time::sleep(TICK).await;
        simulator.act(|_| ());
    }
}

fn set(world: &mut World, clock: &str, to: i64) {
    if clock.is_empty() {
        world.clock.advance_to(to);
    } else if let Some(mut object) = world.find(clock).cloned()
        && object["frozen_time"].as_i64().is_some_and(|frozen| frozen < to)
    {
        object["frozen_time"] = to.into();
        world.put(&object);
    }
}

/// Has an object do what is due for it now; whether anything is, it knows itself.
fn wake(world: &mut World, id: &str) {
    let Some(object) = world.find(id).cloned() else { return };
    match text(&object, "object").as_str() {
        "subscription" => subscriptions::due(world, &object),
        "invoice" => invoices::due(world, &object),
        "checkout.session" => checkout::due(world, &object),
        "subscription_schedule" => schedules::due(world, &object),
        _ => {}
    }
}
