//! Named steps of the paths that money takes: where a drill may end the process, between what was just done and what comes next.
//!
//! A step is an event of `tracing` with a target of its own, which the log filter of a service never lets through, whatever it is set to: in
//! a service it costs the look at a constant, and no setting can make it do anything. The drill (`proof/`) links the services into
//! programs of its own that watch their steps ([`cli::run_watched`](crate::cli::run_watched)).

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

#[doc(hidden)]
pub use tracing;

/// The target of all steps.
pub const TARGET: &str = "step";

/// What is told the name of each step that is taken, on the thread that takes it.
pub type Watcher = fn(&'static str);

/// Marks a step: `step!("lease.held")`, where the name says what has just been done. Each name is in `proof/src/steps.rs`.
#[macro_export]
macro_rules! step {
    ($name:literal) => {
        $crate::steps::tracing::event!(name: $name, target: "step", $crate::steps::tracing::Level::TRACE, "a step")
    };
}

/// A log filter, with or without steps.
pub(crate) fn filtered(filter: Targets, watcher: Option<Watcher>) -> Targets {
    filter.with_target(TARGET, if watcher.is_some() { LevelFilter::TRACE } else { LevelFilter::OFF })
}

/// Tells of steps, and keeps them from every layer below it.
pub(crate) struct Steps(pub(crate) Option<Watcher>);

impl<S: Subscriber> Layer<S> for Steps {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let is_step = event.metadata().target() == TARGET;
        if let Some(watcher) = self.0.filter(|_| is_step) {
            watcher(event.metadata().name());
        }
        !is_step
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    static PRINTED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

    /// Notes what a log would print.
    struct Printer;

    impl<S: Subscriber> Layer<S> for Printer {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            PRINTED.lock().unwrap().push(event.metadata().target());
        }
    }

    fn take(filter: &str, watcher: Option<Watcher>) {
        let filter = filtered(filter.parse().unwrap(), watcher);
        let subscriber = tracing_subscriber::registry().with(filter).with(Printer).with(Steps(watcher));
        tracing::subscriber::with_default(subscriber, || {
            step!("test.taken");
            tracing::error!(target: "line", "a line");
        });
    }

    /// One test for all, because a process has one highest level.
    #[test]
    fn a_step_is_seen_by_its_watcher_whatever_the_filter_is_and_is_never_printed() {
        take("warn", Some(|name| SEEN.lock().unwrap().push(name)));
        assert_eq!(*SEEN.lock().unwrap(), ["test.taken"], "a filter of warnings hides no step");
        take("trace,step=trace", None);
        assert_eq!(*SEEN.lock().unwrap(), ["test.taken"], "nobody watches");
        assert_eq!(*PRINTED.lock().unwrap(), ["line", "line"], "a step was printed");
    }
}
