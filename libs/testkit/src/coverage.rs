//! Which branches a thread takes in code that was compiled to say so, and with which constants numbers are compared there.
//!
//! A crate that is built with `-Cpasses=sancov-module` calls the functions below, which LLVM names; this crate is not built so, or
//! they would call themselves. Nothing else calls them: in any other build nothing is recorded.

use std::cell::RefCell;

/// More than a crate has.
const EDGES: usize = 1 << 20;
/// Comparisons that are kept of a run.
const COMPARISONS: usize = 4_096;

/// What was seen of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Each edge once, with the magnitude of how often it was taken; [`edge`] takes that away.
    pub edges: Vec<u64>,
    /// A number and the constant that it was not.
    pub compared: Vec<(u64, u64)>,
}

struct Recorder {
    /// How often each edge was taken; empty while nothing is recorded.
    hits: Vec<u8>,
    taken: Vec<usize>,
    compared: Vec<(u64, u64)>,
    is_on: bool,
}

thread_local! {
    static RECORDER: RefCell<Recorder> =
        const { RefCell::new(Recorder { hits: Vec::new(), taken: Vec::new(), compared: Vec::new(), is_on: false }) };
}

/// What `run` gives, and what this thread recorded meanwhile.
pub fn recorded<T>(run: impl FnOnce() -> T) -> (T, Recorded) {
    RECORDER.with_borrow_mut(|recorder| {
        recorder.hits.resize(EDGES, 0);
        recorder.is_on = true;
    });
    let given = run();
    let recorded = RECORDER.with_borrow_mut(|recorder| {
        recorder.is_on = false;
        let Recorder { hits, taken, compared, .. } = recorder;
        let edges = taken.drain(..).map(|edge| (edge as u64) << 8 | u64::from(std::mem::take(&mut hits[edge]).ilog2())).collect();
        compared.sort_unstable();
        compared.dedup();
        Recorded { edges, compared: std::mem::take(compared) }
    });
    (given, recorded)
}

/// The edge of such a number, whatever the magnitude.
#[must_use]
pub const fn edge(recorded: u64) -> u64 {
    recorded >> 8
}

/// Called at each edge, with the address of its guard: the guards lie side by side, so that the address alone tells edges apart.
#[expect(unsafe_code, reason = "LLVM chose the name; no other function has it")]
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_pc_guard(guard: usize) {
    record(|Recorder { hits, taken, .. }| {
        let edge = guard / size_of::<u32>() % EDGES;
        if hits[edge] == 0 {
            taken.push(edge);
        }
        hits[edge] = hits[edge].saturating_add(1);
    });
}

/// Called once, before anything else, with the guards. They may stay as they are.
#[expect(unsafe_code, reason = "LLVM chose the name; no other function has it")]
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_pc_guard_init(_start: usize, _stop: usize) {}

macro_rules! comparisons {
    ($($name:ident($number:ty) $see:expr;)+) => {
        $(
            /// Called before two numbers of this size are compared.
            #[expect(unsafe_code, reason = "LLVM chose the name; no other function has it")]
            #[unsafe(no_mangle)]
            pub extern "C" fn $name(constant: $number, number: $number) {
                if $see && constant != number {
                    compared(number.into(), constant.into());
                }
            }
        )+
    };
}

// A byte is a letter more often than a number, and what is no constant is nothing to aim at.
comparisons! {
    __sanitizer_cov_trace_const_cmp1(u8) false;
    __sanitizer_cov_trace_const_cmp2(u16) true;
    __sanitizer_cov_trace_const_cmp4(u32) true;
    __sanitizer_cov_trace_const_cmp8(u64) true;
    __sanitizer_cov_trace_cmp1(u8) false;
    __sanitizer_cov_trace_cmp2(u16) false;
    __sanitizer_cov_trace_cmp4(u32) false;
    __sanitizer_cov_trace_cmp8(u64) false;
}

/// Called before a number chooses between cases: each of them is an edge.
#[expect(unsafe_code, reason = "LLVM chose the name; no other function has it")]
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_switch(_number: u64, _cases: usize) {}

fn compared(number: u64, constant: u64) {
    record(|recorder| {
        if recorder.compared.len() < COMPARISONS {
            recorder.compared.push((number, constant));
        }
    });
}

/// Nothing is recorded of what runs while a thread ends, or while its record is looked at.
fn record(note: impl FnOnce(&mut Recorder)) {
    let _ = RECORDER.try_with(|recorder| match recorder.try_borrow_mut() {
        Ok(mut recorder) if recorder.is_on => note(&mut recorder),
        _ => {}
    });
}
