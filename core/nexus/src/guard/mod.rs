//! The replica's half of the protocol: whose commands a replica carries out (replication.md,
//! Take over 3, Clearing marks, On the wire).
//!
//! A shell tells [`Guard::handle`] what arrives for a replica and what its pool did, and carries
//! out the acts: it hands commands to the pool, keeps the fence, answers. The guard never sees
//! payload: a command is named by the tag that the shell gave it. Every tag that arrives is
//! answered exactly once, also when its association has ended: until then its buffer is in use.
//! A fence that another takes the place of is answered while its act may still be in work.
//!
//! Invariants:
//! 1. A fence is durable, with its record, before it is answered, and from its arrival on nobody
//!    else's command is carried out.
//! 2. A fence is answered when every command that was carried out for another association has
//!    ended in the pool, and the lease that was promised has run out: nothing of an older epoch,
//!    nor of an older association of the same owner, takes effect after it.
//! 3. A replica never obeys a lower epoch than one it obeyed, nor two owners of one epoch.
//! 4. A mark is cleared only if the last write to its region came before the flush that the
//!    nexus names; after a start, before the first flush, none is.
//! 5. After a restart no fence is answered for one lease: what was promised is not known any more.
//! 6. One [`Act::Keep`] is in work at a time: what is durable is what was asked for last.
//! 7. Whoever asks for marks is told those of snapshots, too, that the copy of the record does not
//!    name: they are being deleted, and what was written before them may be missing elsewhere.
//! 8. A replica that never held everything says so until it does, however often it is fenced:
//!    [`Fenced::copy`] is none until a record named it a member by its own instance.
//!
//! ```text
//!         Fence             Kept               all ended, lease over           Marks
//! nobody -------> Keeping -------> Draining -----------------------> Marking -------> holder
//!         (Waiting while another Keep is in work)
//! ```
//! A higher fence, or one of the same owner on a new association, takes the place of the one in
//! work in any of these states.
//!
//! What a shell does for [`Act::Carry`], with a pool:
//!
//! | command | of the pool |
//! |---|---|
//! | `Read`, `Write`, `Zero`, `Flush` | `Work` of the same name, by the replica's handle |
//! | `ReadSnapshot` | `Work::Read` by the handle of the snapshot: `Pool::find` |
//! | `Compare` | `Work::Compare`, by the handle of the replica or of the snapshot |
//! | `Marks` | `Command::Marks` with the uuid of either, then `Pool::take_marks` |
//! | `Clean` | `Command::Clean`, with these regions: the guard has left out what must stay |
//! | `Snapshot` | `Work::Flush`, then `Command::Snapshot` |
//! | `DeleteSnapshot` | `Command::DeleteSnapshot`, if it is one of this replica's |
//! | `Resize` | `Command::Resize` |
//!
//! and [`Act::Keep`] is one `Command::Bear { fence, member: true, record }` with the bytes of
//! [`Kept::encode`]. What a shell asks the pool for [`Durable`], when it starts or a replica is
//! made:
//!
//! | field | of the pool |
//! |---|---|
//! | `fence` | `Pool::bearing` |
//! | `kept` | `Command::Bear` with nothing, which reads its page; then `Pool::bearing` |
//! | `instance`, `flush`, `bytes` | `Pool::layer` |
//! | `snapshots` | `Pool::snapshots` |
//!
//! A copy that cannot be read is none: the replica counts as wiped, and all of it is compared.

mod admit;
mod copies;
mod fence;
mod marks;
mod stamps;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use braid_block::Instant;

use crate::config::{Plant, Timing};
use crate::record::{Malformed, Record, Uuid};
use crate::wire::{Answer, Command, Refusal};

use admit::Carried;
use copies::Keeping;
use fence::Fencing;
use marks::Gathering;
use stamps::Stamps;

#[cfg(doc)]
use crate::wire::Fenced;

/// Associations to a replica at once. One is needed, two while an owner follows another; the
/// oldest that is not needed is ended for a new one, so that nobody is kept out.
pub const ASSOCIATIONS_MAX: usize = 32;
/// Commands of a replica in its pool at once: what a nexus has in work ([`crate::Limits`]), a few
/// times. An association that sends more is ended.
pub const CARRIED_MAX: usize = 4096;
/// Copies of the record that wait for one that is being kept. A nexus sends one at a time.
pub const COPIES_MAX: usize = 4;
/// Snapshots that a guard counts: all that a record can name, and as many that none names any more.
pub const SNAPSHOTS_KNOWN_MAX: usize = 2 * crate::record::SNAPSHOTS_MAX;

/// What a guard knows of its replica when it starts: from the pool.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// Which replica.
    pub replica: Uuid,
    /// Epoch and owner of the last fence.
    pub fence: (u64, Uuid),
    /// Its instance.
    pub instance: u64,
    /// Its copy of the record, and what goes with it.
    pub kept: Option<Kept>,
    /// Number of its last flush.
    pub flush: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Uuid>,
}

/// A copy of the record, as a replica keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record.
    pub copy: Box<Record>,
    /// Once this replica held everything: a record named it a member by the instance that it had
    /// then. One that was made anew, or wiped, did not, and no map says what it lacks.
    pub complete: bool,
}

impl Kept {
    /// As bytes, for the pool.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.copy.encode();
        bytes.push(u8::from(self.complete));
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Malformed`] if [`Kept::encode`] did not make them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (last, record) = bytes.split_last().ok_or(Malformed)?;
        let complete = match last {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        Ok(Self { copy: Box::new(Record::decode(record)?), complete })
    }
}

/// What happened to a replica.
#[derive(Clone, Debug)]
pub enum Event {
    /// An association was opened.
    Opened {
        /// A number that was not used before by this process.
        association: u32,
    },
    /// A command came.
    Arrived {
        /// By which association.
        association: u32,
        /// A number that was not used before by this process.
        tag: u64,
        /// What.
        command: Command,
    },
    /// An association ended. What is carried out for it goes on.
    Closed {
        /// Which.
        association: u32,
    },
    /// What [`Act::Carry`] asked for ended.
    Carried {
        /// Of the command.
        tag: u64,
        /// What came of it.
        result: Result<Outcome, Refusal>,
    },
    /// What [`Act::Keep`] asked for is durable, or failed; with [`Refusal::NoSpace`] nothing was
    /// done, and it may be asked for again.
    Kept {
        /// Of the command.
        tag: u64,
        /// What came of it.
        result: Result<(), Refusal>,
    },
    /// Time passed.
    Elapsed,
}

/// What a pool answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Marked regions: first and number, ascending.
    Marks(Box<[(u32, u32)]>),
}

/// What is to be done for a replica.
#[derive(Clone, Debug)]
pub enum Act {
    /// Let the pool do this, then [`Event::Carried`]. Never a fence, a lease or a copy.
    Carry {
        /// Of the command.
        tag: u64,
        /// What.
        command: Command,
    },
    /// Keep this durably, in one commit, and let the replica be a member; then [`Event::Kept`].
    Keep {
        /// Of the command.
        tag: u64,
        /// Epoch and owner, if they change.
        fence: Option<(u64, Uuid)>,
        /// The record, and what goes with it.
        kept: Box<Kept>,
    },
    /// Answer a command. An association that has ended meanwhile needs no answer, but the tag and
    /// its buffer are free only now.
    Answer {
        /// By which association it came.
        association: u32,
        /// Of the command.
        tag: u64,
        /// What to answer.
        result: Result<Answer, Refusal>,
    },
    /// End an association: stop reading, drop what was not parsed. No [`Event::Closed`] is needed.
    Close {
        /// Which.
        association: u32,
    },
}

/// What a checker may want to know of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Epoch and owner of the fence that is durable.
    pub fence: (u64, Uuid),
    /// The association whose commands are carried out.
    pub holder: Option<u32>,
    /// Epoch and association of the fence in work.
    pub fencing: Option<(u64, u32)>,
    /// That fence is durable, and waits for commands to end or a lease to run out.
    pub draining: bool,
    /// No fence of another owner than the durable one's is answered before.
    pub lease_until: Instant,
    /// Commands in the pool.
    pub carried: usize,
    /// A write or a flush failed: nothing is done any more.
    pub failed: bool,
}

/// What was promised with a lease.
#[derive(Clone, Copy, Debug)]
struct Promise {
    until: Instant,
    /// To whom; none: given before the start, nobody knows to whom.
    to: Option<(u64, Uuid)>,
}

/// An association that is open.
#[derive(Clone, Copy, Debug, Default)]
struct Association {
    /// The last fence of it that was answered.
    fenced: Option<(u64, Uuid)>,
}

/// The gate before a replica.
#[derive(Debug)]
pub struct Guard {
    timing: Timing,
    plant: Option<Plant>,
    durable: Durable,
    associations: BTreeMap<u32, Association>,
    holder: Option<u32>,
    fencing: Option<Fencing>,
    keeping: Option<Keeping>,
    /// Copies that wait to be kept: association, tag, record.
    copies: VecDeque<(u32, u64, Box<Record>)>,
    carried: Carried,
    gathering: BTreeMap<u64, Gathering>,
    stamps: Stamps,
    promise: Promise,
    failed: bool,
    acts: VecDeque<Act>,
}

impl Guard {
    /// The guard of a replica whose process starts, or that is made, now.
    #[must_use]
    pub fn new(timing: Timing, plant: Option<Plant>, durable: Durable, now: Instant) -> Self {
        Self {
            promise: Promise { until: now + timing.lease, to: None },
            timing,
            plant,
            durable,
            associations: BTreeMap::new(),
            holder: None,
            fencing: None,
            keeping: None,
            copies: VecDeque::new(),
            carried: Carried::default(),
            gathering: BTreeMap::new(),
            stamps: Stamps::default(),
            failed: false,
            acts: VecDeque::new(),
        }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Opened { association } => self.open(association),
            Event::Closed { association } => self.close(association),
            Event::Arrived { association, tag, command } => {
                self.arrive(now, association, tag, command);
            }
            Event::Carried { tag, result } => self.on_carried(tag, result),
            Event::Kept { tag, result } => self.on_kept(tag, result),
            Event::Elapsed => {}
        }
        self.fence_on(now);
        self.copies_on();
    }

    /// The next thing to do.
    pub fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When [`Event::Elapsed`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.fence_due()
    }

    /// What a checker may want to know.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            fence: self.durable.fence,
            holder: self.holder,
            fencing: self.fencing.as_ref().map(|f| (f.epoch(), f.association())),
            draining: self.fencing.as_ref().is_some_and(Fencing::is_draining),
            lease_until: self.promise.until,
            carried: self.carried.len(),
            failed: self.failed,
        }
    }

    fn open(&mut self, association: u32) {
        if self.associations.contains_key(&association) {
            return;
        }
        if self.associations.len() >= ASSOCIATIONS_MAX {
            let needed = |at: u32| {
                Some(at) == self.holder
                    || self.fencing.as_ref().is_some_and(|f| f.association() == at)
            };
            let oldest = self.associations.keys().copied().find(|at| !needed(*at));
            if let Some(oldest) = oldest {
                self.end(oldest);
            }
        }
        self.associations.insert(association, Association::default());
    }

    fn close(&mut self, association: u32) {
        if self.plant == Some(Plant::ResumeAssociation) {
            return;
        }
        self.associations.remove(&association);
        if self.holder == Some(association) {
            self.holder = None;
        }
    }

    /// Ends an association from this side.
    fn end(&mut self, association: u32) {
        self.close(association);
        self.acts.push_back(Act::Close { association });
    }

    fn answer(&mut self, association: u32, tag: u64, result: Result<Answer, Refusal>) {
        self.acts.push_back(Act::Answer { association, tag, result });
    }

    fn refuse(&mut self, association: u32, tag: u64, refusal: Refusal) {
        self.answer(association, tag, Err(refusal));
    }

    /// The device failed, or lost what it must not: everything is refused from now on.
    fn fail(&mut self) {
        self.failed = true;
        if let Some(fencing) = self.fencing.take() {
            self.refuse(fencing.association(), fencing.tag(), Refusal::Failed);
        }
        while let Some((association, tag, _)) = self.copies.pop_front() {
            self.refuse(association, tag, Refusal::Failed);
        }
    }
}
