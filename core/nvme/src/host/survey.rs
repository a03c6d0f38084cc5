//! Looking at what a controller offers: its namespaces, or its discovery log.
//!
//! ```text
//!   Active <-> Active --> Namespace(0) --> Descriptors(0) --> Namespace(1) ... --> Access --> done
//!   Log <-> Log --> done
//! ```
//!
//! Invariants:
//! 1. One command at a time, each with at most 4096 bytes of data.
//! 2. What a target tells is bounded before it is kept.

use alloc::vec::Vec;

use super::access::{AccessReader, Read};
use super::discovery::{Entry, Next as Piece, Reader};
use super::identify::{CNS_ACTIVE, CNS_DESCRIPTORS, CNS_NAMESPACE, IDENTIFY_BYTES, Page};
use super::namespace::{NamespaceInfo, active_ids};
use super::operation::identify;
use super::why::{Stage, Unsuitable, Why};
use crate::Status;
use crate::command::Command;

/// Ids in a full page of the active namespace list.
const ACTIVE_IDS_MAX: usize = IDENTIFY_BYTES as usize / size_of::<u32>();

/// A look at everything.
#[derive(Debug)]
pub(super) struct Survey {
    look: Look,
    namespaces_max: usize,
    ids: Vec<u32>,
    namespaces: Vec<NamespaceInfo>,
    /// The controller tells how they are reached.
    reports_access: bool,
}

/// What is looked at.
#[derive(Debug)]
enum Look {
    /// The active namespaces after this one.
    Active(u32),
    /// The namespace at this place in the list of ids.
    Namespace(usize),
    /// Its descriptors.
    Descriptors(usize),
    /// How they are reached.
    Access(AccessReader),
    /// The discovery log.
    Log(Reader),
}

/// What came of an answer.
#[derive(Debug)]
pub(super) enum Next {
    /// There is more to ask: [`Survey::command`].
    Ask,
    /// These are the namespaces.
    Namespaces(Vec<NamespaceInfo>),
    /// This is the discovery log.
    Log(Vec<Entry>),
}

impl Survey {
    /// A look at the namespaces of an I/O controller, at so many at most.
    pub(super) fn of_namespaces(max: u32) -> Self {
        let namespaces_max = usize::try_from(max).unwrap_or(usize::MAX);
        let (ids, namespaces) = (Vec::new(), Vec::new());
        Self { look: Look::Active(0), namespaces_max, ids, namespaces, reports_access: false }
    }

    /// A look at how these namespaces are reached, and nothing else.
    pub(super) fn of_access(namespaces: Vec<NamespaceInfo>) -> Self {
        let look = Look::Access(AccessReader::default());
        Self { look, namespaces_max: 0, ids: Vec::new(), namespaces, reports_access: true }
    }

    /// The controller tells how its namespaces are reached: that is asked at the end.
    pub(super) const fn ask_access(&mut self) {
        self.reports_access = true;
    }

    /// A look at the log of a discovery controller.
    pub(super) fn of_log() -> Self {
        let look = Look::Log(Reader::new());
        let (ids, namespaces) = (Vec::new(), Vec::new());
        Self { look, namespaces_max: 0, ids, namespaces, reports_access: false }
    }

    /// What step of connecting this is.
    pub(super) const fn stage(&self) -> Stage {
        match self.look {
            Look::Active(_) | Look::Namespace(_) | Look::Descriptors(_) | Look::Access(_) => {
                Stage::Namespaces
            }
            Look::Log(_) => Stage::DiscoveryLog,
        }
    }

    /// What to ask next, and how many bytes that brings.
    pub(super) fn command(&self) -> (Command, u32) {
        let (cns, nsid) = match &self.look {
            Look::Active(after) => (CNS_ACTIVE, *after),
            Look::Namespace(at) => (CNS_NAMESPACE, self.ids[*at]),
            Look::Descriptors(at) => (CNS_DESCRIPTORS, self.ids[*at]),
            Look::Access(reader) => return reader.command(),
            Look::Log(reader) => return reader.command(),
        };
        (identify(cns, nsid), IDENTIFY_BYTES)
    }

    /// Takes the answer.
    pub(super) fn take(&mut self, status: Status, data: &[u8]) -> Result<Next, Why> {
        let refused = Why::Refused { stage: self.stage(), status, result: 0 };
        match &mut self.look {
            Look::Active(_) if status.is_success() => Ok(self.list(data)),
            Look::Namespace(at) if status.is_success() => {
                let at = *at;
                match NamespaceInfo::parse(self.ids[at], &Page(data)) {
                    Some(namespace) => {
                        self.namespaces.push(namespace);
                        self.look = Look::Descriptors(at);
                        Ok(Next::Ask)
                    }
                    None => Ok(self.after(at)),
                }
            }
            // It went away since it was listed.
            Look::Namespace(at) if status.is(Status::INVALID_NAMESPACE) => {
                let at = *at;
                Ok(self.after(at))
            }
            // Old controllers know no descriptors: Identify Namespace told enough.
            Look::Descriptors(at) => {
                let at = *at;
                if let Some(namespace) = self.namespaces.last_mut()
                    && status.is_success()
                {
                    namespace.read_descriptors(data);
                }
                Ok(self.after(at))
            }
            // A log that cannot be read tells nothing: the path is as good as any.
            Look::Access(reader) => {
                let piece = if status.is_success() { data } else { &[] };
                match reader.take(piece, &mut self.namespaces) {
                    Read::More if status.is_success() => Ok(Next::Ask),
                    _ => Ok(Next::Namespaces(core::mem::take(&mut self.namespaces))),
                }
            }
            Look::Log(reader) if status.is_success() => match reader.take(data) {
                Piece::Read => Ok(Next::Ask),
                Piece::Done(entries) => Ok(Next::Log(entries)),
                Piece::Failed => Err(Why::Unsuitable(Unsuitable::DiscoveryLog)),
            },
            Look::Active(_) | Look::Namespace(_) | Look::Log(_) => Err(refused),
        }
    }

    /// Takes a page of the list of active namespaces.
    fn list(&mut self, page: &[u8]) -> Next {
        let before = self.ids.len();
        let after = self.ids.last().copied().unwrap_or(0);
        let room = self.namespaces_max.saturating_sub(before);
        self.ids.extend(active_ids(page, after).take(room));
        match self.ids.last() {
            None => return self.done(),
            Some(&last) if self.ids.len() - before == ACTIVE_IDS_MAX => {
                self.look = Look::Active(last);
            }
            Some(_) => self.look = Look::Namespace(0),
        }
        Next::Ask
    }

    /// Goes on after this namespace.
    fn after(&mut self, at: usize) -> Next {
        if at + 1 == self.ids.len() {
            return self.done();
        }
        self.look = Look::Namespace(at + 1);
        Next::Ask
    }

    fn done(&mut self) -> Next {
        if core::mem::take(&mut self.reports_access) && !self.namespaces.is_empty() {
            self.look = Look::Access(AccessReader::default());
            return Next::Ask;
        }
        Next::Namespaces(core::mem::take(&mut self.namespaces))
    }
}
