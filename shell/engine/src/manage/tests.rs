//! The service over its socket, with a model instead of pools: every call, every error code.

mod ana;
mod devices;
mod events;
mod model;
mod namespaces;
mod pools;
mod replicas;
mod snapshots;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use braid_api::v1::engine_client::EngineClient;
use braid_api::v1::{self, Pool};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::manager::{Manager, Settings};
use super::serving::Doors;
use super::socket::Socket;
use model::Model;

/// An engine that only manages, and a client of it.
struct Bench {
    manager: Arc<Manager<Model>>,
    client: EngineClient<Channel>,
    folder: PathBuf,
    _doors: Doors,
}

/// Bytes of the disks of tests.
const DISK_BYTES: u64 = 64 << 20;

impl Bench {
    async fn new() -> Self {
        Self::with(Settings { allows_injection: true, ..Settings::default() }).await
    }

    async fn with(settings: Settings) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("braid-m-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let socket = Socket::bind(&folder.join("s")).unwrap();
        let uri = format!("unix://{}", socket.path.display());
        let manager = Arc::new(Manager::new(Model::default(), settings));
        let mut doors = Doors { socket: Some(socket), tcp: None };
        doors.open(&manager).unwrap();
        let channel = Endpoint::try_from(uri).unwrap().connect().await.unwrap();
        Self { manager, client: EngineClient::new(channel), folder, _doors: doors }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// A pool on a sparse file of this name.
    async fn pool(&mut self, name: &str) -> Pool {
        let request = self.create(name);
        ok(self.client.create_pool(request).await)
    }

    fn create(&self, name: &str) -> v1::CreatePoolRequest {
        v1::CreatePoolRequest {
            path: self.path(name),
            size_bytes: DISK_BYTES,
            allocation: v1::Allocation::Sparse.into(),
            ..v1::CreatePoolRequest::default()
        }
    }

    /// A thin replica of 1 MiB in the only pool.
    async fn replica(&mut self, name: &str) -> v1::Replica {
        ok(self.client.create_replica(replica(name)).await)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn replica(name: &str) -> v1::CreateReplicaRequest {
    v1::CreateReplicaRequest {
        name: name.into(),
        size_bytes: 1 << 20,
        ..v1::CreateReplicaRequest::default()
    }
}

fn ok<T>(answer: Result<Response<T>, Status>) -> T {
    answer.unwrap_or_else(|status| panic!("{status}")).into_inner()
}

/// That a call is refused with this code, in words that hold this.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, code: Code, word: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(word), "'{word}' is not in: {}", status.message());
}

const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const OTHER: &str = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
