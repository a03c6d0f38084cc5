//! Names of owners: one for each appointment, never used before.

use crate::Uuid;

/// Gives names: half of them says which run of the control plane gave it, the other half counts.
#[derive(Debug)]
pub struct Owners {
    run: [u8; 8],
    given: u64,
}

impl Owners {
    /// For this run: `run` is random, so that no two runs give the same.
    #[must_use]
    pub const fn new(run: [u8; 8]) -> Self {
        Self { run, given: 0 }
    }

    /// A name. It is never zeros, which would mean that there is no owner.
    pub fn name(&mut self) -> Uuid {
        self.given += 1;
        let mut name = [0; 16];
        name[..8].copy_from_slice(&self.run);
        name[8..].copy_from_slice(&self.given.to_be_bytes());
        name
    }
}
