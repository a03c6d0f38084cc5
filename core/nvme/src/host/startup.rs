//! From nothing to live: the steps of connecting, one after the other (Base 3.5, TCP 3.2).
//!
//! ```text
//!   Tcp(0) -> Initialize(0) -> Join(0) -> Capabilities -> Version -> Enable -> Ready <-> Pause
//!      -> Controller --(discovery, or no I/O queues)--------------> Survey <-> Survey -> live
//!             |                                                       ^
//!             +-> QueueCount -> Tcp(n) -> Initialize(n) -> Join(n) ---+
//!                                 ^                           |
//!                                 +------- next queue --------+
//! ```
//!
//! Invariants:
//! 1. One step at a time, each with a deadline; each has at most one command outstanding, so one
//!    buffer serves them all.
//! 2. No more queues are made than were asked for, whatever is granted.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{Class, Instant, Memory};
use core::time::Duration;
use zerocopy::IntoBytes;

use super::commands::Data;
use super::config::Config;
use super::controller::{ADMIN_ENTRIES, Action, Controller, State};
use super::event::{Event, Live};
use super::identify::{CNS_CONTROLLER, ControllerInfo, Expected, IDENTIFY_BYTES, Page};
use super::keep_alive::KeepAlive;
use super::namespace::NamespaceInfo;
use super::operation::{identify, set_features};
use super::queue::{Queue, Stream};
use super::slot::Owner;
use super::survey::{Next, Survey};
use super::why::{Stage, Unsuitable, Why};
use crate::command::Command;
use crate::connect::{CONNECT_DATA_BYTES, Connect, halves};
use crate::property::{Capabilities, Configuration, ControllerStatus, Property};
use crate::{DISCOVERY_NQN, FABRICS_IN_CAPSULE_BYTES, Status};

/// Feature identifier of Number of Queues.
const FEATURE_QUEUES: u8 = 0x07;
/// Pause between two looks at CSTS.RDY.
const READY_POLL: Duration = Duration::from_millis(5);
/// The least time that a controller gets to become ready, whatever CAP.TO says.
const READY_MIN: Duration = Duration::from_secs(1);
/// AUTHREQ in DW0 of the response to Connect: bits 17 and 18.
const AUTHENTICATION_REQUIRED: u32 = 3 << 17;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Tcp(u16),
    Initialize(u16),
    Join(u16),
    Capabilities,
    Version,
    Enable,
    Ready,
    Pause(Instant),
    Controller,
    QueueCount,
    Survey,
}

impl Step {
    const fn stage(self) -> Stage {
        match self {
            Self::Tcp(_) => Stage::Tcp,
            Self::Initialize(_) => Stage::Initialize,
            Self::Join(_) => Stage::Connect,
            Self::Capabilities | Self::Version => Stage::Property,
            Self::Enable | Self::Ready | Self::Pause(_) => Stage::Enable,
            Self::Controller => Stage::IdentifyController,
            Self::QueueCount => Stage::QueueCount,
            Self::Survey => Stage::Namespaces,
        }
    }
}

/// How far connecting is, and what was found out on the way.
#[derive(Debug)]
pub(super) struct Startup {
    step: Step,
    deadline: Instant,
    cntlid: u16,
    capabilities: Capabilities,
    version: u32,
    controller: Option<ControllerInfo>,
    granted: u16,
    entries: u16,
    survey: Survey,
}

impl Startup {
    fn new(now: Instant, config: &Config) -> Self {
        Self {
            step: Step::Tcp(0),
            deadline: now,
            cntlid: config.cntlid,
            capabilities: Capabilities::from_wire(0),
            version: 0,
            controller: None,
            granted: 0,
            entries: 0,
            survey: Survey::of_namespaces(config.namespaces_max),
        }
    }

    const fn stage(&self) -> Stage {
        match self.step {
            Step::Survey => self.survey.stage(),
            step => step.stage(),
        }
    }

    /// When something is to be done if nothing happens.
    pub(super) fn due(&self) -> Instant {
        match self.step {
            Step::Pause(until) => until.min(self.deadline),
            _ => self.deadline,
        }
    }
}

impl Controller {
    /// Begins to connect.
    pub(super) fn start<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.state = State::Starting(Box::new(Startup::new(now, &self.config)));
        self.queues.clear();
        self.queues.push(Queue::new(ADMIN_ENTRIES - 1, true, FABRICS_IN_CAPSULE_BYTES));
        self.scratch = mem.alloc(Class::Small);
        if self.scratch.is_none() {
            return self.lose(mem, now, Why::NoMemory);
        }
        self.begin(mem, now, Step::Tcp(0));
    }

    /// Begins a step: says what to do or sends its command.
    pub(super) fn begin<M: Memory>(&mut self, mem: &mut M, now: Instant, step: Step) {
        let timeout = self.config.connect_timeout;
        let State::Starting(startup) = &mut self.state else { return };
        startup.step = step;
        // Becoming ready has one deadline for all its looks.
        if !matches!(step, Step::Ready | Step::Pause(_)) {
            startup.deadline = now + timeout;
        }
        let deadline = startup.deadline;
        let (command, data) = match step {
            Step::Tcp(queue) => return self.connect(queue),
            Step::Join(queue) => return self.join(mem, queue, deadline),
            Step::Initialize(_) | Step::Pause(_) => return,
            Step::Capabilities => (Property::Capabilities.get(), Data::None),
            Step::Version => (Property::Version.get(), Data::None),
            Step::Enable => {
                (Property::Configuration.set(Configuration::ENABLE.to_wire().into()), Data::None)
            }
            Step::Ready => (Property::Status.get(), Data::None),
            Step::Controller => (identify(CNS_CONTROLLER, 0), Data::Received(IDENTIFY_BYTES)),
            Step::QueueCount => (queue_count(self.config.io_queues), Data::None),
            Step::Survey => {
                let (command, len) = startup.survey.command();
                (command, Data::Received(len))
            }
        };
        self.command(mem, (0, Owner::Association), command, data, deadline);
    }

    fn connect(&mut self, queue: u16) {
        self.queues[usize::from(queue)].stream = Stream::Connecting;
        self.actions.push_back(Action::Connect { queue });
    }

    /// Sends the Connect command (Base 6.3).
    fn join<M: Memory>(&mut self, mem: &mut M, queue: u16, deadline: Instant) {
        let State::Starting(startup) = &self.state else { return };
        let admin = queue == 0;
        let connect = Connect {
            cid: 0,
            qid: queue,
            entries: u32::from(if admin { ADMIN_ENTRIES } else { startup.entries }),
            flow_control: self.config.flow_control,
            kato: if admin { self.config.kato } else { Duration::ZERO },
            cntlid: startup.cntlid,
            hostid: self.config.hostid,
            subnqn: self.config.subnqn,
            hostnqn: self.config.hostnqn,
        };
        let (command, data) = connect.to_wire();
        if let Some(scratch) = &self.scratch {
            let bytes = data.as_bytes();
            mem.bytes_mut(scratch)[..bytes.len()].copy_from_slice(bytes);
        }
        let owner = Owner::Association;
        self.command(mem, (queue, owner), command, Data::Sent(CONNECT_DATA_BYTES), deadline);
    }

    /// A deadline of connecting is here.
    pub(super) fn startup_due<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let State::Starting(startup) = &self.state else { return };
        if startup.deadline <= now {
            let why = Why::Timeout(startup.stage());
            self.lose(mem, now, why);
        } else {
            self.begin(mem, now, Step::Ready);
        }
    }

    /// The current step's command was answered.
    pub(super) fn advance<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        status: Status,
        result: u64,
        len: u32,
    ) {
        let State::Starting(startup) = &self.state else { return };
        let step = startup.step;
        // A survey knows what it can do without.
        if !status.is_success() && step != Step::Survey {
            let [result, _] = dwords(result);
            return self.lose(mem, now, Why::Refused { stage: step.stage(), status, result });
        }
        let next = match step {
            Step::Join(0) => self.joined(result, now),
            Step::Join(queue) => Ok(self.after_queue(queue)),
            Step::Capabilities => self.read_capabilities(result),
            Step::Version => self.read_version(result),
            Step::Enable => Ok(self.await_ready(now)),
            Step::Ready => self.looked(result, now),
            Step::Controller => self.identified(mem, len),
            Step::QueueCount => Ok(self.count_queues(result)),
            Step::Survey => return self.surveyed_first(mem, now, status, len),
            Step::Tcp(_) | Step::Initialize(_) | Step::Pause(_) => return,
        };
        match next {
            Ok(Some(step)) => self.begin(mem, now, step),
            Ok(None) => {}
            Err(why) => self.lose(mem, now, why),
        }
    }

    fn joined(&mut self, result: u64, now: Instant) -> Result<Option<Step>, Why> {
        let State::Starting(startup) = &mut self.state else { return Ok(None) };
        let [result, _] = dwords(result);
        if result & AUTHENTICATION_REQUIRED != 0 {
            return Err(Why::Unsuitable(Unsuitable::Authentication));
        }
        (startup.cntlid, _) = halves(result);
        if !self.config.kato.is_zero() {
            self.keep_alive = Some(KeepAlive::new(self.config.kato, now));
        }
        Ok(Some(Step::Capabilities))
    }

    /// The next queue, or what comes after the last one.
    fn after_queue(&self, queue: u16) -> Option<Step> {
        let more = usize::from(queue) + 1 < self.queues.len();
        Some(if more { Step::Tcp(queue + 1) } else { Step::Survey })
    }

    fn read_capabilities(&mut self, result: u64) -> Result<Option<Step>, Why> {
        let State::Starting(startup) = &mut self.state else { return Ok(None) };
        startup.capabilities = Capabilities::from_wire(result);
        if !startup.capabilities.allows_4k_pages() {
            return Err(Why::Unsuitable(Unsuitable::PageSize));
        }
        let discovery = self.config.subnqn.as_str() == DISCOVERY_NQN;
        if !discovery && !startup.capabilities.has_nvm_command_set() {
            return Err(Why::Unsuitable(Unsuitable::CommandSet));
        }
        Ok(Some(Step::Version))
    }

    fn read_version(&mut self, result: u64) -> Result<Option<Step>, Why> {
        let State::Starting(startup) = &mut self.state else { return Ok(None) };
        [startup.version, _] = dwords(result);
        Ok(Some(Step::Enable))
    }

    /// It is enabled: gives it CAP.TO to become ready.
    fn await_ready(&mut self, now: Instant) -> Option<Step> {
        let State::Starting(startup) = &mut self.state else { return None };
        let timeout = Duration::from_millis(startup.capabilities.ready_timeout_ms().into());
        startup.deadline = now + timeout.max(READY_MIN);
        Some(Step::Ready)
    }

    fn looked(&self, result: u64, now: Instant) -> Result<Option<Step>, Why> {
        let [csts, _] = dwords(result);
        let csts = ControllerStatus::from_wire(csts);
        if csts.fatal() {
            return Err(Why::ControllerFailed);
        }
        let next = if csts.ready() { Step::Controller } else { Step::Pause(now + READY_POLL) };
        Ok(Some(next))
    }

    fn identified<M: Memory>(&mut self, mem: &M, len: u32) -> Result<Option<Step>, Why> {
        let (State::Starting(startup), Some(scratch)) = (&mut self.state, &self.scratch) else {
            return Ok(None);
        };
        let expected = Expected {
            cntlid: startup.cntlid,
            version: startup.version,
            well_known_discovery: self.config.subnqn.as_str() == DISCOVERY_NQN,
            keep_alive: !self.config.kato.is_zero(),
        };
        let page = Page(&mem.bytes(scratch)[..len as usize]);
        let info = ControllerInfo::parse(&page, &expected).map_err(Why::Unsuitable)?;
        if info.is_discovery {
            startup.survey = Survey::of_log();
        } else if info.reports_access {
            startup.survey.ask_access();
        }
        let only_admin = info.is_discovery || self.config.io_queues == 0;
        let next = if only_admin { Step::Survey } else { Step::QueueCount };
        startup.controller = Some(info);
        Ok(Some(next))
    }

    /// Makes the queues that were granted, 0-based NSQA 15:0 and NCQA 31:16.
    fn count_queues(&mut self, result: u64) -> Option<Step> {
        let State::Starting(startup) = &mut self.state else { return None };
        let info = startup.controller.as_ref()?;
        let [result, _] = dwords(result);
        let (submission, completion) = halves(result);
        let granted = submission.min(completion).saturating_add(1).min(self.config.io_queues);
        let commands_max = if info.commands_max == 0 { u16::MAX } else { info.commands_max };
        let offered = u16::try_from(startup.capabilities.queue_entries_max()).unwrap_or(u16::MAX);
        let most = offered.min(commands_max).min(Config::QUEUE_ENTRIES_MAX);
        startup.entries = self.config.queue_entries.min(most).max(2);
        startup.granted = granted;
        let (commands, in_capsule) = (startup.entries - 1, info.in_capsule_bytes);
        self.queues.extend((0..granted).map(|_| Queue::new(commands, false, in_capsule)));
        Some(Step::Tcp(1))
    }

    /// Takes what the survey's command brought; at its end the association is live.
    fn surveyed_first<M: Memory>(&mut self, mem: &mut M, now: Instant, status: Status, len: u32) {
        let (State::Starting(startup), Some(scratch)) = (&mut self.state, &self.scratch) else {
            return;
        };
        match startup.survey.take(status, &mem.bytes(scratch)[..len as usize]) {
            Ok(Next::Ask) => self.begin(mem, now, Step::Survey),
            Ok(Next::Namespaces(namespaces)) => self.arrive(mem, now, namespaces),
            Ok(Next::Log(entries)) => {
                self.arrive(mem, now, Vec::new());
                self.events.push_back(Event::Discovered(entries));
            }
            Err(why) => self.lose(mem, now, why),
        }
    }

    /// Everything is found out: the association is live.
    fn arrive<M: Memory>(&mut self, mem: &mut M, now: Instant, namespaces: Vec<NamespaceInfo>) {
        let State::Starting(startup) = &mut self.state else { return };
        let Some(controller) = startup.controller.take() else { return };
        let live = Live {
            controller,
            namespaces,
            io_queues: startup.granted,
            queue_commands: startup.entries.saturating_sub(1),
            digests: self.config.digests,
        };
        self.transfer_bytes_max = live.controller.transfer_bytes_max;
        self.backoff.succeeded(now);
        self.state = State::Live;
        self.events.push_back(Event::Live(Box::new(live.clone())));
        self.watch(mem, now, live);
    }
}

/// Set Features, Number of Queues: as many submission as completion queues, 0-based.
fn queue_count(queues: u16) -> Command {
    let wanted = u32::from(queues.saturating_sub(1));
    set_features(FEATURE_QUEUES, 0, wanted | wanted << 16)
}

/// The lower and the upper half of a quadword.
pub(super) const fn dwords(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
