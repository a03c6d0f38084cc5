//! Pools come and go: made, imported, grown, exported, destroyed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use braid_api::v1::event::{PoolClosed, PoolDestroyed, PoolGrown, What};
use braid_api::v1::{self, SharePolicy};
use braid_pool::{Command, Config, Device, Format, Limits, Refusal};
use braid_reactor::OpenDisk;
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

use super::convert;
use super::disk::{self, Making, Taken};
use super::host::{Home, Host, NotOpened};
use super::hub::About;
use super::manager::{Held, Manager, Pool, Standing};
use super::names::{self, Names};
use super::search;
use crate::serve::config::seed;
use crate::serve::uri::PoolUri;

/// First of the token kinds of a pool's effects. Whoever runs it gives it others where these are
/// taken.
const TOKEN_BASE: u8 = 0;
/// Bytes of a journal block.
const JOURNAL_BLOCK_BYTES: u64 = 4096;
/// The bounds of a journal that a request may ask for.
const JOURNAL_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 20;
/// The shortest journal that nobody asked for, where a disk has room for it.
const JOURNAL_LEAST_BYTES: u64 = 4 << 20;
/// Bytes at both ends of a disk that are zeroed when it is to be no pool any more, or a new one:
/// the marks of other formats stand there too.
const MARK_BYTES: u64 = 1 << 20;

impl<H: Host> Manager<H> {
    /// `CreatePool`.
    pub(crate) async fn create_pool(
        &self,
        request: v1::CreatePoolRequest,
    ) -> Result<v1::Pool, Status> {
        let asked = names::uuid(&request.uuid)?;
        let policy = convert::policy(request.share)?;
        let making = Making {
            path: PathBuf::from(&request.path),
            bytes: (request.size_bytes > 0).then_some(request.size_bytes),
            allocation: convert::allocation(request.allocation)?,
            force: request.force,
        };
        check_journal(request.journal_bytes)?;
        let _opening = self.opening.lock().await;
        if let Some(pool) = self.present(&making.path, asked)? {
            return self.described_if(&pool, making.bytes).await;
        }
        // Even by force: a call that is repeated must not destroy what it made the first time.
        if let Some(uuid) = asked
            && holds_pool(&making.path, uuid)
        {
            let taken = take(move || disk::find(&making.path)).await?;
            return self.open_pool(taken, Some(uuid), policy).await;
        }
        let uuid = asked.map_or_else(names::random, Ok)?;
        let taken = take(move || disk::make(&making)).await?;
        let (path, is_new) = (taken.open.path.clone(), taken.is_new);
        let made = self.format_pool(taken, uuid, request.journal_bytes).await;
        let taken = made.inspect_err(|_| disk::forget_new(&path, is_new))?;
        self.open_pool(taken, Some(uuid), policy).await
    }

    /// `ImportPool`.
    pub(crate) async fn import_pool(
        &self,
        request: v1::ImportPoolRequest,
    ) -> Result<v1::Pool, Status> {
        let asked = names::uuid(&request.uuid)?;
        let policy = convert::policy(request.share)?;
        let _opening = self.opening.lock().await;
        let path = match (PathBuf::from(&request.path), asked) {
            (path, Some(uuid)) if request.path.is_empty() || path.is_dir() => {
                // One that is here already is on a disk that is not to be looked at.
                if let Some(pool) = self.by_uuid(uuid) {
                    return self.described(&pool).await;
                }
                let folder = (!request.path.is_empty()).then_some(path);
                take(move || search::find(folder.as_deref(), uuid)).await?
            }
            (path, _) => path,
        };
        if let Some(pool) = self.present(&path, asked)? {
            return self.described(&pool).await;
        }
        let taken = take(move || disk::find(&path)).await?;
        self.open_pool(taken, asked, policy).await
    }

    /// `ExportPool`.
    pub(crate) async fn export_pool(&self, reference: &str) -> Result<bool, Status> {
        let Some(mut held) = self.hold_if_there(reference).await? else { return Ok(false) };
        self.close_pool(&mut held).await;
        Ok(true)
    }

    /// `DestroyPool`.
    pub(crate) async fn destroy_pool(&self, reference: &str, force: bool) -> Result<bool, Status> {
        // The only one is meant where nothing is lost by it. A variable of a script that is not
        // set must not name a pool to be destroyed.
        if reference.is_empty() {
            return Err(Status::invalid_argument(
                "pool is missing: what is destroyed has to be named, even if there is one alone",
            ));
        }
        let Some(mut held) = self.hold_if_there(reference).await? else { return Ok(false) };
        let layers = self.picture(&held.pool).await?.layers.len();
        if layers > 0 && !force {
            return Err(Status::failed_precondition(format!(
                "pool {} has {layers} replicas and snapshots; destroy them first, or set force",
                held.pool.path.display()
            )));
        }
        let disk = self.close_pool(&mut held).await;
        let disk = disk.ok_or_else(|| Status::unavailable("the engine stops"))?;
        wipe(disk).await?;
        let text = format!("pool {} is destroyed", held.pool.path.display());
        self.hub.tell(About::pool(held.pool.uuid), text, What::PoolDestroyed(PoolDestroyed {}));
        Ok(true)
    }

    /// `ListPools`.
    pub(crate) async fn list_pools(&self) -> Vec<v1::Pool> {
        let mut listed = Vec::new();
        for pool in self.pools() {
            // One that is gone by now is not listed.
            listed.extend(self.described(&pool).await.ok());
        }
        listed
    }

    /// `GrowPool`.
    pub(crate) async fn grow_pool(&self, request: v1::GrowPoolRequest) -> Result<v1::Pool, Status> {
        let held = self.hold(self.pool(&request.pool)?).await?;
        let pool = &held.pool;
        if request.file_bytes > 0 {
            if pool.is_block_device {
                return Err(Status::invalid_argument(
                    "file_bytes: a block device has its size; leave it out",
                ));
            }
            lengthen(&pool.path, request.file_bytes)?;
        }
        let bytes = size(&pool.path)?;
        if bytes < pool.disk_bytes.load(Ordering::Relaxed) {
            return Err(Status::failed_precondition(format!(
                "{} has {bytes} bytes, fewer than its pool",
                pool.path.display()
            )));
        }
        if bytes > pool.disk_bytes.load(Ordering::Relaxed) {
            self.command(pool, "grow the pool", Command::Grow { bytes }).await?;
            pool.disk_bytes.store(bytes, Ordering::Relaxed);
            let capacity_bytes = self.picture(pool).await?.info.capacity;
            let text = format!("pool {} has grown to {capacity_bytes} bytes", pool.path.display());
            let what = What::PoolGrown(PoolGrown { capacity_bytes });
            self.hub.tell(About::pool(pool.uuid), text, what);
        }
        self.described(pool).await
    }

    /// Imports a pool that the command line names.
    ///
    /// # Errors
    /// As `ImportPool`.
    pub async fn import(&self, uri: &PoolUri) -> Result<(), Status> {
        let share = if uri.shares { SharePolicy::All } else { SharePolicy::None };
        let path = uri.path.to_str().ok_or_else(|| Status::invalid_argument("is not UTF-8"))?;
        let request = v1::ImportPoolRequest {
            path: path.to_owned(),
            uuid: uri.uuid.map_or_else(String::new, |uuid| uuid.to_string()),
            share: share.into(),
        };
        self.import_pool(request).await.map(drop)
    }

    /// The names of all that is shared, for the readiness line.
    #[must_use]
    pub fn shared_names(&self) -> Vec<String> {
        let pools = self.pools();
        let uuids = pools.iter().flat_map(|pool| pool.all_shared());
        uuids.map(|uuid| Names::of(uuid).nqn).collect()
    }

    /// Closes every pool in order, for the end of the engine.
    pub async fn close_all(&self) {
        for pool in self.pools() {
            if let Ok(mut held) = self.hold(pool).await {
                self.close_pool(&mut held).await;
            }
        }
    }

    pub(crate) async fn described(&self, pool: &Pool) -> Result<v1::Pool, Status> {
        let picture = self.picture(pool).await?;
        Ok(convert::pool(pool, &picture))
    }

    /// A pool that is there already, if it is as large as was asked for.
    async fn described_if(&self, pool: &Pool, bytes: Option<u64>) -> Result<v1::Pool, Status> {
        let present = pool.disk_bytes.load(Ordering::Relaxed);
        match bytes {
            Some(asked) if asked != present => Err(Status::already_exists(format!(
                "pool {} has {present} bytes, not {asked}; grow makes it larger",
                pool.path.display()
            ))),
            _ => self.described(pool).await,
        }
    }

    /// The pool at a path, if it is imported; refuses another identity than asked for.
    fn present(&self, path: &Path, asked: Option<[u8; 16]>) -> Result<Option<Arc<Pool>>, Status> {
        let Some(pool) = self.by_path(path) else {
            return match asked.and_then(|uuid| self.by_uuid(uuid)) {
                Some(other) => Err(Status::already_exists(format!(
                    "pool {} is imported from {}",
                    names::text(other.uuid),
                    other.path.display()
                ))),
                None => Ok(None),
            };
        };
        match asked {
            Some(uuid) if uuid != pool.uuid => Err(other_uuid(path, pool.uuid)),
            _ => Ok(Some(pool)),
        }
    }

    /// The pool that is meant, held; None if there is none.
    async fn hold_if_there(&self, reference: &str) -> Result<Option<Held>, Status> {
        let held = match self.pool(reference) {
            Ok(pool) => self.hold(pool).await,
            Err(status) => Err(status),
        };
        match held {
            Err(status) if status.code() == Code::NotFound => Ok(None),
            held => held.map(Some),
        }
    }

    /// Writes the first structures of a pool.
    async fn format_pool(
        &self,
        taken: Taken,
        uuid: [u8; 16],
        journal_bytes: u64,
    ) -> Result<Taken, Status> {
        let Taken { open, device, is_new } = taken;
        let path = open.path.clone();
        // What other formats left at both ends would be found beside the pool.
        let open = zero_ends(open).await?;
        let format = format(uuid, device.bytes, journal_bytes);
        let config = self.config(device);
        let home = self.next_home()?;
        let open = self.host.create(home, open, config, format).await;
        let open = open.map_err(|reason| not_opened(reason, &path, &device))?;
        Ok(Taken { open, device, is_new })
    }

    /// Opens a pool on a disk that was taken, and shares what its policy says.
    async fn open_pool(
        &self,
        taken: Taken,
        asked: Option<[u8; 16]>,
        policy: SharePolicy,
    ) -> Result<v1::Pool, Status> {
        let Taken { open, device, .. } = taken;
        let (path, is_block_device) = (open.path.clone(), open.is_block_device);
        let home = self.next_home()?;
        let opened = self.host.open(home, open, self.config(device)).await;
        opened.map_err(|reason| not_opened(reason, &path, &device))?;
        let picture = self.host.picture(home).await;
        let picture = picture.ok_or_else(|| Status::unavailable("the engine stops"))?;
        let uuid = picture.info.uuid;
        let wrong = match asked {
            Some(asked) if asked != uuid => Some(other_uuid(&path, uuid)),
            _ => self.by_uuid(uuid).map(|other| {
                Status::already_exists(format!(
                    "{} is a copy of pool {}, which is imported from {}",
                    path.display(),
                    names::text(uuid),
                    other.path.display()
                ))
            }),
        };
        if let Some(wrong) = wrong {
            self.host.close(home).await;
            return Err(wrong);
        }
        let pool = Pool::new(uuid, path, home, policy, (is_block_device, device.bytes));
        let pool = Arc::new(pool);
        self.insert(Arc::clone(&pool));
        let held = self.hold(pool).await?;
        for layer in &picture.layers {
            self.expose_member(&held, layer).await;
            self.share_by_policy(&held, layer).await;
        }
        self.described(&held.pool).await
    }

    /// Ends all sharing, closes a pool and takes it out of the table.
    async fn close_pool(&self, held: &mut Held) -> Option<OpenDisk> {
        for uuid in held.pool.all_shared() {
            self.unshare(held, uuid).await;
        }
        self.hide_members(&held.pool).await;
        let disk = self.host.close(held.pool.home).await;
        *held.gate = Standing::Closed;
        let text = format!("pool {} is closed", held.pool.path.display());
        self.hub.tell(About::pool(held.pool.uuid), text, What::PoolClosed(PoolClosed {}));
        self.remove(held.pool.uuid);
        disk
    }

    fn config(&self, device: Device) -> Config {
        Config {
            token_base: TOKEN_BASE,
            device,
            boot_id: self.settings.boot_id,
            owner: self.settings.owner.clone(),
            seed: seed(),
            read_only: false,
            limits: Limits::default(),
            plant: None,
        }
    }
}

/// The shape of a pool on a disk of this size: what suits it, but for the journal that was asked
/// for, if one was.
pub(crate) fn format(uuid: [u8; 16], bytes: u64, journal_bytes: u64) -> Format {
    let small = |blocks: u64| u32::try_from(blocks).unwrap_or(u32::MAX);
    let suited = Format::for_device(uuid, bytes);
    let ring_blocks = if journal_bytes == 0 {
        // What suits a disk that is so small is a ring that is soon full. But it has to keep room
        // for data.
        let least = JOURNAL_LEAST_BYTES.min((bytes / 16).next_multiple_of(JOURNAL_BLOCK_BYTES));
        suited.ring_blocks.max(small(least / JOURNAL_BLOCK_BYTES))
    } else {
        small(journal_bytes / JOURNAL_BLOCK_BYTES)
    };
    Format { ring_blocks, ..suited }
}

fn check_journal(bytes: u64) -> Result<(), Status> {
    if bytes == 0 || JOURNAL_BYTES.contains(&bytes) && bytes.is_multiple_of(JOURNAL_BLOCK_BYTES) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "journal_bytes {bytes} is not a multiple of 4096 between 64KiB and 256MiB"
    )))
}

/// Does what may block on a thread that may.
async fn take<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("taking a disk: {error}"))))
}

async fn zero_ends(disk: OpenDisk) -> Result<OpenDisk, Status> {
    take(move || {
        let piece = MARK_BYTES.min(disk.size / 2);
        let zeroed =
            disk.write_zeros(0, piece).and_then(|()| disk.write_zeros(disk.size - piece, piece));
        zeroed.map(|()| disk).map_err(|error| {
            Status::failed_precondition(format!("cannot write to the disk: {error}"))
        })
    })
    .await
}

async fn wipe(disk: OpenDisk) -> Result<(), Status> {
    zero_ends(disk).await.map(drop)
}

/// Whether a disk holds the pool of this identity: then a repeated `CreatePool` has made it.
fn holds_pool(path: &Path, uuid: [u8; 16]) -> bool {
    disk::pool_on(path).is_some_and(|found| found == uuid)
}

/// Makes a pool's file longer.
fn lengthen(path: &Path, bytes: u64) -> Result<(), Status> {
    let failed = |error: std::io::Error| {
        let text = format!("{}: cannot make it {bytes} bytes long: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull => Status::resource_exhausted(text),
            _ => Status::failed_precondition(text),
        }
    };
    let present = size(path)?;
    if bytes < present {
        return Err(Status::invalid_argument(format!(
            "file_bytes {bytes} is below the {present} bytes that {} has; pools only grow",
            path.display()
        )));
    }
    let file = File::options().write(true).open(path).map_err(failed)?;
    if crate::serve::backend::has_holes(path) {
        return file.set_len(bytes).map_err(failed);
    }
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 0, bytes).map_err(|errno| failed(errno.into()))
}

/// The size of a file or block device now.
fn size(path: &Path) -> Result<u64, Status> {
    let end = File::open(path)
        .and_then(|mut file| std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)));
    end.map_err(|error| {
        Status::failed_precondition(format!("{}: cannot find its end: {error}", path.display()))
    })
}

fn other_uuid(path: &Path, found: [u8; 16]) -> Status {
    Status::already_exists(format!("{} is pool {}", path.display(), names::text(found)))
}

/// Why a pool did not open, as the API tells it.
fn not_opened(reason: NotOpened, path: &Path, device: &Device) -> Status {
    let path = path.display();
    let refusal = match reason {
        NotOpened::Refused(refusal) => refusal,
        NotOpened::NoRoom => {
            return Status::resource_exhausted(format!(
                "{path}: its shard has no room for another disk; export a pool, or raise --shards"
            ));
        }
        NotOpened::Gone => return Status::unavailable("the engine stops"),
    };
    if refusal == Refusal::Limit {
        return Status::resource_exhausted(format!(
            "{path}: has more replicas and snapshots than this engine has room for"
        ));
    }
    let what = refusal_text(refusal, device);
    Status::failed_precondition(format!("{path}: {what}"))
}

/// Why a pool does not open, for people.
pub(crate) fn refusal_text(refusal: Refusal, device: &Device) -> String {
    match refusal {
        Refusal::Foreign => "holds no pool; create makes one".into(),
        Refusal::Newer { version, features } => format!(
            "was made by a newer version (format {version}, unknown features {features:#x}); \
             use that version"
        ),
        Refusal::Truncated { needs, has } => {
            format!("has {has} bytes, but its pool needs {needs}: it was cut short, or is a copy")
        }
        Refusal::Sector => {
            format!("has sectors of {} bytes; a pool takes at most 4096", device.sector)
        }
        Refusal::Damaged { device } => format!(
            "is damaged at byte {device} in both copies; braid-engine inspect shows what is left"
        ),
        Refusal::Device(error) => format!("cannot be read or written: {error}"),
        Refusal::Limit => "has more replicas and snapshots than there is room for".into(),
    }
}

/// Of a new home, for notes that come before its pool is in the table.
impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.shard, self.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::disk::POOL_BYTES_MIN;

    #[test]
    fn a_pool_is_shaped_by_its_size() {
        let tib = format([1; 16], 1 << 40, 0);
        assert_eq!((tib.ring_blocks, tib.reserve_clusters), (32_768, 20_971));
        let gib = format([1; 16], 1 << 30, 0);
        assert_eq!((gib.ring_blocks, gib.reserve_clusters), (1024, 64));
        let least = format([1; 16], POOL_BYTES_MIN, 0);
        assert_eq!((least.ring_blocks, least.reserve_clusters), (256, 8));
        assert_eq!(format([1; 16], 1 << 30, 64 << 10).ring_blocks, 16);
        assert_eq!(format([1; 16], 1 << 40, 256 << 20).ring_blocks, 65_536);
    }

    #[test]
    fn a_journal_that_nobody_asked_for_is_read_in_a_second_after_a_crash() {
        for bits in 24..=50 {
            for bytes in [1_u64 << bits, (1 << bits) + (3 << (bits - 2))] {
                let ring = u64::from(format([1; 16], bytes, 0).ring_blocks) * JOURNAL_BLOCK_BYTES;
                // At 200 MB/s, which leaves the second second to the maps.
                assert!(ring <= 128 << 20, "{bytes}: {ring}");
                assert!(ring >= 4 << 20 || ring == bytes / 16, "{bytes}: {ring}");
            }
        }
    }

    #[test]
    fn journals_of_odd_lengths_are_refused() {
        for good in [0, 64 << 10, 256 << 20, 68 << 10] {
            check_journal(good).unwrap();
        }
        for bad in [1, 4096, (64 << 10) + 1, (256 << 20) + 4096] {
            assert_eq!(check_journal(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
