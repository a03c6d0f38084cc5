//! Pools of nodes: made at once, without time, and looked at as they are on the disk.

use std::collections::BTreeMap;

use braid_block::{BlockSize, Class, Instant, IoError, Memory};
use braid_nexus::Uuid;
use braid_pool::{
    Command, Completion, Config, Create, Device, Failure, Format, LayerInfo, Limits, Plant, Pool,
    Request, State, Work, run_blocking,
};

use crate::disk::Disk;
use crate::image::{BLOCK, Image};
use crate::machine::Machine;
use crate::memory::SimMemory;
use crate::random::Random;

/// First token kind of a pool here.
const TOKENS: u8 = 16;
/// Bytes of an arena for what is done at once.
const ARENA: u64 = 64 << 20;

/// The shape of a node's pool: the same at every start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolShape {
    pub(crate) node: u8,
    pub(crate) seed: u64,
    pub(crate) bytes: u64,
    pub(crate) plant: Option<Plant>,
}

impl PoolShape {
    /// What the pool is opened with at this boot of its machine, by this process.
    pub(crate) fn config(&self, boot: u64, life: u64) -> Config {
        let mut random = Random::part(self.seed, 30 + u64::from(self.node));
        let sector = if random.once_in(3) { 4096 } else { 512 };
        let discards = random.once_in(2);
        let limits = Limits {
            requests_max: 4096,
            layers_max: 64,
            delta_max: *random.pick(&[64, 4096]),
            cache_bytes: *random.pick(&[64 << 10, 1 << 20]),
            dirty_leaves_max: 64,
            checkpoint_blocks: 1 << 20,
            unsettled_max: *random.pick(&[32, 4096]),
            leaves_max: 256,
            ..Limits::default()
        };
        let mut boot_id = [self.node; 16];
        boot_id[8..].copy_from_slice(&boot.to_le_bytes());
        Config {
            token_base: TOKENS,
            device: Device { bytes: self.bytes, sector, discards },
            boot_id,
            owner: "simulator".into(),
            seed: self.seed ^ u64::from(self.node) << 48 ^ life << 32,
            read_only: false,
            limits,
            plant: self.plant,
        }
    }

    fn format(&self) -> Format {
        let mut random = Random::part(self.seed, 40 + u64::from(self.node));
        let mut uuid = [self.node; 16];
        uuid[8..].copy_from_slice(&self.seed.to_le_bytes());
        Format {
            uuid,
            bytes: self.bytes,
            ring_blocks: *random.pick(&[16, 64, 256]),
            slab_clusters: *random.pick(&[20, 64, 200]),
            reserve_clusters: 6,
        }
    }

    /// A disk with a new pool, stopped in order, that holds these replicas; their instances.
    pub(crate) fn make(
        &self,
        boot: u64,
        life: u64,
        replicas: impl Iterator<Item = (Uuid, u64)>,
    ) -> (Disk, BTreeMap<Uuid, u64>) {
        let config = self.config(boot, life);
        let mut still = Still(Image::default());
        let mut desk = Desk::new(Pool::create(config.clone(), self.format()));
        desk.run(&mut still);
        assert_eq!(desk.pool.state(), State::Stopped, "a new pool is made");
        let mut desk = Desk::new(Pool::open(config.clone()));
        desk.run(&mut still);
        for (uuid, bytes) in replicas {
            let create = Create {
                uuid,
                name: "replica".into(),
                bytes,
                block: BlockSize::B512,
                thick: false,
                created: 0,
            };
            let made = desk.command(&mut still, Command::Create(Box::new(create)));
            assert_eq!(made, Ok(()), "a replica fits into a new pool");
        }
        let instances = desk.pool.layers().map(|layer| (layer.uuid, layer.instance)).collect();
        desk.pool.stop(&mut desk.mem, Instant::ZERO);
        desk.run(&mut still);
        assert_eq!(desk.pool.state(), State::Stopped, "a new pool stops");
        (Disk::of_image(still.0, self.bytes, config.device.sector), instances)
    }

    /// What is on a disk now, as a process would find it that opened it at this boot; none if
    /// none could.
    pub(crate) fn look(&self, image: &Image, boot: u64, life: u64) -> Option<Vec<Layer>> {
        let mut still = Still(image.clone());
        let config = self.config(boot, life);
        // One request at a time: tables for many take longer to make than to use.
        let limits = Limits { requests_max: 16, ..config.limits };
        let mut desk = Desk::new(Pool::open(Config { limits, ..config }));
        desk.run(&mut still);
        if desk.pool.state() != State::Open {
            return None;
        }
        let infos: Vec<LayerInfo> = desk.pool.layers().collect();
        Some(infos.into_iter().map(|info| desk.layer(&mut still, info)).collect())
    }

    /// What is not as it must be in a pool, looked at without changing it.
    pub(crate) fn check(&self, image: &Image, boot: u64, life: u64) -> Vec<String> {
        <Pool as Machine>::check(self.config(boot, life), image, Instant::ZERO)
    }
}

/// A replica or snapshot as it is on a disk.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What the pool says of it.
    pub info: LayerInfo,
    /// Blocks that are not zeros, by number; none for one that cannot be read.
    pub blocks: BTreeMap<u64, Option<Box<[u8; BLOCK]>>>,
    /// Regions that are marked: first, and number.
    pub marks: Vec<(u32, u32)>,
}

/// An image that answers at once.
struct Still(Image);

impl braid_pool::Image for Still {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        self.0.read(offset, bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.0.write(offset, bytes);
        Ok(())
    }
}

/// A pool that is worked with at once.
struct Desk {
    pool: Pool,
    mem: SimMemory,
    ended: Vec<Completion>,
}

impl Desk {
    const fn new(pool: Pool) -> Self {
        Self { pool, mem: SimMemory::new(ARENA), ended: Vec::new() }
    }

    fn run(&mut self, still: &mut Still) {
        let Self { pool, mem, ended } = self;
        run_blocking(pool, mem, still, Instant::ZERO, |_, completion| ended.push(completion));
    }

    fn command(&mut self, still: &mut Still, command: Command) -> Result<(), Failure> {
        self.pool.command(&mut self.mem, Instant::ZERO, 1, command);
        self.run(still);
        self.ended.pop().expect("a command ends").result.map(|_| ())
    }

    fn layer(&mut self, still: &mut Still, info: LayerInfo) -> Layer {
        let marked = self.command(still, Command::Marks { uuid: info.uuid });
        let marks = self.pool.take_marks(1).unwrap_or_default();
        assert_eq!(marked, Ok(()), "marks of a layer that is there");
        let mut blocks = BTreeMap::new();
        let transfer = u64::from(Class::Large.bytes());
        for at in (0..info.bytes).step_by(Class::Large.bytes() as usize) {
            let len = transfer.min(info.bytes - at);
            let read = self.read(still, &info, at, len);
            match read {
                Ok(bytes) => put(&mut blocks, at, &bytes),
                Err(_) => {
                    for at in (at..at + len).step_by(BLOCK) {
                        match self.read(still, &info, at, BLOCK as u64) {
                            Ok(bytes) => put(&mut blocks, at, &bytes),
                            Err(_) => drop(blocks.insert(at / BLOCK as u64, None)),
                        }
                    }
                }
            }
        }
        Layer { info, blocks, marks }
    }

    fn read(
        &mut self,
        still: &mut Still,
        info: &LayerInfo,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, Failure> {
        let lease = self.mem.alloc(Class::Large).expect("an arena that is large enough");
        let len = u32::try_from(len).expect("a transfer");
        let work = Work::Read { offset, len };
        let request = Request { tag: 2, handle: info.handle, work, lease: Some(lease) };
        self.pool.submit(&mut self.mem, Instant::ZERO, request);
        self.run(still);
        let completion = self.ended.pop().expect("a read ends");
        let lease = completion.lease.expect("its buffer comes back");
        let bytes = self.mem.bytes(&lease)[..len as usize].to_vec();
        self.mem.free(lease);
        completion.result.map(|_| bytes)
    }
}

fn put(blocks: &mut BTreeMap<u64, Option<Box<[u8; BLOCK]>>>, at: u64, bytes: &[u8]) {
    for (number, block) in (at / BLOCK as u64..).zip(bytes.chunks_exact(BLOCK)) {
        if block.iter().any(|byte| *byte != 0) {
            let block: [u8; BLOCK] = block.try_into().expect("a block");
            blocks.insert(number, Some(Box::new(block)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pool_has_its_replicas_and_keeps_their_instances() {
        let shape = PoolShape { node: 1, seed: 5, bytes: 16 << 20, plant: None };
        let replicas = [([7; 16], 1 << 20), ([8; 16], 3 << 20)];
        let (disk, instances) = shape.make(1, 0, replicas.into_iter());
        assert_eq!(instances.len(), 2);
        let layers = shape.look(disk.current(), 1, 1).unwrap();
        for layer in &layers {
            assert_eq!(instances.get(&layer.info.uuid), Some(&layer.info.instance));
            assert!(layer.blocks.is_empty() && layer.marks.is_empty());
        }
        let (other, _) = shape.make(1, 0, replicas.into_iter());
        let blocks =
            |disk: &Disk| disk.current().blocks().map(|(at, b)| (at, *b)).collect::<Vec<_>>();
        assert_eq!(blocks(&disk), blocks(&other), "the same seed, the same disk");
    }
}
