//! What volumes send to their replicas: to one of this shard by its guard, to one of another
//! engine by our host side, as [`codec`] says.
//!
//! ```text
//! Associate --> Here (the replica is in a pool of this shard): stands at once
//!          \--> There: connecting -- Live --> standing -- Lost, Leave --> gone
//! ```
//!
//! Invariants:
//! 1. A command that a volume sent ends with one `Done`, also when its link is gone: at once if it
//!    was not sent yet, else when nobody touches its buffer any more.
//! 2. A buffer that a volume names is its own: what travels is an alias, dropped when it is back.
//! 3. A link is never made again by itself: an association that broke is gone.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Class, Key, Memory, Span, Token};
use braid_nexus::Event;
use braid_nexus::record::Uuid;
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{Config, Reconnect, Why};
use braid_nvme::pdu::Digests;

use super::arrivals::Sender;
use super::codec;
use super::lines::LineKey;
use super::member_nqn;
use crate::Shard;
use crate::host::HostConfig;
use crate::memory::Spare;

/// Entries of the queue to a replica: as many commands as a volume usually has in work.
const QUEUE_ENTRIES: u16 = 512;
/// A command that takes longer ends the association. A nexus gives up long before.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for each step of connecting: a take-over waits no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A replica's engine that says nothing for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// An association of a volume with a replica.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) association: u32,
    pub(super) way: Way,
    /// Commands that wait for a slot or a buffer.
    pub(super) waiting: VecDeque<Waiting>,
    /// A command whose long answer is held at the replica is out: it holds one at a time.
    pub(super) holds: bool,
    /// Commands that wait for that to be over.
    pub(super) holding: VecDeque<Waiting>,
    /// A buffer for its calls, when there is no other.
    pub(super) own: Spare,
}

/// A command that waits to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) token: Token,
    pub(super) command: Command,
    pub(super) span: Option<Span>,
}

/// How a replica is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By this line to a guard of this shard.
    Here(LineKey),
    /// By this association of our host side, which stands or does not yet.
    There { host: Key, live: bool },
}

impl Link {
    /// Whether commands wait for a slot or a buffer.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Which volume an association of our host side is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    volume: usize,
    association: u32,
}

impl Shard {
    /// A volume opens an association.
    pub(super) fn associate<M: Memory>(
        &mut self,
        mem: &mut M,
        volume: usize,
        association: u32,
        replica: Uuid,
    ) {
        let way = match self.members.find(&replica) {
            Some(member) => {
                self.tell_volume(volume, Event::Associated { association });
                Some(Way::Here(self.open_line(mem, member)))
            }
            None => self.connect_to(volume, association, replica),
        };
        match way {
            Some(way) => {
                let mut own = Spare::new(Class::Medium);
                if let Way::There { .. } = way {
                    own.keep(mem);
                }
                let link = Link {
                    own,
                    association,
                    way,
                    waiting: VecDeque::new(),
                    holds: false,
                    holding: VecDeque::new(),
                };
                self.volumes.at(volume).links.push(link);
            }
            None => self.tell_volume(volume, Event::Broken { association, refused: false }),
        }
    }

    fn connect_to(&mut self, volume: usize, association: u32, replica: Uuid) -> Option<Way> {
        let served = self.volumes.at(volume);
        let address = served.place_of(&replica)?;
        let controller = Config {
            queue_entries: QUEUE_ENTRIES,
            kato: KEEP_ALIVE,
            digests: Digests { header: true, data: true },
            io_timeout: COMMAND_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            reconnect: Reconnect {
                min: Duration::ZERO,
                max: Duration::ZERO,
                give_up: Some(Duration::ZERO),
            },
            namespaces_max: 1,
            ..Config::new(
                Nqn::parse(&member_nqn(&replica))?,
                served.hostnqn,
                served.volume.view().owner,
            )
        };
        // A shard that stops makes no new associations.
        let owner = Owner { volume, association };
        let host = self.mirror_open(HostConfig { address, controller }, owner)?;
        self.volumes.at(volume).hosts += 1;
        Some(Way::There { host, live: false })
    }

    /// A volume ends an association.
    pub(super) fn leave<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
        let Some(mut link) = self.volumes.at(volume).take_link(association) else { return };
        self.volumes.orphans.extend(link.own.take());
        match link.way {
            Way::Here(line) => self.leave_line(mem, line),
            Way::There { host, .. } => {
                let now = self.now;
                self.host_abort(mem, now, host);
            }
        }
        self.let_go(volume, link);
    }

    /// What a link that is gone did not send yet ends.
    fn let_go(&mut self, volume: usize, link: Link) {
        for Waiting { token, .. } in link.waiting.into_iter().chain(link.holding) {
            self.tell_volume(volume, Event::Done { token, result: Err(Refusal::Gone) });
        }
    }

    /// A guard ended a line of a volume.
    pub(super) fn link_broken(&mut self, line: LineKey) {
        for volume in 0..self.volumes.len() {
            let Some(served) = self.volumes.get(volume) else { continue };
            let found = served.links.iter().find(|link| link.way == Way::Here(line));
            let Some(association) = found.map(|link| link.association) else { continue };
            self.lost(volume, association, false);
        }
    }

    /// A link is no more, not by the volume's will.
    fn lost(&mut self, volume: usize, association: u32, refused: bool) {
        let link = self.volumes.get(volume).and_then(|served| served.take_link(association));
        let Some(mut link) = link else { return };
        self.volumes.orphans.extend(link.own.take());
        self.tell_volume(volume, Event::Broken { association, refused });
        self.let_go(volume, link);
    }

    /// A volume sends a command.
    pub(super) fn send<M: Memory>(
        &mut self,
        mem: &mut M,
        volume: usize,
        association: u32,
        token: Token,
        command: Command,
        span: Option<Span>,
    ) {
        if let (Command::Read { .. }, Some(span)) = (&command, span) {
            self.volumes.sums.forget(span.lease);
        }
        let links = &mut self.volumes.at(volume).links;
        let found = links.iter_mut().find(|link| link.association == association);
        match found {
            None => self.tell_volume(volume, Event::Done { token, result: Err(Refusal::Gone) }),
            Some(Link { way: Way::Here(line), .. }) => {
                let line = *line;
                let from = Sender::Volume { volume, association, token, span };
                self.arrive_from_volume(mem, line, from, command);
            }
            Some(link) if link.holds && codec::is_held(&command) => {
                link.holding.push_back(Waiting { token, command, span });
            }
            Some(link) => {
                link.holds |= codec::is_held(&command);
                link.waiting.push_back(Waiting { token, command, span });
                self.send_waiting(mem, volume, association);
            }
        }
    }

    /// Something happened to an association of our host side that a volume opened.
    pub(super) fn on_link_event<M: Memory>(
        &mut self,
        mem: &mut M,
        host: Key,
        event: braid_nvme::host::Event,
    ) {
        use braid_nvme::host::Event as Host;
        let Some(Owner { volume, association }) = self.hosts.owner(host) else { return };
        match event {
            Host::Live(_) => {
                if let Some(link) = self.volumes.link(volume, association)
                    && link.way == (Way::There { host, live: false })
                {
                    link.way = Way::There { host, live: true };
                    self.tell_volume(volume, Event::Associated { association });
                }
            }
            Host::Completed(completed) => {
                self.on_call_done(mem, completed);
                // Others go on when all answers are taken: a call's next step goes first.
                self.volumes.ask(volume);
            }
            Host::Lost { why, .. } => self.lost(volume, association, is_answer(why)),
            Host::Closed => {
                self.lost(volume, association, false);
                // It may have waited for that to be gone.
                if let Some(served) = self.volumes.get(volume) {
                    served.hosts -= 1;
                    served.asked = true;
                }
            }
            Host::Discovered(_) => {}
        }
    }

    pub(super) fn give_up<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
        let link = self.volumes.link(volume, association).map(|link| link.way);
        if let Some(Way::There { host, .. }) = link {
            let now = self.now;
            self.host_abort(mem, now, host);
            self.lost(volume, association, false);
        }
    }

    /// A guard of this shard has answered a volume.
    pub(super) fn answer_volume(&mut self, from: Sender, result: Result<Answer, Refusal>) {
        let Sender::Volume { volume, association, token, .. } = from else { return };
        self.tell_answer(volume, association, token, result);
    }

    pub(super) fn tell_answer(
        &mut self,
        volume: usize,
        association: u32,
        token: Token,
        result: Result<Answer, Refusal>,
    ) {
        // What a link that is gone was answered is not known to be so.
        let stands = self.volumes.link(volume, association).is_some();
        let result = if stands { result } else { Err(Refusal::Gone) };
        self.tell_volume(volume, Event::Done { token, result });
    }

    /// Goes on with links whose commands wait.
    pub(super) fn links_on<M: Memory>(&mut self, mem: &mut M, volume: usize) {
        let waits = |link: &&Link| link.waits();
        let Some(served) = self.volumes.get(volume) else { return };
        let waiting: Vec<u32> =
            served.links.iter().filter(waits).map(|link| link.association).collect();
        for association in waiting {
            self.send_waiting(mem, volume, association);
        }
    }
}

/// Whether somebody answered that there is no engine or replica.
const fn is_answer(why: Why) -> bool {
    match why {
        Why::Connect(error) => matches!(error, braid_block::IoError::Refused),
        Why::Refused { .. } => true,
        _ => false,
    }
}
