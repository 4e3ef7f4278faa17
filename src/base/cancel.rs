//! A request to stop, shared between the thread that works and whoever asks it to stop.

use super::error::{Error, Result, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that asks a running call to stop. Clones share the flag.
///
/// Any thread may use any method at any time. A call that finds the flag set ends with
/// [`Status::Cancelled`] and leaves its handle usable; the flag stays set until [`Cancel::reset`].
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Sets the flag. One atomic store: safe in a signal handler.
    pub fn fire(&self) {
        // Relaxed: the flag carries no data; it only has to be seen soon.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Clears the flag, so that it may serve another call.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the flag is set. One atomic load: cheap enough for every layer or tensor.
    pub fn is_fired(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Status::Cancelled`] when the flag is set; `doing` names what was stopped.
    pub fn check(&self, doing: &str) -> Result<()> {
        if self.is_fired() {
            return Err(Error::new(Status::Cancelled, format!("{doing} was cancelled")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_flag() {
        let cancel = Cancel::new();
        let other = cancel.clone();
        assert!(!cancel.is_fired() && other.check("loading").is_ok());
        std::thread::spawn(move || other.fire()).join().unwrap();
        let error = cancel.check("loading").unwrap_err();
        assert_eq!(error.status(), Status::Cancelled);
        assert_eq!(error.message(), "loading was cancelled");
        cancel.reset();
        assert!(!cancel.is_fired());
    }
}
