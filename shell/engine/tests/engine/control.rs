//! An engine and its control plane: what it reports, which orders it carries out, how often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use braid_api::control::from_engine::What;
use braid_api::control::membership_server::{Membership, MembershipServer};
use braid_api::control::registry_server::{Registry, RegistryServer};
use braid_api::control::{self as wire, order, to_engine};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::process::{Engine, Folder, run};

const PATIENCE: Duration = Duration::from_secs(30);
/// Controller ids that engines are allotted.
pub(crate) const ALLOTTED: (u32, u32) = (511, 765);
pub(crate) const ORDER: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
pub(crate) const REPLICA: &str = "7ba7b810-9dad-11d1-80b4-00c04fd430c8";

type ToEngine = tokio::sync::mpsc::Sender<Result<wire::ToEngine, Status>>;

/// A control plane that does what the test says.
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    said: Receiver<What>,
    /// Engines that are connected, by node.
    to: Arc<Mutex<BTreeMap<String, ToEngine>>>,
    /// Orders that were given.
    orders: AtomicU64,
    /// The record of the volume.
    pub(crate) record: Arc<Mutex<Vec<u8>>>,
    /// Changes of it are not answered.
    pub(crate) silent: Arc<AtomicBool>,
}

struct Records {
    record: Arc<Mutex<Vec<u8>>>,
    silent: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl Membership for Records {
    async fn fetch(
        &self,
        _: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let record = self.record.lock().unwrap().clone();
        Ok(Response::new(wire::FetchResponse { record }))
    }

    async fn swap(
        &self,
        request: Request<wire::SwapRequest>,
    ) -> Result<Response<wire::SwapResponse>, Status> {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let wire::SwapRequest { old, new, .. } = request.into_inner();
        let mut record = self.record.lock().unwrap();
        let committed = *record == old || *record == new;
        if committed {
            *record = new;
        }
        Ok(Response::new(wire::SwapResponse { committed, record: record.clone() }))
    }
}

struct Service {
    said: Mutex<Sender<What>>,
    to: Arc<Mutex<BTreeMap<String, ToEngine>>>,
}

#[tonic::async_trait]
impl Registry for Service {
    type AttendStream = ReceiverStream<Result<wire::ToEngine, Status>>;

    async fn attend(
        &self,
        request: Request<Streaming<wire::FromEngine>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let (cntlid_min, cntlid_max) = ALLOTTED;
        let welcome =
            wire::Welcome { store: ORDER.into(), heartbeat_ms: 200, cntlid_min, cntlid_max };
        let welcome = wire::ToEngine { what: Some(to_engine::What::Welcome(welcome)) };
        sender.try_send(Ok(welcome)).unwrap();
        let (said, mut from) = (self.said.lock().unwrap().clone(), request.into_inner());
        let to = Arc::clone(&self.to);
        let mut sender = Some(sender);
        tokio::spawn(async move {
            while let Ok(Some(message)) = from.message().await {
                let what = message.what.unwrap();
                if let (What::Hello(hello), Some(sender)) = (&what, sender.take()) {
                    to.lock().unwrap().insert(hello.node.clone(), sender);
                }
                let _ = said.send(what);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Control {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, said) = channel();
        let to: Arc<Mutex<BTreeMap<String, ToEngine>>> = Arc::default();
        let service = Service { said: Mutex::new(sender), to: Arc::clone(&to) };
        let (record, silent) = (Arc::default(), Arc::default());
        let records = Records { record: Arc::clone(&record), silent: Arc::clone(&silent) };
        // Ends with the test's process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let calls = TcpListenerStream::new(listener);
                let service = RegistryServer::new(service);
                let records = MembershipServer::new(records);
                let server = Server::builder().add_service(service).add_service(records);
                server.serve_with_incoming(calls).await
            })
        });
        Self { address, said, to, record, silent, orders: AtomicU64::new(1) }
    }

    pub(crate) fn order(&self, id: &str, what: order::What) {
        let order = wire::Order { id: id.into(), volume: ORDER.into(), what: Some(what) };
        self.tell(to_engine::What::Order(order));
    }

    pub(crate) fn tell(&self, what: to_engine::What) {
        let message = wire::ToEngine { what: Some(what) };
        for to in self.to.lock().unwrap().values() {
            to.blocking_send(Ok(message.clone())).unwrap();
        }
    }

    /// Orders one of several engines, and waits until it says what came of that.
    pub(crate) fn order_at(&self, node: &str, what: order::What) -> wire::Done {
        let number = self.orders.fetch_add(1, Ordering::Relaxed);
        let id =
            uuid::Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000 + u128::from(number));
        let order = wire::Order { id: id.to_string(), volume: ORDER.into(), what: Some(what) };
        let message = wire::ToEngine { what: Some(to_engine::What::Order(order)) };
        let to = self.to.lock().unwrap()[node].clone();
        to.blocking_send(Ok(message)).unwrap();
        self.hears("its end", |said| match said {
            What::Done(done) if done.id == id.to_string() => Some(done.clone()),
            _ => None,
        })
    }

    /// Ends the stream.
    fn hang_up(&self) {
        self.to.lock().unwrap().clear();
    }

    /// Waits until something is said that is meant; what was said before it goes by.
    pub(crate) fn hears<T>(&self, what: &str, meant: impl Fn(&What) -> Option<T>) -> T {
        let begun = Instant::now();
        while let Ok(said) = self.said.recv_timeout(PATIENCE) {
            if let Some(found) = meant(&said) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what}");
        }
        panic!("nothing is said, and no {what}")
    }

    pub(crate) fn hears_hello(&self) -> wire::Hello {
        self.hears("Hello", |said| match said {
            What::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
    }

    pub(crate) fn hears_done(&self) -> wire::Done {
        self.hears("Done", |said| match said {
            What::Done(done) => Some(done.clone()),
            _ => None,
        })
    }
}

fn state(said: &What) -> Option<&wire::State> {
    match said {
        What::Report(report) => report.state.as_ref(),
        _ => None,
    }
}

pub(crate) fn make(pool: &str) -> order::What {
    order::What::MakeReplica(wire::MakeReplica {
        uuid: REPLICA.into(),
        name: "db.0".into(),
        pool: pool.into(),
        size_bytes: 1 << 20,
    })
}

#[test]
fn it_reports_what_it_has_and_carries_each_order_out_once() {
    let control = Control::start();
    let folder = Folder::new();
    let engine = Engine::start(&["--control", &control.address.to_string(), "--node", "n1"]);
    let hello = control.hears_hello();
    assert_eq!((hello.node.as_str(), &hello.portals), ("n1", &vec![engine.address()]));
    control
        .hears("empty state", |said| state(said).filter(|state| state.pools.is_empty()).cloned());
    let pool = folder.path("pool");
    let made = engine.ask(&["pool", "create", &pool, "--size", "64MiB", "--sparse"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let with_pool = |said: &What| state(said).filter(|state| state.pools.len() == 1).cloned();
    assert_eq!(control.hears("pool", with_pool).pools[0].path, pool);

    control.order(ORDER, make(""));
    let reported = |said: &What| match said {
        What::Done(_) => panic!("it is done before what it made was reported"),
        said => state(said).filter(|state| state.replicas.len() == 1).cloned(),
    };
    let state = control.hears("replica", reported);
    assert_eq!((state.replicas[0].uuid.as_str(), state.replicas[0].online), (REPLICA, true));
    let done = control.hears_done();
    assert_eq!((done.id.as_str(), done.code), (ORDER, 0));
    assert_eq!(done.replica.as_ref().map(|r| r.instance), Some(state.replicas[0].instance));

    // The answer was lost: the same order has the same answer, on another stream too.
    control.order(ORDER, make(""));
    assert_eq!(control.hears_done(), done);
    control.hang_up();
    let again = control.hears_hello();
    assert_eq!(again.process, hello.process);
    control.order(ORDER, make(""));
    assert_eq!(control.hears_done(), done);
    let listed = engine.ask(&["replica", "list", "-o", "json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["replicas"].as_array().unwrap().len(), 1);

    let other = "8ba7b810-9dad-11d1-80b4-00c04fd430c8";
    control.order(other, make("/no/such/pool"));
    let refused = control.hears_done();
    assert_eq!((refused.id.as_str(), refused.code), (other, 5), "{refused:?}");
    assert!(refused.text.contains("/no/such/pool"), "{refused:?}");
    let dropped = "9ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let gone = order::What::DropReplica(wire::DropReplica { uuid: REPLICA.into() });
    control.order(dropped, gone);
    assert_eq!(control.hears_done().code, 0);
    engine.stop();
}

#[test]
fn it_is_heard_of_while_nothing_happens() {
    let control = Control::start();
    let engine = Engine::start(&["--control", &control.address.to_string(), "--node", "n1"]);
    control.hears_hello();
    let begun = Instant::now();
    for _ in 0..6 {
        control.hears("heartbeat", |said| matches!(said, What::Report(_)).then_some(()));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    engine.logs("connected to the control plane");
    control.hang_up();
    engine.logs("not connected to the control plane");
    control.hears_hello();
    engine.stop();
}

#[test]
fn who_reports_says_who_it_is() {
    let nameless = run(&["serve", "mem:1MiB", "--control", "127.0.0.1:4440"]);
    assert_eq!(nameless.code, Some(2));
    assert!(nameless.stderr.contains("--control needs --node"), "{nameless:?}");
    let homeless = run(&["serve", "mem:1MiB", "--node", "n1"]);
    assert_eq!(homeless.code, Some(2));
    assert!(homeless.stderr.contains("--node needs --control"), "{homeless:?}");
    let odd = run(&["serve", "mem:1MiB", "--node", "a b", "--control", "127.0.0.1:4440"]);
    assert_eq!(odd.code, Some(2));
    assert!(odd.stderr.contains("letters, digits, dots and dashes"), "{odd:?}");
}
