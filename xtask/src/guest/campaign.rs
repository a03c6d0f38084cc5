//! The campaign: boots a guest, has it run one scenario after another, counts what they found.

use super::initramfs;
use super::kernel::{self, Kernel, Release};
use super::machine::{Machine, Word};
use super::scenario::Scenario;
use super::service::{Programs, Services};
use crate::fault::{Explain, Fault, Outcome};
use crate::network::Network;
use crate::tally::Tally;
use crate::{process, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many lines of a log are shown when something failed.
const TAIL: usize = 40;

/// How long one command of another host may take.
const COMMAND: Duration = Duration::from_secs(60);

/// Nodes of the network, besides the place where the guests are.
const NODES: u8 = 3;

/// Everything that the scenarios of one campaign share.
#[derive(Debug)]
pub(crate) struct Campaign {
    kernel: Kernel,
    initramfs: PathBuf,
    programs: Programs,
    /// Where guests and engines run; without it, some scenarios cannot.
    network: Option<Rc<Network>>,
    own: PathBuf,
    guest: Option<Machine>,
    /// Another host, for scenarios that need two.
    second: Option<Machine>,
    boots: u32,
    /// What was found so far.
    pub(crate) tally: Tally,
}

impl Campaign {
    /// Gets the kernel and makes the initramfs; boots nothing yet.
    pub(crate) fn new(release: Release, programs: Programs) -> Outcome<Self> {
        let kernel = kernel::fetch(release)?;
        let initramfs = initramfs::make(&kernel)?;
        let own = copy_own_program()?;
        let network = Network::new(NODES).map(Rc::new);
        if let Err(fault) = &network {
            println!("without a network of its own: {fault}");
        }
        Ok(Campaign {
            kernel,
            initramfs,
            programs,
            network: network.ok(),
            own,
            guest: None,
            second: None,
            boots: 0,
            tally: Tally::default(),
        })
    }

    /// Runs one scenario; whatever goes wrong in it is counted, and the next one can run.
    pub(crate) fn run(&mut self, scenario: &Scenario) {
        let began = Instant::now();
        println!("{}: {}", scenario.name, scenario.about);
        let failed_before = self.tally.failed();
        if let Err(fault) = self.try_run(scenario) {
            self.check(scenario, "scenario", false, &fault.to_string());
            self.guest = None;
            self.second = None;
        }
        if self.tally.failed() > failed_before {
            show_tail(&self.console());
        }
        println!("  {:.1} s", began.elapsed().as_secs_f64());
    }

    /// Switches the guest off and says how many were booted.
    pub(crate) fn end(mut self) -> (Tally, u32) {
        for guest in [self.guest.take(), self.second.take()].into_iter().flatten() {
            if let Err(fault) = guest.off() {
                self.tally.fail("guest off", &fault.to_string());
            }
        }
        (self.tally, self.boots)
    }

    fn try_run(&mut self, scenario: &Scenario) -> Outcome<()> {
        self.guest()?;
        let (programs, network) = (self.programs.clone(), self.network.clone());
        let mut services = Services::start(programs, network, scenario.name, scenario.engines)?;
        let done = self.converse(scenario, &mut services);
        let logs: Vec<PathBuf> = services.logs().map(Path::to_path_buf).collect();
        let failed_before = self.tally.failed();
        if let Err(fault) = services.finish() {
            self.check(scenario, "engine-ends", false, &fault.to_string());
        }
        for log in &logs {
            self.look_for_panics(scenario, log);
        }
        if done.is_err() || self.tally.failed() > failed_before {
            logs.iter().for_each(|log| show_tail(log));
        }
        done
    }

    /// Has the guest run the scenario's script, counts its checks and answers its questions.
    fn converse(&mut self, scenario: &Scenario, services: &mut Services) -> Outcome<()> {
        let settings = format!(
            "HOST=10.0.2.2 XTASK={} ENGINE={} {}",
            self.own.display(),
            self.programs.engine.display(),
            services.settings()
        );
        let order = format!("run {} {settings}", scenario.name);
        let end = Instant::now() + scenario.deadline();
        let guest = self.guest()?;
        guest.say(&order)?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.guest()?.hear(left)? {
                Some(Word::Check { name, ok, detail }) => self.check(scenario, &name, ok, &detail),
                Some(Word::Ask(question)) => {
                    let answered = match question.as_slice() {
                        [verb, words @ ..] if verb == "second" => self.have_second_do(words),
                        _ => services.answer(&question),
                    };
                    let answer = match answered {
                        Ok(text) => format!("OK {text}"),
                        Err(fault) => format!("NO {fault}"),
                    };
                    let verb = question.first().map_or("", String::as_str);
                    if !["blocks", "control", "manage", "second"].contains(&verb) {
                        println!("  --   {}: {answer}", question.join(" "));
                    }
                    self.guest()?.say(&answer)?;
                }
                Some(Word::Done(status)) if status == "0" => return Ok(()),
                Some(Word::Done(status)) => {
                    return Err(Fault::new(format!("the script ended with status {status}")));
                }
                Some(Word::Ready(_) | Word::Said(_) | Word::Bye) => {
                    return Err(Fault::new("the guest restarted"));
                }
                None => {
                    let seconds = scenario.deadline().as_secs();
                    return Err(Fault::new(format!("not done in {seconds} s; guest ended")));
                }
            }
        }
    }

    /// The running guest; boots one if there is none.
    fn guest(&mut self) -> Outcome<&mut Machine> {
        if self.guest.is_none() {
            self.boots += 1;
            let began = Instant::now();
            let guest = self.boot(1)?;
            println!("  booted Linux {} in {:.1} s", guest.version, began.elapsed().as_secs_f64());
            self.guest = Some(guest);
        }
        self.guest.as_mut().ok_or_else(|| Fault::new("no guest"))
    }

    /// Boots a guest. The emulator sometimes runs half of an instruction that the guest's kernel
    /// patches while it comes up, which ends the guest long before it meets an engine; so it has
    /// a second chance then.
    fn boot(&self, number: u32) -> Outcome<Machine> {
        let boot = || {
            let emulator = bound(self.network.as_deref(), "qemu-system-x86_64");
            Machine::boot(emulator, &self.kernel, &self.initramfs, &self.console(), number)
        };
        boot().or_else(|fault| {
            println!("  booting again: {fault}; see {}", self.console().display());
            boot()
        })
    }

    /// Has another host run one command; its output, or a fault with it if it failed.
    fn have_second_do(&mut self, words: &[String]) -> Outcome<String> {
        if self.second.is_none() {
            self.boots += 1;
            let began = Instant::now();
            let guest = self.boot(2)?;
            println!("  booted another in {:.1} s", began.elapsed().as_secs_f64());
            self.second = Some(guest);
        }
        let guest = self.second.as_mut().ok_or_else(|| Fault::new("no second guest"))?;
        guest.say(&format!("do {}", words.join(" ")))?;
        match guest.hear(COMMAND)? {
            Some(Word::Said(said)) => match said.split_once(' ').unwrap_or((&said, "")) {
                ("0", output) => Ok(output.to_owned()),
                (status, output) => Err(Fault::new(format!("{status} {output}"))),
            },
            other => Err(Fault::new(format!("the second guest said {other:?}"))),
        }
    }

    fn check(&mut self, scenario: &Scenario, name: &str, ok: bool, detail: &str) {
        println!("  {} {name} {detail}", if ok { "ok  " } else { "FAIL" });
        match ok {
            true => self.tally.pass(),
            false => self.tally.fail(&format!("guest {} {name}", scenario.name), detail),
        }
    }

    fn look_for_panics(&mut self, scenario: &Scenario, log: &Path) {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
            self.check(scenario, "engine-panics", false, line);
        }
    }

    fn console(&self) -> PathBuf {
        workspace::target().join(format!("guest/console-{}.log", self.boots))
    }
}

/// A command that runs where the guests are, and ends with us.
pub(crate) fn bound(network: Option<&Network>, program: impl AsRef<Path>) -> Command {
    match network {
        Some(network) => network.bound(program),
        None => process::bound(program.as_ref()),
    }
}

/// This program as the guest calls it; the one that runs may be replaced by a build meanwhile.
fn copy_own_program() -> Outcome<PathBuf> {
    let copy = workspace::folder("guest")?.join("xtask");
    let _ = fs::remove_file(&copy);
    fs::copy("/proc/self/exe", &copy).explain(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

fn show_tail(log: &Path) {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    println!("  the end of {}:", log.display());
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        println!("    | {}", line.trim_end());
    }
}
