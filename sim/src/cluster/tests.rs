//! The cluster as a whole: one host, and what may happen to it.

use std::time::Duration;

use super::*;

const HOST: Uuid = [0x40; 16];
const BLOCK: u32 = 4096;

/// A host with one line to each node, which sends on the one that is optimized.
struct Driver {
    cluster: Cluster,
    lines: Vec<LineId>,
    tag: u64,
}

impl Driver {
    fn new(config: ClusterConfig) -> Self {
        let mut cluster = Cluster::new(config);
        for node in 0..3 {
            cluster.run_until_ready(node);
        }
        let lines = (0..3).map(|node| cluster.host_connect(0, node, 0, HOST, 0)).collect();
        let mut driver = Self { cluster, lines, tag: 0 };
        driver.run(Duration::from_millis(100));
        driver
    }

    fn run(&mut self, time: Duration) {
        let until = self.cluster.now() + time;
        self.cluster.run_until(until);
    }

    /// What one command came to on one line; none if nobody answers.
    fn once(&mut self, line: LineId, work: Work, data: &[u8]) -> Option<(Status, Vec<u8>)> {
        self.tag += 1;
        if !self.cluster.host_send(line, self.tag, work, data) {
            return None;
        }
        let patience = self.cluster.now() + Duration::from_secs(20);
        while self.cluster.next_at().is_some_and(|at| at < patience) {
            self.cluster.step();
            while let Some(happened) = self.cluster.poll() {
                let Happened::Host { line: by, event } = happened else { continue };
                match event {
                    HostEvent::Completed { tag, status, data, .. } if tag == self.tag => {
                        return Some((status, data.map_or(Vec::new(), |data| data.to_vec())));
                    }
                    HostEvent::Broken if by == line => return None,
                    _ => {}
                }
            }
        }
        panic!("{work:?} on {line} never ends");
    }

    /// Reads the ANA log of a line.
    fn is_optimized(&mut self, line: LineId) -> bool {
        self.tag += 1;
        self.cluster.host_read_ana(line, self.tag);
        let patience = self.cluster.now() + Duration::from_secs(5);
        while self.cluster.next_at().is_some_and(|at| at < patience) {
            self.cluster.step();
            while let Some(happened) = self.cluster.poll() {
                if let Happened::Host { event: HostEvent::Ana { tag, optimized }, .. } = happened
                    && tag == self.tag
                {
                    return optimized;
                }
            }
        }
        false
    }

    /// Sends a command where it is taken, again and again.
    fn at_last(&mut self, work: Work, data: &[u8]) -> (Status, Vec<u8>) {
        for _ in 0..300 {
            for at in 0..self.lines.len() {
                let line = self.lines[at];
                if !self.is_optimized(line) {
                    if !self.cluster.has_line(line) {
                        let node = u8::try_from(at).unwrap();
                        self.lines[at] = self.cluster.host_connect(0, node, 0, HOST, 0);
                    }
                    continue;
                }
                match self.once(line, work, data) {
                    None | Some((Status::Inaccessible, _)) => {}
                    Some(answer) => return answer,
                }
            }
            self.run(Duration::from_millis(100));
        }
        panic!("nobody takes {work:?}");
    }

    fn write(&mut self, block: u64, byte: u8) {
        let offset = block * u64::from(BLOCK);
        let work = Work::Write { offset, len: BLOCK, durable: false };
        let (status, _) = self.at_last(work, &[byte; BLOCK as usize]);
        assert_eq!(status, Status::Success);
    }

    fn flush(&mut self) {
        assert_eq!(self.at_last(Work::Flush, &[]).0, Status::Success);
    }

    fn read(&mut self, block: u64) -> u8 {
        let work = Work::Read { offset: block * u64::from(BLOCK), len: BLOCK };
        let (status, bytes) = self.at_last(work, &[]);
        assert_eq!((status, bytes.len()), (Status::Success, BLOCK as usize));
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a block of one write");
        bytes[0]
    }

    /// What the disks hold of a block of the volume, by node.
    fn on_disks(&self, block: u64) -> Vec<Option<u8>> {
        let byte = |node| {
            let layers = self.cluster.look(node)?;
            let layer = layers.iter().find(|layer| layer.info.uuid == replica_uuid(0, node))?;
            Some(layer.blocks.get(&block).map_or(0, |bytes| bytes.as_ref().unwrap()[0]))
        };
        (0..3).map(byte).collect()
    }
}

fn story() -> Story {
    if std::env::var_os("STORY").is_some() { Story::Aloud } else { Story::Silent }
}

fn driver(seed: u64) -> Driver {
    Driver::new(ClusterConfig { story: story(), ..ClusterConfig::new(seed) })
}

#[test]
fn a_host_writes_flushes_and_reads_through_three_replicas() {
    let mut driver = driver(1);
    for block in 0..8 {
        driver.write(block, 1 + block as u8);
    }
    driver.flush();
    for block in 0..8 {
        assert_eq!(driver.read(block), 1 + block as u8);
        assert_eq!(driver.on_disks(block), vec![Some(1 + block as u8); 3]);
    }
    assert_eq!(driver.read(100), 0, "never written");
}
