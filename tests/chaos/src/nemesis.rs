//! Does what the plan says, and undoes it.
//!
//! Invariants:
//! 1. What was begun is ended, at the latest by [`Nemesis::heal`].
//! 2. An engine's process and its disk have one fault at a time: a second one is left out, and
//!    the story says so.

use std::process::Child;
use std::time::Duration;

use crate::Outcome;
use crate::campaign::{VOLUME, VOLUME_BYTES};
use crate::cluster::Cluster;
use crate::net::{ENGINES, Place, Trouble};
use crate::plan::{Episode, Fault, Who};
use crate::process::kill;
use crate::story::Story;

/// How long existing connections are reset at the beginning of a detour: each is, that sends
/// something meanwhile, and all send something within a keep-alive interval or a lease.
const RESET: Duration = Duration::from_millis(400);
/// A connection that is reset again and again lives for so many bytes at most.
const RESET_AFTER: u64 = 300_000;
/// The snapshot that an operator takes: one at a time, so that a pool has space for what changes.
const SNAPSHOT: &str = "s";
/// The port of the first proxy; each fault has four of its own.
const PROXIES: u16 = 9000;

/// How something is undone.
#[derive(Debug)]
enum Undo {
    Start(Place),
    Continue(Place),
    Network,
    Proxies(Vec<Child>),
    Disk(usize),
    Nothing(Option<Child>),
}

/// Something that goes on.
#[derive(Debug)]
struct Open {
    number: u32,
    until: Duration,
    undo: Undo,
}

/// What was done: for the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deed {
    pub(crate) name: &'static str,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// Who does it.
#[derive(Debug)]
pub(crate) struct Nemesis<'a> {
    pub(crate) cluster: &'a mut Cluster,
    story: &'a Story,
    began: Duration,
    open: Vec<Open>,
    /// When detours stop resetting the connections there were.
    resets: Vec<(Duration, u32)>,
    number: u32,
    seed: u64,
    pub(crate) deeds: Vec<Deed>,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(cluster: &'a mut Cluster, story: &'a Story, seed: u64) -> Self {
        let began = story.time();
        let (open, resets, deeds) = (Vec::new(), Vec::new(), Vec::new());
        Self { cluster, story, began, open, resets, number: 0, seed, deeds }
    }

    /// Goes through a plan; ends early if something is found.
    pub(crate) fn run(
        &mut self,
        plan: &[Episode],
        time: Duration,
        mut found: impl FnMut(&mut Cluster) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut next = plan.iter().peekable();
        loop {
            let now = self.story.time().saturating_sub(self.began);
            found(self.cluster)?;
            self.end_due(now)?;
            while let Some(episode) = next.next_if(|episode| episode.at <= now) {
                self.begin(episode, now)?;
            }
            if now >= time && self.open.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn server(&self) -> usize {
        self.cluster.seen(VOLUME).ok().and_then(|seen| seen.serves).unwrap_or(0)
    }

    fn resolve(&self, who: Who) -> usize {
        match who {
            Who::Server => self.server(),
            Who::Number(number) => number,
        }
    }

    /// Whether an engine's process or disk has a fault already.
    fn is_busy(&self, place: Place) -> bool {
        self.open.iter().any(|open| match &open.undo {
            Undo::Start(of) | Undo::Continue(of) => *of == place,
            Undo::Disk(engine) => Place::Engine(*engine) == place,
            Undo::Network | Undo::Proxies(_) | Undo::Nothing(_) => false,
        })
    }

    fn begin(&mut self, episode: &Episode, now: Duration) -> Outcome<()> {
        self.number += 1;
        let number = self.number;
        let fault = episode.fault;
        let until = now + episode.lasts;
        let seconds = episode.lasts.as_secs_f64();
        let undo = match self.act(fault, number, now)? {
            Some((text, undo)) => {
                self.story.tell(&format!("#{number} {text}, for {seconds:.1} s"));
                undo
            }
            None => return Ok(()),
        };
        self.deeds.push(Deed { name: fault.name(), from: now, to: until });
        self.open.extend(undo.into_iter().map(|undo| Open { number, until, undo }));
        Ok(())
    }

    /// Does it; what is to be told, and how it is undone.
    fn act(
        &mut self,
        fault: Fault,
        number: u32,
        now: Duration,
    ) -> Outcome<Option<(String, Vec<Undo>)>> {
        let done = match fault {
            Fault::Kill(who) | Fault::Reboot(who) | Fault::End(who) | Fault::Pause(who) => {
                let engine = self.resolve(who);
                if self.left_out(fault, Place::Engine(engine)) {
                    return Ok(None);
                }
                self.process(fault, engine)
            }
            Fault::KillAll => {
                let busy = |engine| self.is_busy(Place::Engine(engine));
                let free: Vec<usize> = (0..ENGINES).filter(|engine| !busy(*engine)).collect();
                free.iter().for_each(|engine| self.cluster.kill(Place::Engine(*engine)));
                let starts = free.iter().map(|engine| Undo::Start(Place::Engine(*engine)));
                ("kill -9 of all engines".into(), starts.collect())
            }
            Fault::KillControl | Fault::PauseControl => {
                if self.left_out(fault, Place::Control) {
                    return Ok(None);
                }
                self.control(fault)
            }
            Fault::DiskStall(who)
            | Fault::DiskSlow(who)
            | Fault::DiskFull(who)
            | Fault::DiskError(who, _) => {
                let engine = self.resolve(who);
                if self.left_out(fault, Place::Engine(engine)) {
                    return Ok(None);
                }
                self.disk(fault, engine)?
            }
            Fault::SlowHosts(who, _)
            | Fault::SlowMembers(who, _)
            | Fault::ResetHosts(who)
            | Fault::ResetMembers(who) => self.detour(fault, self.resolve(who), number, now)?,
            Fault::HandOver => {
                let child = self.operator(&["hand-over", VOLUME]);
                ("an operator asks for a hand-over".into(), vec![child])
            }
            Fault::Snapshot if number.is_multiple_of(2) => {
                let child = self.operator(&["snapshot", "create", VOLUME, SNAPSHOT]);
                ("an operator takes a snapshot".into(), vec![child])
            }
            Fault::Snapshot => {
                let words = ["snapshot", "destroy", VOLUME, SNAPSHOT, "--yes", "--if-exists"];
                ("an operator lets the snapshot go".into(), vec![self.operator(&words)])
            }
            Fault::Grow => {
                let size = (VOLUME_BYTES + (u64::from(number) << 20)).to_string();
                let child = self.operator(&["resize", VOLUME, &size]);
                (format!("an operator makes the volume {size} bytes large"), vec![child])
            }
            _ => self.network(fault, number)?,
        };
        Ok(Some(done))
    }

    /// An operator asks for something, and is gone when the episode ends, answered or not.
    fn operator(&self, words: &[&str]) -> Undo {
        let mut command = self.cluster.control_command();
        command.arg("volume").args(words);
        let quiet = std::process::Stdio::null;
        Undo::Nothing(command.stdout(quiet()).stderr(quiet()).spawn().ok())
    }

    fn left_out(&self, fault: Fault, place: Place) -> bool {
        let busy = self.is_busy(place);
        if busy {
            self.story.tell(&format!("  ({} left out: {} is busy)", fault.name(), place.name()));
        }
        busy
    }

    fn process(&mut self, fault: Fault, engine: usize) -> (String, Vec<Undo>) {
        let place = Place::Engine(engine);
        let name = self.called(engine);
        match fault {
            Fault::Pause(_) => {
                self.cluster.pause(place, true);
                (format!("SIGSTOP of {name}"), vec![Undo::Continue(place)])
            }
            Fault::End(_) => {
                let text = match self.cluster.stop(place) {
                    Ok(()) => format!("{name} ends in order"),
                    // Its peers may be out of reach: it ends all the same.
                    Err(why) => format!("{name} was to end in order: {why}"),
                };
                (text, vec![Undo::Start(place)])
            }
            Fault::Reboot(_) => {
                self.cluster.kill(place);
                self.cluster.reboot(engine);
                (format!("the machine of {name} starts again"), vec![Undo::Start(place)])
            }
            _ => {
                self.cluster.kill(place);
                (format!("kill -9 of {name}"), vec![Undo::Start(place)])
            }
        }
    }

    /// An engine's name, and whether it serves.
    fn called(&self, engine: usize) -> String {
        let serves = self.cluster.seen(VOLUME).is_ok_and(|seen| seen.serves == Some(engine));
        let name = Place::Engine(engine).name();
        if serves { format!("{name} (serves)") } else { name }
    }

    fn control(&mut self, fault: Fault) -> (String, Vec<Undo>) {
        let place = Place::Control;
        match fault {
            Fault::PauseControl => {
                self.cluster.pause(place, true);
                ("SIGSTOP of the control plane".into(), vec![Undo::Continue(place)])
            }
            _ => {
                self.cluster.kill(place);
                ("kill -9 of the control plane".into(), vec![Undo::Start(place)])
            }
        }
    }

    fn disk(&self, fault: Fault, engine: usize) -> Outcome<(String, Vec<Undo>)> {
        let faults: &[&str] = match fault {
            Fault::DiskStall(_) => &["read,stall", "write,stall", "flush,stall"],
            Fault::DiskSlow(_) => &["read,delay:20ms", "write,delay:40ms", "flush,delay:150ms"],
            Fault::DiskError(_, "flush,error") => &["flush,error,all,1"],
            Fault::DiskError(_, "read,error") => &["read,error,all,5"],
            _ => &["write,error,all,3"],
        };
        let name = self.called(engine);
        if matches!(fault, Fault::DiskFull(_)) {
            self.cluster.fill_pool(engine)?;
            return Ok((format!("the pool of {name} is full"), vec![Undo::Disk(engine)]));
        }
        self.cluster.disk_faults(engine, faults)?;
        Ok((format!("disk of {name}: {}", faults.join(" ")), vec![Undo::Disk(engine)]))
    }

    fn network(&mut self, fault: Fault, number: u32) -> Outcome<(String, Vec<Undo>)> {
        let others = |at: Place| Place::all().filter(move |place| *place != at);
        let cut = |from, to| Trouble::Cut { from, to };
        let both = |one, other| vec![cut(one, other), cut(other, one)];
        let place = |nemesis: &Self, who| Place::Engine(nemesis.resolve(who));
        let (text, troubles): (String, Vec<Trouble>) = match fault {
            Fault::Isolate(who) => {
                let at = place(self, who);
                let all = others(at).flat_map(|other| both(at, other)).collect();
                (format!("{} is cut off", self.of(at)), all)
            }
            Fault::Deaf(who) => {
                let at = place(self, who);
                (format!("{} hears nobody", self.of(at)), others(at).map(|o| cut(o, at)).collect())
            }
            Fault::Mute(who) => {
                let at = place(self, who);
                (format!("nobody hears {}", self.of(at)), others(at).map(|o| cut(at, o)).collect())
            }
            Fault::Split(who) => {
                let (at, next) = (place(self, who), self.next(who));
                (format!("{} and {} are cut off", self.of(at), self.of(next)), both(at, next))
            }
            Fault::OneWay(who) => {
                let (at, next) = (place(self, who), self.next(who));
                (format!("{} does not hear {}", self.of(at), self.of(next)), vec![cut(next, at)])
            }
            Fault::NoControl(who) => {
                let at = place(self, who);
                (format!("{} and control are cut off", self.of(at)), both(at, Place::Control))
            }
            Fault::NoHosts(who) => {
                let at = place(self, who);
                (format!("{} and the hosts are cut off", self.of(at)), both(at, Place::Host))
            }
            Fault::Loss(who, percent) => {
                let at = place(self, who);
                let text = format!("{} loses {percent} % of what comes", self.of(at));
                (text, vec![Trouble::Loss { at, percent }])
            }
            Fault::HostLoss(percent) => {
                let at = Place::Host;
                let text = format!("the hosts lose {percent} % of what comes");
                (text, vec![Trouble::Loss { at, percent }])
            }
            _ => (fault.name().into(), Vec::new()),
        };
        troubles.into_iter().for_each(|trouble| self.cluster.net.begin(number, trouble));
        self.cluster.net.apply()?;
        Ok((text, vec![Undo::Network]))
    }

    fn of(&self, place: Place) -> String {
        match place {
            Place::Engine(engine) => self.called(engine),
            Place::Control | Place::Host => place.name(),
        }
    }

    fn next(&self, who: Who) -> Place {
        Place::Engine((self.resolve(who) + 1) % ENGINES)
    }

    /// Puts proxies where connections are made, and resets those that go by without.
    fn detour(
        &mut self,
        fault: Fault,
        engine: usize,
        number: u32,
        now: Duration,
    ) -> Outcome<(String, Vec<Undo>)> {
        let at = Place::Engine(engine);
        let next = Place::Engine((engine + 1) % ENGINES);
        let lines = match fault {
            Fault::SlowMembers(..) | Fault::ResetMembers(_) => vec![(at, next), (next, at)],
            _ => vec![(Place::Host, at)],
        };
        let (what, options) = match fault {
            Fault::SlowHosts(_, delay) | Fault::SlowMembers(_, delay) => {
                (format!("takes {delay} ms each way"), ["--delay".into(), delay.to_string()])
            }
            _ => ("is reset".into(), ["--reset-after".into(), RESET_AFTER.to_string()]),
        };
        let mut proxies = Vec::new();
        for (from, to) in lines.iter().copied() {
            let Place::Engine(target) = to else { continue };
            // One that has just ended may still have its port.
            let port = PROXIES + u16::try_from(self.number % 1000 * 4).unwrap_or(0);
            let port = port + u16::try_from(target).unwrap_or(0);
            proxies.push(self.proxy(from, target, port, &options)?);
            self.cluster.net.begin(number, Trouble::Detour { from, to, port });
            let reset = self.reset_number(number);
            self.cluster.net.begin(reset, Trouble::Reset { from, to });
            self.resets.push((now + RESET, reset));
        }
        self.cluster.net.apply()?;
        let (from, to) = lines[0];
        let text = format!("what {} and {} say {what}", self.of(from), self.of(to));
        Ok((text, vec![Undo::Proxies(proxies), Undo::Network]))
    }

    /// The resets at the beginning of a detour end before it does.
    const fn reset_number(&self, number: u32) -> u32 {
        u32::MAX - number
    }

    fn proxy(&self, from: Place, to: usize, port: u16, options: &[String]) -> Outcome<Child> {
        let own = std::env::current_exe().map_err(|e| format!("where are we? {e}"))?;
        let mut command = self.cluster.net.command(from, &own.to_string_lossy());
        let (listen, seed) = (format!("0.0.0.0:{port}"), self.seed ^ u64::from(self.number));
        command.args(["proxy", "--listen", &listen, "--to", &Cluster::behind(to)]);
        command.args(["--seed", &seed.to_string()]).args(options);
        command.spawn().map_err(|error| format!("cannot start a proxy: {error}"))
    }

    fn end_due(&mut self, now: Duration) -> Outcome<()> {
        let over: Vec<u32> =
            self.resets.iter().filter(|(until, _)| *until <= now).map(|(_, n)| *n).collect();
        if !over.is_empty() {
            self.resets.retain(|(until, _)| *until > now);
            over.into_iter().for_each(|number| self.cluster.net.end(number));
            self.cluster.net.apply()?;
        }
        let (due, open) = std::mem::take(&mut self.open).into_iter().partition(|o| o.until <= now);
        self.open = open;
        let due: Vec<Open> = due;
        due.into_iter().try_for_each(|open| self.undo(open))
    }

    fn undo(&mut self, open: Open) -> Outcome<()> {
        let number = open.number;
        match open.undo {
            Undo::Start(Place::Engine(engine)) => {
                self.cluster.start_engine(engine)?;
                self.story.tell(&format!("  #{number} engine{} runs again", engine + 1));
            }
            Undo::Start(_) => {
                self.cluster.start_control()?;
                self.story.tell(&format!("  #{number} the control plane runs again"));
            }
            Undo::Continue(place) => {
                self.cluster.pause(place, false);
                self.story.tell(&format!("  #{number} {} goes on", place.name()));
            }
            Undo::Network => {
                self.cluster.net.end(number);
                self.cluster.net.apply()?;
                self.story.tell(&format!("  #{number} the network is whole there"));
            }
            Undo::Proxies(mut proxies) => proxies.iter_mut().for_each(kill),
            Undo::Disk(engine) => {
                let told = self.cluster.mend_disk(engine)?;
                self.story.tell(&format!("  #{number} disk of engine{}: {told}", engine + 1));
            }
            Undo::Nothing(child) => child.into_iter().for_each(|mut child| kill(&mut child)),
        }
        Ok(())
    }

    /// Ends everything that goes on.
    pub(crate) fn heal(&mut self) -> Outcome<()> {
        for open in std::mem::take(&mut self.open) {
            self.undo(open)?;
        }
        self.resets.clear();
        self.cluster.net.heal()
    }
}
