//! Disks that come and go while a reactor runs.

mod support;

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use braid_block::{Class, IoError, Memory};
use braid_reactor::{
    Application, Arena, DiskError, OpenDisk, OpenOptions, Options, Reactor, World, mesh,
};
use braid_shard::{Disk, Effect, Event, Note};
use support::{Directory, Fake, Todo, options, token};

const MIB: u64 = 1 << 20;

/// What the test asks for.
enum Ask {
    Add(OpenDisk, Sender<Result<Disk, OpenDisk>>),
    Remove(Disk, Sender<Option<OpenDisk>>),
    /// Write a block full of this.
    Write(Disk, u8),
    Stop,
}

/// Does it, and looks whether a disk can be removed under a write.
struct Table {
    written: Disk,
    stopped: bool,
}

type Act = Box<dyn FnMut(&mut Todo, &mut Arena, Event) + Send>;

impl Application<Fake<Act>> for Table {
    type Control = Ask;

    /// Comes while the effects of a turn are carried out: the write before it is in flight.
    fn note(&mut self, _: &Fake<Act>, world: &mut World<'_>, _: Note) {
        assert!(world.disks.remove(self.written).is_none(), "it is in use");
    }

    fn control(&mut self, machine: &mut Fake<Act>, world: &mut World<'_>, ask: Ask) {
        match ask {
            Ask::Add(disk, answer) => answer.send(world.disks.add(disk)).unwrap(),
            Ask::Remove(disk, answer) => answer.send(world.disks.remove(disk)).unwrap(),
            Ask::Write(disk, fill) => {
                self.written = disk;
                let lease = world.mem.alloc(Class::Small).expect("there is room");
                world.mem.bytes_mut(&lease).fill(fill);
                let (token, span) = (token(1, 0), lease.span(0, 4096));
                machine.todo.leases.push(lease);
                let write = Effect::Write { token, disk, durable: false, span, offset: MIB };
                machine.todo.effects.push_back(write);
                machine.todo.effects.push_back(Effect::Note(Note::Drained));
            }
            Ask::Stop => self.stopped = true,
        }
    }

    fn finished(&self, _: &Fake<Act>) -> bool {
        self.stopped
    }
}

fn open(path: &Path) -> OpenDisk {
    let how = OpenOptions { create_bytes: Some(8 * MIB), ..OpenOptions::default() };
    OpenDisk::open(path, &how).expect("direct I/O works here")
}

fn byte_at(path: &Path, at: u64) -> u8 {
    std::fs::read(path).unwrap()[usize::try_from(at).unwrap()]
}

#[test]
fn a_disk_is_added_used_removed_and_let_go() {
    let directory = Directory::new("table");
    let [a, b, c] = ["a", "b", "c"].map(|name| directory.file(name));
    let (done, results) = channel();
    let act: Act = Box::new(move |todo, mem, event| {
        if let Event::Done { result, .. } = event {
            todo.leases.drain(..).for_each(|lease| mem.free(lease));
            done.send(result).unwrap();
        }
    });
    let options = Options { disks_spare: 1, ..options() };
    let disks = vec![open(&a)];
    let reactor = Reactor::new(options, mesh(1).remove(0), disks, Vec::new(), Vec::new()).unwrap();
    let remote = reactor.remote();
    let machine = Fake::new(act);
    let table = Table { written: Disk(0), stopped: false };
    let thread = std::thread::spawn(move || reactor.run(machine, table).map(drop).unwrap());
    let ask = |ask| assert!(remote.post(ask).is_ok());
    let patience = Duration::from_secs(10);
    let write = |disk, fill| {
        ask(Ask::Write(disk, fill));
        results.recv_timeout(patience).unwrap()
    };
    let add = |disk| {
        let (sender, answer) = channel();
        ask(Ask::Add(disk, sender));
        answer.recv_timeout(patience).unwrap()
    };
    let remove = |disk| {
        let (sender, answer) = channel();
        ask(Ask::Remove(disk, sender));
        answer.recv_timeout(patience).unwrap()
    };

    assert_eq!(write(Disk(0), 1), Ok(4096));
    assert_eq!(write(Disk(1), 1), Err(IoError::Gone), "not there yet");
    assert_eq!(add(open(&b)).unwrap(), Disk(1));
    assert_eq!(add(open(&c)).unwrap_err().path, c, "the table is full");
    assert_eq!(write(Disk(1), 2), Ok(4096));
    assert_eq!((byte_at(&a, MIB), byte_at(&b, MIB)), (1, 2));

    let removed = remove(Disk(1)).expect("nothing is in flight");
    assert_eq!(removed.path, b);
    assert!(remove(Disk(1)).is_none() && remove(Disk(77)).is_none());
    assert_eq!(write(Disk(1), 3), Err(IoError::Gone));
    let at_once = OpenOptions { patience: Duration::ZERO, ..OpenOptions::default() };
    let held = OpenDisk::open(&b, &at_once).expect_err("whoever removed it has it still");
    assert!(matches!(held, DiskError::Busy { .. }), "{held}");

    removed.write_zeros(MIB, 4096).unwrap();
    assert_eq!(byte_at(&b, MIB), 0);
    drop(removed);
    let begun = Instant::now();
    OpenDisk::open(&b, &OpenOptions::default()).expect("the ring has let it go");
    assert!(begun.elapsed() < patience / 2);

    assert_eq!(add(open(&c)).unwrap(), Disk(1), "the number is free again");
    assert_eq!(write(Disk(1), 4), Ok(4096));
    assert_eq!((byte_at(&b, MIB), byte_at(&c, MIB)), (0, 4));
    ask(Ask::Stop);
    thread.join().unwrap();
}
