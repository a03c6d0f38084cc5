//! Panics as findings: a machine that panics has broken a promise like any other.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::oracle::Violation;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs something; a panic in it is a violation of `NoPanic`, with its place.
///
/// # Errors
/// What it returns, or the panic.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    install();
    let before = GUARDED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome.unwrap_or_else(|_| Err(Violation::new("NoPanic", SAID.take())))
}

/// Keeps what a guarded thread's panic says instead of printing it.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                // For who looks into one finding.
                if std::env::var_os("RUST_BACKTRACE").is_some_and(|set| set == "full") {
                    eprintln!("{}", Backtrace::force_capture());
                }
                SAID.set(info.to_string().replace('\n', " "));
            } else {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_finding_with_its_place() {
        let found = guard::<()>(|| panic!("out of cheese")).unwrap_err();
        assert_eq!(found.invariant, "NoPanic");
        assert!(found.text.contains("out of cheese") && found.text.contains("guard.rs"));
        assert_eq!(guard(|| Ok(7)), Ok(7));
    }
}
