//! How fast replicas are brought back is kept by the control plane; nothing waits for that. Here
//! the service runs in the process of the test, on a file that can be held.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use braid_api::control::from_engine::What;
use braid_api::control::registry_client::RegistryClient;
use braid_api::control::registry_server::RegistryServer;
use braid_api::control::volumes_client::VolumesClient;
use braid_api::control::volumes_server::VolumesServer;
use braid_api::control::{self as wire};
use braid_control::registry::Control;
use braid_control::service::Service;
use braid_control::store::{Change, Spec, Stage, Store};
use redb::backends::InMemoryBackend;
use redb::{Builder, StorageBackend};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;

use super::process::channel;

const VOLUMES: u8 = 10;

/// A file whose syncs can be held.
#[derive(Debug)]
struct File {
    inside: InMemoryBackend,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    opens: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opens.notify_all();
    }
}

impl StorageBackend for File {
    fn len(&self) -> Result<u64, io::Error> {
        self.inside.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inside.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.inside.set_len(length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let shut = self.gate.shut.lock().unwrap();
        drop(self.gate.opens.wait_while(shut, |shut| *shut).unwrap());
        self.inside.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.inside.write(offset, data)
    }
}

fn uuid(volume: u8) -> String {
    uuid::Uuid::from_bytes([volume; 16]).to_string()
}

fn spec(volume: u8) -> Spec {
    Spec {
        uuid: [volume; 16],
        name: format!("v{volume}"),
        bytes: 1 << 20,
        places: Vec::new(),
        snapshots: Vec::new(),
        standbys: 1,
        created_unix_s: 7,
        stage: Stage::Creating,
        appointed: None,
        pace: None,
        ended: Vec::new(),
    }
}

/// The versions of the paces that are kept, of all volumes.
fn kept(control: &Control) -> Vec<u64> {
    let version = |volume: u8| {
        let pace = |state: &braid_control::store::State| state.volumes[&[volume; 16]].spec.pace;
        control.store.read(pace).map_or(0, |pace| pace.version)
    };
    (1..=VOLUMES).map(version).collect()
}

async fn until(control: &Control, version: u64) {
    let begun = Instant::now();
    while kept(control) != [version; VOLUMES as usize] {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", kept(control));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What an engine with these volumes says.
fn report(version: u64) -> wire::FromEngine {
    let pace = Some(wire::RebuildPace { version, ..wire::RebuildPace::default() });
    let path = |volume| wire::Path { volume: uuid(volume), pace, ..wire::Path::default() };
    let paths = (1..=VOLUMES).map(path).collect();
    let state = Some(wire::State { paths, ..wire::State::default() });
    wire::FromEngine { what: Some(What::Report(wire::Report { state })) }
}

#[tokio::test]
async fn an_engine_is_heard_while_the_store_keeps_no_pace_and_the_last_one_is_kept() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let opener = move || {
        let file = File { inside: InMemoryBackend::new(), gate: Arc::clone(&held) };
        Builder::new().create_with_backend(file)
    };
    let store = Store::start(Box::new(opener)).unwrap();
    for volume in 1..=VOLUMES {
        store.change(Change::Create(Box::new(spec(volume)))).await.unwrap();
    }
    let control = Arc::new(Control::new(store).unwrap());
    let service = Service(Arc::clone(&control));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder()
        .add_service(RegistryServer::new(service.clone()))
        .add_service(VolumesServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let (to, messages) = mpsc::channel(64);
    let hello = wire::Hello {
        node: "n1".into(),
        id: uuid(100),
        boot: uuid(101),
        process: uuid(102),
        version: "1".into(),
        portals: vec!["127.0.0.1:1".into()],
    };
    to.send(wire::FromEngine { what: Some(What::Hello(hello)) }).await.unwrap();
    to.send(report(1)).await.unwrap();
    let mut registry = RegistryClient::new(channel(&address).connect_lazy());
    let _orders = registry.attend(ReceiverStream::new(messages)).await.unwrap();
    until(&control, 1).await;

    let commits = || control.store.counters().commits.load(std::sync::atomic::Ordering::Relaxed);
    let before = commits();
    gate.set(true);
    let mut volumes = VolumesClient::new(channel(&address).connect_lazy());
    let begun = Instant::now();
    let mut version = 1;
    // More than twice as long as an engine may be silent.
    while begun.elapsed() < Duration::from_secs(3) {
        version += 1;
        to.send(report(version)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let listed = volumes.list_engines(wire::ListEnginesRequest {}).await.unwrap().into_inner();
        let [engine] = &listed.engines[..] else { panic!("{listed:?}") };
        assert!(engine.alive && engine.heard_ms < 1000, "{engine:?}");
    }
    assert_eq!(kept(&control), [1; VOLUMES as usize], "the store was held");
    gate.set(false);
    until(&control, version).await;
    let commits = commits() - before;
    assert!(commits <= 4, "{commits} commits: the first ones together, then the last ones");
    server.abort();
}
