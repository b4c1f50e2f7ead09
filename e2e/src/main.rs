//! The journey and the fault drills, on a stack of their own: `bazel run //e2e:e2e` (images and secrets must be there).
//!
//! Prints one line for each case and `N passed, N failed` at the end. With `--kills N` it kills so many containers' processes at random
//! instants instead (`./dev soak`).

mod drills;
mod journey;
mod operations;
mod person;
mod reconcile;
mod shop;
mod soak;
mod stack;
mod traces;

use std::process::ExitCode;
use std::time::Instant;

use stack::Stack;

#[tokio::main]
async fn main() -> ExitCode {
    // Fails when it is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stack = match Stack::start() {
        Ok(stack) => stack,
        Err(error) => {
            println!("the stack did not start: {error:#}\n0 passed, 1 failed");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed) = (0, 0);
    macro_rules! case {
        ($name:literal, $run:expr) => {{
            let started = Instant::now();
            match $run.await {
                Ok(()) => {
                    passed += 1;
                    println!("ok      {} ({:.1} s)", $name, started.elapsed().as_secs_f64());
                }
                Err(error) => {
                    failed += 1;
                    println!("FAILED  {}\n        {error:#}", $name);
                    stack.print_logs();
                }
            }
        }};
    }
    if let Some(kills) = soak::wanted() {
        case!("processes killed at random instants under load: the books agree", soak::run(&stack, kills));
        return end(&stack, passed, failed);
    }
    case!(
        "a person signs up, makes a key, and gets a completion and a stream through an unmodified OpenAI client",
        journey::completion_and_stream(&stack)
    );
    case!("the balance falls by exactly what the usage rows say, to the simulator's own count", journey::money_agrees(&stack));
    case!("a bad key, an unknown model and an empty wallet get OpenAI's errors", journey::errors(&stack));
    case!("one trace id in Jaeger holds spans of all three services", journey::one_trace(&stack));
    case!("what a person decides is on record with the trace of the call", journey::decision_has_its_trace(&stack));
    case!(
        "a plan and credit are bought on the simulator's pages, spent by 50 streams at once, topped up and given back, and the books agree",
        shop::bought_spent_topped_up_and_given_back(&stack)
    );
    case!("a revoked key is refused within a second", journey::revoked_key(&stack));
    case!("a hard budget refuses as soon as it is made, and not when it is gone", journey::hard_budget(&stack));
    case!("the commands of the README marked as runnable work", async { stack.run_documents() });
    case!("a client that leaves in the middle of a stream pays for what was made, once", drills::client_leaves(&stack));
    case!("a provider that cuts its streams costs what was delivered, once", drills::provider_cuts(&stack));
    case!("a provider that hangs costs nothing and gives the hold back", drills::provider_hangs(&stack));
    case!("redis paused under load: nothing lost, nothing doubled", drills::paused(&stack, "redis"));
    case!("postgres paused under load: nothing lost, nothing doubled", drills::paused(&stack, "postgres"));
    case!("redis killed under load: nothing lost, nothing doubled", drills::killed(&stack, "redis"));
    case!("postgres killed under load: nothing lost, nothing doubled", drills::killed(&stack, "postgres"));
    case!("auth-service killed under load: nothing lost, nothing doubled", drills::killed(&stack, "auth-service"));
    case!("billing-service killed under load: nothing lost, nothing doubled", drills::killed(&stack, "billing-service"));
    case!("the model provider killed under load: nothing lost, nothing doubled", drills::killed(&stack, "llm-simulator"));
    case!("jaeger killed under load: nothing lost, nothing doubled", drills::killed(&stack, "jaeger"));
    case!(
        "chat-service killed under load: its own requests stand there once, abandoned, their holds resolved",
        drills::killed(&stack, "chat-service")
    );
    case!("starting what runs changes nothing", async { operations::up_again(&stack) });
    case!("a configuration that is not usable stops the start with one message that lists everything", async {
        operations::unusable_configuration(&stack)
    });
    case!("a backup that is restored on an empty machine has the same books and the same keys", operations::restored_backup(&stack));
    case!("every service stops by itself with status 0 when it is asked to", drills::stops_cleanly(&stack));
    end(&stack, passed, failed)
}

fn end(stack: &Stack, passed: usize, failed: usize) -> ExitCode {
    stack.remove();
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
