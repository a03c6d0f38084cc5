//! A world with a pool: its disk, and how it is made, opened and managed.

use std::collections::BTreeMap;

use braid_block::{BlockSize, Geometry, IoError};
use braid_pool::{Command, Create, Device, Done, Failure, Format, Handle};
use braid_shard::{
    BackendConfig, Config, Disk, Effect, NamespaceConfig, Note, PoolId, SubsystemConfig,
};

use super::{Counts, NQN, World, config};

pub const POOL: PoolId = PoolId(7);
pub const POOL_DISK: Disk = Disk(1);
pub const POOL_BYTES: u64 = 24 << 20;
pub const REPLICA: [u8; 16] = [1; 16];
pub const REPLICA_BYTES: u64 = 8 << 20;
const BLOCK: u64 = 4096;

/// A disk with a volatile cache, zeros until written.
#[derive(Clone, Default)]
pub struct PoolDisk {
    durable: BTreeMap<u64, Vec<u8>>,
    cached: BTreeMap<u64, Vec<u8>>,
    pub counts: Counts,
    /// Every operation from now on fails so.
    pub error: Option<IoError>,
    /// After so many more operations they fail.
    pub left: Option<u64>,
    /// It does not answer any more.
    pub hangs: bool,
}

impl PoolDisk {
    fn block(&self, block: u64) -> Vec<u8> {
        let found = self.cached.get(&block).or_else(|| self.durable.get(&block));
        found.cloned().unwrap_or_else(|| vec![0; BLOCK as usize])
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (i, byte) in (offset..).zip(bytes.chunks_mut(512)).map(|(i, c)| (i - offset, c)) {
            let at = offset + i * 512;
            let within = (at % BLOCK) as usize;
            byte.copy_from_slice(&self.block(at / BLOCK)[within..within + byte.len()]);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(512).enumerate() {
            let at = offset + i as u64 * 512;
            let (mut block, within) = (self.block(at / BLOCK), (at % BLOCK) as usize);
            block[within..within + chunk.len()].copy_from_slice(chunk);
            self.cached.insert(at / BLOCK, block);
        }
    }

    fn sync(&mut self) {
        self.durable.append(&mut self.cached);
    }

    /// Power goes: what was not flushed is lost.
    pub fn cut(&mut self) {
        self.cached.clear();
    }

    /// Damages every block on the media that holds nothing but this byte.
    pub fn damage(&mut self, byte: u8) {
        self.sync();
        for block in self.durable.values_mut().filter(|b| b.iter().all(|b| *b == byte)) {
            block[100] ^= 1;
        }
    }
}

/// What a pool is opened with.
pub fn pool_config(boot: u8) -> braid_pool::Config {
    braid_pool::Config {
        token_base: 0,
        device: Device { bytes: POOL_BYTES, sector: 512, discards: false },
        boot_id: [boot; 16],
        owner: "test".into(),
        seed: 5,
        read_only: false,
        limits: braid_pool::Limits { requests_max: 512, ..braid_pool::Limits::default() },
        plant: None,
    }
}

/// A subsystem whose namespace 1 is this replica.
pub fn shared(handle: Handle, read_only: bool, geometry: Geometry) -> SubsystemConfig {
    let namespace = NamespaceConfig {
        nsid: 1,
        ana_group: 1,
        nguid: [3; 16],
        uuid: [4; 16],
        geometry,
        backend: BackendConfig::Replica { pool: POOL, handle, read_only },
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    SubsystemConfig {
        nqn: NQN.into(),
        namespaces: vec![namespace],
        ..config().subsystems.remove(0)
    }
}

impl World {
    /// A pool on a fresh disk, with a replica of blocks of this size that is shared.
    pub fn with_replica(block: BlockSize) -> Self {
        let mut world = Self::bare();
        world.format_pool();
        world.open_pool(1);
        let create = Create {
            uuid: REPLICA,
            name: "replica".into(),
            bytes: REPLICA_BYTES,
            block,
            thick: false,
            created: 0,
        };
        let done = world.pool_command(Command::Create(Box::new(create))).unwrap();
        world.share(done.handle.unwrap(), Geometry::of_bytes(REPLICA_BYTES, block));
        world
    }

    /// A world without a subsystem.
    pub fn bare() -> Self {
        Self::new(Config { subsystems: Vec::new(), ..config() })
    }

    /// What a later process finds: the disk, its pool opened, its replica shared.
    pub fn later(disk: PoolDisk, boot: u8, block: BlockSize) -> Self {
        let mut world = Self::bare();
        world.pool_disk = disk;
        world.pool_disk.counts = Counts::default();
        world.open_pool(boot);
        let handle = world.shard.pool(POOL).unwrap().find(&REPLICA).unwrap();
        world.share(handle, Geometry::of_bytes(REPLICA_BYTES, block));
        world
    }

    pub fn format_pool(&mut self) {
        let format = Format::for_device([9; 16], POOL_BYTES);
        let (mem, now) = (&mut self.mem, self.now);
        assert!(self.shard.pool_create(mem, now, POOL, POOL_DISK, pool_config(1), format));
        self.run();
        let stopped = Note::Pool { pool: POOL, note: braid_pool::Note::Stopped };
        assert!(self.has_note(&stopped), "{:?}", self.notes);
        self.close_pool();
    }

    pub fn open_pool(&mut self, boot: u8) {
        let (mem, now) = (&mut self.mem, self.now);
        assert!(self.shard.pool_open(mem, now, POOL, POOL_DISK, pool_config(boot)));
        self.run();
        assert_eq!(self.shard.pool(POOL).unwrap().state(), braid_pool::State::Open);
    }

    pub fn close_pool(&mut self) {
        let (mem, now) = (&mut self.mem, self.now);
        self.shard.pool_close(mem, now, POOL);
        self.run();
        let closed = Note::PoolClosed { pool: POOL, disk: POOL_DISK, clean: true };
        assert!(self.has_note(&closed), "{:?}", self.notes);
    }

    pub fn share(&mut self, handle: Handle, geometry: Geometry) {
        assert!(self.shard.subsystem_add(shared(handle, false, geometry)));
    }

    /// Takes the shared replica away from hosts that close these sockets.
    pub fn unshare(&mut self, sockets: &[u32]) {
        let (mem, now) = (&mut self.mem, self.now);
        let tag = self.notes.len() as u64;
        assert!(self.shard.subsystem_remove(mem, now, NQN, tag));
        self.run();
        sockets.iter().for_each(|socket| self.end(*socket));
        assert!(self.has_note(&Note::SubsystemGone { tag }));
    }

    /// The pool's disk answers all that it did not.
    pub fn answer_pool_disk(&mut self) {
        self.pool_disk.hangs = false;
        for effect in std::mem::take(&mut self.hanging) {
            assert!(self.on_pool_disk(effect).is_none(), "it is for the pool's disk");
        }
        self.run();
    }

    /// Gives the pool a command, and waits for its end.
    pub fn pool_command(&mut self, command: Command) -> Result<Done, Failure> {
        let mine = self.notes.len() as u64;
        let (mem, now) = (&mut self.mem, self.now);
        self.shard.pool_command(mem, now, POOL, mine, command);
        self.run();
        let result = self.notes.iter().find_map(|note| match note {
            Note::PoolCommand { pool: POOL, tag, result } if *tag == mine => Some(*result),
            _ => None,
        });
        result.expect("the command ended")
    }

    pub fn has_note(&self, wanted: &Note) -> bool {
        self.notes.iter().any(|note| format!("{note:?}") == format!("{wanted:?}"))
    }

    /// Carries out what the pool's disk is asked for; hands back what is not for it.
    pub fn on_pool_disk(&mut self, effect: Effect) -> Option<Effect> {
        let disk = &mut self.pool_disk;
        let ours = matches!(
            effect,
            Effect::Read { disk: POOL_DISK, .. }
                | Effect::Write { disk: POOL_DISK, .. }
                | Effect::Sync { disk: POOL_DISK, .. }
                | Effect::Discard { disk: POOL_DISK, .. }
        );
        if disk.hangs && ours {
            self.hanging.push(effect);
            return None;
        }
        if disk.left == Some(0) {
            disk.error = Some(IoError::Device);
        }
        let (token, result) = match effect {
            Effect::Read { token, disk: POOL_DISK, span, offset } => {
                disk.counts.reads += 1;
                disk.read(offset, self.mem.span_mut(span));
                (token, Ok(span.len))
            }
            Effect::Write { token, disk: POOL_DISK, durable, span, offset } => {
                assert!(!durable, "a pool flushes by itself");
                disk.counts.writes += 1;
                if disk.error.is_none() {
                    disk.write(offset, self.mem.span(span));
                }
                (token, Ok(span.len))
            }
            Effect::Sync { token, disk: POOL_DISK } => {
                disk.counts.syncs += 1;
                disk.sync();
                (token, Ok(0))
            }
            Effect::Discard { token, disk: POOL_DISK, .. } => {
                disk.counts.discards += 1;
                (token, Ok(0))
            }
            other => return Some(other),
        };
        disk.left = disk.left.map(|left| left.saturating_sub(1));
        self.pending_disk.push_back((token, disk.error.map_or(result, Err)));
        None
    }
}
