//! While it is live: asking for notice of changes, and looking again when there was one
//! (Base 5.2, Asynchronous Event Request).
//!
//! ```text
//!   configure (Set Features 0Bh) --> waiting for notice <--------------+
//!                                        | notice                      |
//!                                        v                             |
//!                        read its log page (RAE 0) --> survey --> Live is told again
//! ```
//!
//! Invariants:
//! 1. One request for notice is outstanding; a new one goes out as soon as one was answered.
//! 2. Reading the log page of a notice lets the target give the next one of its kind.
//! 3. A notice that comes while one is looked into is not lost: it is looked into afterwards.

use alloc::boxed::Box;

use braid_block::{Instant, Memory};

use super::commands::Data;
use super::controller::{Controller, State};
use super::event::{Event, Live};
use super::operation::{get_log_page, set_features};
use super::queue::Request;
use super::slot::Owner;
use super::survey::{Next, Survey};
use crate::command::{Command, Direction, admin};
use crate::{FABRICS_IN_CAPSULE_BYTES, Status};

/// Feature identifier of Asynchronous Event Configuration, laid out as OAES.
const FEATURE_NOTICES: u8 = 0x0b;
/// Namespace Attribute Notices, and Discovery Log Page Change Notifications.
const NAMESPACES_CHANGED: u32 = 1 << 8;
const DISCOVERY_CHANGED: u32 = 1 << 31;
/// Asymmetric Namespace Access Change Notices.
const ACCESS_CHANGED: u32 = 1 << 11;
/// Log page that a namespace attribute notice is about.
const LID_CHANGED_NAMESPACES: u8 = 0x04;
/// Bytes of it; and enough of every other page to count as read.
const CHANGED_NAMESPACES_BYTES: u32 = 4096;
const PAGE_BYTES: u32 = 512;
/// Any namespace.
const NSID_ALL: u32 = u32::MAX;

/// What is known of a live association.
#[derive(Debug)]
pub(super) struct Watch {
    live: Live,
    task: Task,
    /// Something changed since the current task began.
    pending: Option<Notice>,
}

/// What it is doing.
#[derive(Debug)]
enum Task {
    Nothing,
    Configuring,
    ReadingPage(Notice),
    Surveying(Survey),
}

/// What a notice is about: bits 2:0, 15:8 and 23:16 of DW0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice {
    kind: u8,
    information: u8,
    lid: u8,
}

impl Notice {
    const fn parse(result: u64) -> Self {
        let [kind, information, lid, ..] = result.to_le_bytes();
        Self { kind: kind & 7, information, lid }
    }

    /// Whether it says that there is something new to be seen.
    const fn is_change(self) -> bool {
        matches!((self.kind, self.information), (2, 0x00 | 0x03 | 0xf0))
    }

    /// Whether it says that namespaces are reached otherwise.
    const fn is_access(self) -> bool {
        matches!((self.kind, self.information), (2, 0x03))
    }

    /// The command that lets the target give the next notice of this kind.
    const fn page(self) -> (Command, u32) {
        let len = match self.lid {
            LID_CHANGED_NAMESPACES => CHANGED_NAMESPACES_BYTES,
            _ => PAGE_BYTES,
        };
        (get_log_page(self.lid, NSID_ALL, 0, len, false), len)
    }
}

impl Watch {
    /// How a notice is looked into. The survey of how namespaces are reached reads the very page
    /// that lets the target give the next notice.
    fn look_into(&self, notice: Notice) -> Task {
        if notice.is_access() {
            return Task::Surveying(Survey::of_access(self.live.namespaces.clone()));
        }
        Task::ReadingPage(notice)
    }

    /// A look at everything that a notice may mean.
    fn survey(&self, namespaces_max: u32) -> Survey {
        if self.live.controller.is_discovery {
            return Survey::of_log();
        }
        let mut survey = Survey::of_namespaces(namespaces_max);
        if self.live.controller.reports_access {
            survey.ask_access();
        }
        survey
    }
}

impl Controller {
    /// Looks again at how namespaces are reached: a command was refused by a path that should do.
    /// [`Event::Live`] tells.
    pub fn look_at_access<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let Some(watch) = &mut self.watch else { return };
        let access = Notice { kind: 2, information: 0x03, lid: crate::ana::ANA_LOG };
        if !matches!(self.state, State::Live) || !watch.live.controller.reports_access {
            return;
        }
        if matches!(watch.task, Task::Nothing) {
            let task = watch.look_into(access);
            self.task(mem, now, task);
        } else {
            watch.pending = watch.pending.filter(|pending| pending.is_change()).or(Some(access));
        }
    }

    /// The association is live: begins to watch if the target gives notice of anything.
    pub(super) fn watch<M: Memory>(&mut self, mem: &mut M, now: Instant, live: Live) {
        let info = &live.controller;
        let own = NAMESPACES_CHANGED | ACCESS_CHANGED;
        let wanted = if info.is_discovery { DISCOVERY_CHANGED } else { own };
        // A discovery association without keep alive is there to ask once.
        let once = info.is_discovery && self.config.kato.is_zero();
        let notices = if once { 0 } else { info.notices & wanted };
        self.watch = Some(Box::new(Watch { live, task: Task::Nothing, pending: None }));
        if notices != 0 {
            self.task(mem, now, Task::Configuring);
            let configure = set_features(FEATURE_NOTICES, 0, notices);
            self.ask(mem, now, configure, Data::None);
        }
    }

    fn task<M: Memory>(&mut self, mem: &mut M, now: Instant, task: Task) {
        let Some(watch) = &mut self.watch else { return };
        let (command, data) = match &task {
            Task::Nothing | Task::Configuring => {
                watch.task = task;
                return;
            }
            Task::ReadingPage(notice) => notice.page(),
            Task::Surveying(survey) => survey.command(),
        };
        watch.task = task;
        self.ask(mem, now, command, Data::Received(data));
    }

    fn ask<M: Memory>(&mut self, mem: &mut M, now: Instant, command: Command, data: Data) {
        let deadline = now + self.config.io_timeout;
        self.command(mem, (0, Owner::Watch), command, data, deadline);
    }

    /// Asks for the next notice.
    fn request_notice<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let request = Request {
            owner: Owner::Notice,
            command: Command::new(admin::ASYNC_EVENT_REQUEST, 0),
            direction: Direction::None,
            lease: None,
            len: 0,
            digest: None,
            deadline: now,
        };
        let sent = self.queues[0].submit(mem, request, FABRICS_IN_CAPSULE_BYTES);
        debug_assert!(sent.is_ok(), "its slot is free when none is outstanding");
    }

    /// A notice came. A target that refuses to give any is not asked again.
    pub(super) fn noticed<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        status: Status,
        result: u64,
    ) {
        if !matches!(self.state, State::Live) || !status.is_success() {
            return;
        }
        let Some(watch) = &mut self.watch else { return };
        let notice = Notice::parse(result);
        if matches!(watch.task, Task::Nothing) {
            let task = watch.look_into(notice);
            self.task(mem, now, task);
        } else {
            // Of two that wait, the one that changes what we know is the one to remember.
            watch.pending = watch.pending.filter(|pending| pending.is_change()).or(Some(notice));
        }
        self.request_notice(mem, now);
    }

    /// A command of the current task was answered.
    pub(super) fn watched<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        status: Status,
        len: u32,
    ) {
        let (State::Live, Some(watch)) = (&self.state, &mut self.watch) else { return };
        let next = match core::mem::replace(&mut watch.task, Task::Nothing) {
            Task::Nothing => return,
            Task::Configuring => {
                if status.is_success() {
                    self.request_notice(mem, now);
                }
                None
            }
            Task::ReadingPage(notice) if notice.is_change() => {
                Some(Task::Surveying(watch.survey(self.config.namespaces_max)))
            }
            Task::ReadingPage(_) => None,
            Task::Surveying(survey) => self.surveyed(mem, survey, status, len),
        };
        let pending = |watch: &mut Box<Watch>| {
            let notice = watch.pending.take()?;
            Some(watch.look_into(notice))
        };
        let next = next.or_else(|| self.watch.as_mut().and_then(pending));
        self.task(mem, now, next.unwrap_or(Task::Nothing));
    }

    /// Takes what a survey's command brought. One that fails changes nothing.
    fn surveyed<M: Memory>(
        &mut self,
        mem: &M,
        mut survey: Survey,
        status: Status,
        len: u32,
    ) -> Option<Task> {
        let (watch, scratch) = (self.watch.as_mut()?, self.scratch.as_ref()?);
        let data = &mem.bytes(scratch)[..len as usize];
        match survey.take(status, data).ok()? {
            Next::Ask => return Some(Task::Surveying(survey)),
            Next::Namespaces(namespaces) => {
                watch.live.namespaces = namespaces;
                self.events.push_back(Event::Live(Box::new(watch.live.clone())));
            }
            Next::Log(entries) => {
                self.events.push_back(Event::Live(Box::new(watch.live.clone())));
                self.events.push_back(Event::Discovered(entries));
            }
        }
        None
    }
}
