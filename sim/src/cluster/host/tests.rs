//! What a host does on its paths.

use super::*;

const NOW: Instant = Instant::from_nanos(1_000_000);
const LINES: [LineId; 2] = [LineId(7), LineId(8)];

/// A host with two paths that are connected, and nothing of its own to do.
struct Bench {
    host: Host,
    history: History,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let habits = Habits {
            depth: 4,
            think: Duration::ZERO,
            patience: Duration::from_secs(5),
            reconnect: Duration::from_secs(1),
            weights: [1, 1, 0, 0],
            durable_in: 0,
            hot: (0, 64),
            heat: 50,
            sectors: 2048,
            transfer: 256,
            ragged: 20,
        };
        let mut host = Host::new(0, 2, habits, Random::new(1));
        host.set_quiet(true);
        let mut bench = Self { host, history: History::default(), now: NOW };
        bench.host.elapse(NOW, &mut bench.history);
        assert_eq!(bench.outputs(), [Output::Open { path: 0 }, Output::Open { path: 1 }]);
        for (path, line) in (0..).zip(LINES) {
            bench.host.opening(path, line);
            bench.take(line, Input::Opened);
            assert_eq!(bench.outputs(), [Output::ReadAna { line }]);
        }
        bench
    }

    fn take(&mut self, line: LineId, input: Input<'_>) {
        self.host.take(self.now, &mut self.history, line, input).unwrap();
    }

    fn ana(&mut self, line: LineId, optimized: bool) {
        self.take(line, Input::Ana { optimized });
    }

    fn write(&mut self) {
        let deed = Deed::Write { durable: false };
        self.host.add(self.now, &mut self.history, deed, (8, 8));
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.host.poll()).collect()
    }

    /// The lines and tags of the commands that were sent.
    fn sent(&mut self) -> Vec<(LineId, u64)> {
        let sent = self.outputs().into_iter().filter_map(|output| match output {
            Output::Request { line, tag, .. } => Some((line, tag)),
            _ => None,
        });
        sent.collect()
    }

    fn answer(&mut self, (line, tag): (LineId, u64), status: Status) {
        self.take(line, Input::Completed { tag, status, bytes: &[] });
    }
}

#[test]
fn io_waits_for_a_log_that_says_optimized() {
    let mut bench = Bench::new();
    bench.write();
    bench.ana(LINES[0], false);
    assert!(bench.sent().is_empty());
    bench.ana(LINES[1], true);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn inaccessible_means_read_the_log_and_send_it_again_elsewhere() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.ana(LINES[1], false);
    bench.write();
    let first = bench.sent()[0];
    assert_eq!(first.0, LINES[0]);
    bench.answer(first, Status::Inaccessible);
    assert_eq!(bench.outputs(), [Output::ReadAna { line: LINES[0] }]);
    bench.ana(LINES[0], false);
    bench.take(LINES[1], Input::Access);
    bench.ana(LINES[1], true);
    let again = bench.sent()[0];
    assert_eq!(again.0, LINES[1]);
    bench.answer(again, Status::Success);
    let op = bench.history.operation(1);
    assert_eq!((op.sent.len(), op.has_ended(), bench.host.is_idle()), (2, true, true));
}

#[test]
fn an_event_while_the_log_is_read_reads_it_once_more() {
    let mut bench = Bench::new();
    bench.take(LINES[0], Input::Access);
    bench.ana(LINES[0], true);
    bench.write();
    assert_eq!(bench.outputs(), [Output::ReadAna { line: LINES[0] }]);
    bench.ana(LINES[0], true);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_path_that_dies_takes_its_commands_to_the_other_and_connects_again() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.write();
    let first = bench.sent()[0];
    bench.ana(LINES[1], true);
    bench.take(LINES[0], Input::Ended);
    let again = bench.sent()[0];
    assert_eq!((first.0, again.0), (LINES[0], LINES[1]));
    // What comes by a line that is no more is of nobody.
    bench.answer(first, Status::Success);
    assert!(!bench.history.operation(1).has_ended());
    bench.now = bench.host.due().unwrap();
    assert_eq!(bench.now.since(NOW), Duration::from_secs(1));
    bench.host.elapse(bench.now, &mut bench.history);
    assert_eq!(bench.outputs(), [Output::Open { path: 0 }]);
}

#[test]
fn a_command_that_takes_too_long_resets_its_path() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.write();
    bench.outputs();
    bench.ana(LINES[1], false);
    bench.now = NOW + Duration::from_secs(5);
    bench.host.elapse(bench.now, &mut bench.history);
    assert_eq!(bench.outputs(), [Output::Close { line: LINES[0] }]);
    assert!(!bench.host.is_idle());
}

#[test]
fn what_must_not_be_repeated_ends_and_what_may_is_repeated_five_times() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    for status in [Status::WriteFault { dnr: true }, Status::NoSpace, Status::Invalid] {
        bench.write();
        let sent = bench.sent()[0];
        bench.answer(sent, status);
        assert!(bench.host.is_idle(), "{status:?}");
    }
    bench.write();
    let mut sendings = 0;
    while let Some(sent) = bench.sent().first() {
        sendings += 1;
        bench.answer(*sent, Status::WriteFault { dnr: false });
        bench.now = bench.now + Duration::from_millis(3);
        bench.host.elapse(bench.now, &mut bench.history);
    }
    assert_eq!(sendings, 6);
    assert!(bench.host.is_idle() && bench.history.operation(4).has_ended());
}

#[test]
fn a_host_that_crashes_forgets_everything_and_comes_back() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.write();
    let sent = bench.sent()[0];
    bench.host.crash();
    bench.answer(sent, Status::Success);
    assert!(bench.host.due().is_none() && bench.outputs().is_empty());
    assert!(!bench.history.operation(1).has_ended());
    bench.host.restart(bench.now, &mut bench.history);
    assert_eq!(bench.outputs(), [Output::Open { path: 0 }, Output::Open { path: 1 }]);
}

#[test]
fn a_workload_keeps_its_depth_and_its_range() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.host.set_quiet(false);
    bench.host.elapse(bench.now, &mut bench.history);
    let mut done = 0;
    for _ in 0..500 {
        let sent = bench.sent();
        assert!(bench.host.open().count() <= 4);
        for sent in sent {
            let op = bench.host.flying[&sent.1].number;
            match bench.history.operation(op).deed {
                Deed::Read => {
                    let len = bench.history.operation(op).sectors as usize * SECTOR;
                    let bytes = vec![0; len];
                    let (tag, status) = (sent.1, Status::Success);
                    bench.take(sent.0, Input::Completed { tag, status, bytes: &bytes });
                }
                _ => bench.answer(sent, Status::Success),
            }
            done += 1;
        }
        bench.host.elapse(bench.now, &mut bench.history);
    }
    assert!(done >= 2000, "{done}");
    let ops = bench.history.operations();
    assert!(ops.iter().all(|op| op.first + op.sectors <= 2048 && op.sectors <= 256));
    let hot = ops.iter().filter(|op| op.first + op.sectors <= 64).count();
    let ragged = ops.iter().filter(|op| !(op.first | op.sectors).is_multiple_of(8)).count();
    assert!(hot * 3 > ops.len() && ragged * 20 > ops.len(), "{hot} {ragged} of {}", ops.len());
}

#[test]
fn a_media_error_ends_an_operation_and_its_block_is_written_anew() {
    for deed in [Deed::Read, Deed::Write { durable: true }] {
        let mut bench = Bench::new();
        bench.ana(LINES[0], true);
        bench.host.add(bench.now, &mut bench.history, deed, (3, 30));
        let first = bench.sent()[0];
        // The second sector of the third block.
        bench.answer(first, Status::Media(2 * 4096 + 512));
        let op = bench.history.operation(2).clone();
        assert_eq!((op.deed, op.first, op.sectors), (Deed::Write { durable: false }, 16, 8));
        let write = bench.sent();
        assert_eq!(write.len(), 1);
        bench.answer(write[0], Status::Success);
        assert!(bench.host.is_idle() && bench.history.operations().len() == 2, "{deed:?}");
    }
}

#[test]
fn a_chore_that_meets_a_media_error_is_done_block_by_block_and_mends_the_bad_one() {
    let mut bench = Bench::new();
    bench.ana(LINES[0], true);
    bench.host.read_all(bench.now, &mut bench.history, [(0, 24), (24, 8)].into_iter());
    let (mut done, mut bad) = (Vec::new(), true);
    while let Some(sent) = bench.sent().first().copied() {
        let op = bench.history.operations().last().unwrap().clone();
        let range = op.first..op.first + op.sectors;
        let fails = op.deed == Deed::Read && range.contains(&8) && bad;
        done.push((op.deed == Deed::Read, op.first, op.sectors, fails));
        if op.deed != Deed::Read {
            bad = false;
        }
        let bytes = vec![0; op.sectors as usize * SECTOR];
        let status = if fails { Status::Media(op.first * 512) } else { Status::Success };
        bench.take(sent.0, Input::Completed { tag: sent.1, status, bytes: &bytes });
    }
    let read = |first, sectors, fails| (true, first, sectors, fails);
    let all = [
        read(0, 24, true),
        read(0, 8, false),
        read(8, 8, true),
        (false, 8, 8, false),
        read(8, 8, false),
        read(16, 8, false),
        read(24, 8, false),
    ];
    assert_eq!(done, all);
    assert!(bench.host.is_idle());
}
