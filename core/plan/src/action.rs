//! What is to be done.

use crate::Uuid;

/// Something to do about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which volume.
    pub volume: Uuid,
    /// What.
    pub step: Step,
}

/// What people asked for, and a volume cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be larger.
    Size {
        /// Bytes.
        bytes: u64,
    },
    /// Another snapshot.
    Snapshot {
        /// Which.
        snapshot: Uuid,
    },
    /// Another replica.
    Replica {
        /// Which.
        replica: Uuid,
    },
}

/// What is to be done about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An engine becomes the owner, under a name that was never used.
    TakeOver {
        /// Which engine.
        engine: Uuid,
        /// With the members that answer, whatever may be lost.
        force: bool,
        /// It is what an operator asked for, by this number.
        asked: Option<u64>,
    },
    /// The owner leaves in order, because an operator asked so, or its engine stops.
    HandOver {
        /// Where it is.
        engine: Uuid,
        /// An operator's request, by this number.
        asked: Option<u64>,
    },
    /// The owner brings a replica back.
    Return {
        /// Where the owner is.
        engine: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// An engine stands by.
    Standby {
        /// Which.
        engine: Uuid,
    },
    /// An engine has no part in the volume any more.
    Withdraw {
        /// Which.
        engine: Uuid,
    },
    /// A replica goes away with its data.
    DropReplica {
        /// Where it is.
        engine: Uuid,
        /// Which.
        replica: Uuid,
    },
    /// The owner makes the volume larger.
    Resize {
        /// Where the owner is.
        engine: Uuid,
        /// Bytes that it shall have.
        bytes: u64,
    },
    /// An engine makes a replica.
    MakeReplica {
        /// Which engine.
        engine: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// The owner names a replica that was made.
    AddMember {
        /// Where the owner is.
        engine: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// The owner takes a member out: it is away then.
    TakeOut {
        /// Where the owner is.
        engine: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// The owner names a replica that is away no more.
    GiveUp {
        /// Where the owner is.
        engine: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// A replica that is gone is listed no more.
    Unlist {
        /// Which.
        replica: Uuid,
    },
    /// The owner takes a snapshot.
    TakeSnapshot {
        /// Where the owner is.
        engine: Uuid,
        /// Which snapshot.
        snapshot: Uuid,
    },
    /// The owner lets a snapshot go.
    DropSnapshot {
        /// Where the owner is.
        engine: Uuid,
        /// Which snapshot.
        snapshot: Uuid,
    },
    /// A wish that was refused for good, or too often, is one no more.
    End {
        /// Which.
        wish: Wish,
    },
    /// Nothing of the volume is left but its record.
    Forget,
}

impl Step {
    /// Who does it; None: the store.
    #[must_use]
    pub const fn engine(&self) -> Option<Uuid> {
        match self {
            Self::TakeOver { engine, .. }
            | Self::HandOver { engine, .. }
            | Self::Return { engine, .. }
            | Self::Standby { engine }
            | Self::Withdraw { engine }
            | Self::DropReplica { engine, .. }
            | Self::Resize { engine, .. }
            | Self::MakeReplica { engine, .. }
            | Self::AddMember { engine, .. }
            | Self::TakeOut { engine, .. }
            | Self::GiveUp { engine, .. }
            | Self::TakeSnapshot { engine, .. }
            | Self::DropSnapshot { engine, .. } => Some(*engine),
            Self::Unlist { .. } | Self::End { .. } | Self::Forget => None,
        }
    }

    /// It makes an owner.
    #[must_use]
    pub const fn is_appointment(&self) -> bool {
        matches!(self, Self::TakeOver { .. })
    }

    /// It is about who the owner is.
    pub(crate) const fn is_ownership(&self) -> bool {
        matches!(self, Self::TakeOver { .. } | Self::HandOver { .. })
    }

    /// It is a change that people asked for, or a part of one: what fails of it holds nothing else
    /// up.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Resize { .. }
                | Self::MakeReplica { .. }
                | Self::DropReplica { .. }
                | Self::AddMember { .. }
                | Self::TakeOut { .. }
                | Self::GiveUp { .. }
                | Self::Unlist { .. }
                | Self::TakeSnapshot { .. }
                | Self::DropSnapshot { .. }
                | Self::End { .. }
        )
    }

    /// The wish that it is for. What is to go is none: it stays until it is gone.
    #[must_use]
    pub const fn wish(&self) -> Option<Wish> {
        match *self {
            Self::Resize { bytes, .. } => Some(Wish::Size { bytes }),
            Self::TakeSnapshot { snapshot, .. } => Some(Wish::Snapshot { snapshot }),
            Self::MakeReplica { replica, .. } | Self::AddMember { replica, .. } => {
                Some(Wish::Replica { replica })
            }
            _ => None,
        }
    }

    /// The same change, whoever does it.
    #[must_use]
    pub const fn anywhere(mut self) -> Self {
        match &mut self {
            Self::Resize { engine, .. }
            | Self::AddMember { engine, .. }
            | Self::TakeOut { engine, .. }
            | Self::GiveUp { engine, .. }
            | Self::TakeSnapshot { engine, .. }
            | Self::DropSnapshot { engine, .. } => *engine = [0; 16],
            _ => {}
        }
        self
    }

    /// The number of the operator's request that it carries out.
    pub(crate) const fn asked(&self) -> Option<u64> {
        match self {
            Self::TakeOver { asked, .. } | Self::HandOver { asked, .. } => *asked,
            _ => None,
        }
    }
}
