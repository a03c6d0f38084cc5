//! One emulated machine: started, spoken to over its second serial port, and ended for certain.

use super::kernel::Kernel;
use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A guest boots in some 10 s on an idle machine; a busy one gets this long.
const BOOT: Duration = Duration::from_secs(120);

/// How long a guest may take to switch itself off.
const OFF: Duration = Duration::from_secs(20);

/// What the guest says, one line each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The guest takes orders; its kernel's version.
    Ready(String),
    /// The outcome of one check.
    Check {
        /// What was checked.
        name: String,
        /// Whether it held.
        ok: bool,
        /// What was seen.
        detail: String,
    },
    /// Something to do on the machine; the guest waits for the answer.
    Ask(Vec<String>),
    /// What a single command said, behind its status.
    Said(String),
    /// The scenario's script ended with this status.
    Done(String),
    /// The guest is about to switch itself off.
    Bye,
}

impl Word {
    /// Reads one line; anything else than a word of ours is `None`.
    fn parse(line: &str) -> Option<Self> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "BRAID-READY" => Some(Word::Ready(rest.to_owned())),
            "BRAID-CHECK" => {
                let mut parts = rest.splitn(3, ' ');
                let name = parts.next()?.to_owned();
                let ok = parts.next()? == "ok";
                let detail = parts.next().unwrap_or("").to_owned();
                Some(Word::Check { name, ok, detail })
            }
            "BRAID-ASK" => Some(Word::Ask(rest.split_whitespace().map(str::to_owned).collect())),
            "BRAID-SAID" => Some(Word::Said(rest.to_owned())),
            "BRAID-DONE" => Some(Word::Done(rest.to_owned())),
            "BRAID-BYE" => Some(Word::Bye),
            _ => None,
        }
    }
}

/// A running guest. Dropping it ends the emulator.
#[derive(Debug)]
pub(crate) struct Machine {
    emulator: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    /// The kernel's version, as the guest told it.
    pub(crate) version: String,
}

impl Machine {
    /// Boots a kernel and waits until the guest takes orders. Of several that run at once each has
    /// a number, which makes it another host with disks of its own. The command starts QEMU.
    pub(crate) fn boot(
        mut command: Command,
        kernel: &Kernel,
        initramfs: &Path,
        console: &Path,
        number: u32,
    ) -> Outcome<Self> {
        make_disks(number)?;
        command.args(arguments(kernel, initramfs, console, number)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut emulator = command.spawn().explain(|| "cannot start QEMU".to_owned())?;
        let orders = emulator.stdin.take().ok_or_else(|| Fault::new("QEMU has no input"))?;
        let output = emulator.stdout.take().ok_or_else(|| Fault::new("QEMU has no output"))?;
        let (sender, lines) = mpsc::channel();
        process::forward(output, sender);
        let mut machine = Machine { emulator, orders, lines, version: String::new() };
        match machine.hear(BOOT)? {
            Some(Word::Ready(version)) => machine.version = version,
            other => {
                let said = format!("the guest did not boot in {} s ({other:?})", BOOT.as_secs());
                return Err(Fault::new(said));
            }
        }
        Ok(machine)
    }

    /// Sends the guest one line.
    pub(crate) fn say(&mut self, line: &str) -> Outcome<()> {
        writeln!(self.orders, "{line}").explain(|| "the guest is gone".to_owned())
    }

    /// The guest's next word; `None` when the time is over.
    pub(crate) fn hear(&mut self, deadline: Duration) -> Outcome<Option<Word>> {
        let end = Instant::now() + deadline;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match Word::parse(&line) {
                    Some(word) => return Ok(Some(word)),
                    None if line.is_empty() => {}
                    None => println!("  guest: {line}"),
                },
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fault::new("the guest ended by itself"));
                }
            }
        }
    }

    /// Has the guest switch itself off.
    pub(crate) fn off(mut self) -> Outcome<()> {
        self.say("off")?;
        let ended = process::wait_until(OFF, || {
            self.emulator.try_wait().explain(|| "cannot wait for QEMU".to_owned())
        })?;
        match ended {
            Some(_) => Ok(()),
            None => Err(Fault::new("the guest did not switch itself off")),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// The block devices of a guest: name and bytes of a logical block.
const DISKS: [(&str, u32); 2] = [("vda", 512), ("vdb", 4096)];

/// The size of such a device in bytes.
const DISK: u64 = 96 << 20;

/// Empty files for the guest's block devices.
fn make_disks(number: u32) -> Outcome<()> {
    for (name, _) in DISKS {
        let path = disk(name, number)?;
        let made = File::create(&path).and_then(|file| file.set_len(DISK));
        made.explain(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
}

fn disk(name: &str, number: u32) -> Outcome<PathBuf> {
    Ok(workspace::folder("guest/disks")?.join(format!("{name}-{number}.img")))
}

/// QEMU's arguments: software emulation, the machine's root by 9p, the loopback of where QEMU runs
/// as 10.0.2.2, the first serial port to a file and the second one to us.
fn arguments(
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    number: u32,
) -> Outcome<Vec<String>> {
    let script: PathBuf = workspace::root().join("xtask/guest/main.sh");
    let append = format!(
        "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off braid.script={} \
         braid.number={number}",
        script.display()
    );
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut all = text(&["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "4"]);
    all.extend(text(&["-m", "2048", "-display", "none", "-monitor", "none", "-no-reboot"]));
    all.extend(text(&["-nic", "user,model=virtio-net-pci"]));
    all.extend(text(&[
        "-virtfs",
        "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap",
    ]));
    all.extend(["-serial".into(), format!("file:{}", console.display())]);
    all.extend(text(&["-serial", "stdio"]));
    all.extend(["-kernel".into(), kernel.image.display().to_string()]);
    all.extend(["-initrd".into(), initramfs.display().to_string()]);
    all.extend(["-append".into(), append]);
    for (name, block) in DISKS {
        let file = disk(name, number)?;
        let options = "if=none,format=raw,cache=unsafe,discard=unmap";
        all.extend(["-drive".into(), format!("id={name},file={},{options}", file.display())]);
        let blocks = format!("logical_block_size={block},physical_block_size=4096");
        all.extend(["-device".into(), format!("virtio-blk-pci,drive={name},{blocks}")]);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::Word;

    #[test]
    fn a_check_carries_its_name_outcome_and_detail() {
        let word = Word::parse("BRAID-CHECK connect.plain FAIL no such device");
        let detail = "no such device".to_owned();
        assert_eq!(word, Some(Word::Check { name: "connect.plain".into(), ok: false, detail }));
    }

    #[test]
    fn noise_on_the_line_is_no_word() {
        assert_eq!(Word::parse("[    1.0] nvme nvme0: hello"), None);
    }
}
