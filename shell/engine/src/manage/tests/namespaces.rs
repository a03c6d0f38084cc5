//! Namespaces of plain subsystems, attached and detached; and what discovery is told of.

use braid_api::v1::event::What;
use braid_api::v1::{self, NamespaceSource};
use tonic::Code;

use super::model::NQN;
use super::{Bench, ok, refused};
use crate::manage::manager::Settings;

fn attach(nqn: &str, uri: &str) -> v1::AttachNamespaceRequest {
    v1::AttachNamespaceRequest { nqn: nqn.into(), uri: uri.into(), force: false }
}

fn detach(nqn: &str, nsid: u32) -> v1::DetachNamespaceRequest {
    v1::DetachNamespaceRequest { nqn: nqn.into(), nsid }
}

async fn listed(bench: &mut Bench, nqn: &str) -> Vec<(u32, NamespaceSource, u64)> {
    let request = v1::ListNamespacesRequest { nqn: nqn.into() };
    let found = ok(bench.client.list_namespaces(request).await).namespaces;
    found.iter().map(|n| (n.nsid, n.source(), n.size_bytes)).collect()
}

#[tokio::test]
async fn a_namespace_is_attached_listed_and_detached_and_that_is_told() {
    let mut bench = Bench::new().await;
    let mut events = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    let file = format!("file:{}?size=2MiB&nsid=7", bench.path("a"));
    let made = ok(bench.client.attach_namespace(attach(NQN, &file)).await);
    assert_eq!((made.nsid, made.size_bytes, made.block_bytes), (7, 2 << 20, 4096));
    let memory = ok(bench.client.attach_namespace(attach(NQN, "mem:1MiB?block=512")).await);
    assert_eq!((memory.nsid, memory.block_bytes), (1, 512), "the first that is free");
    let all = [(1, NamespaceSource::Memory, 1 << 20), (7, NamespaceSource::Disk, 2 << 20)];
    assert_eq!(listed(&mut bench, NQN).await, all);
    assert_eq!(listed(&mut bench, "").await, all);
    assert!(listed(&mut bench, "nqn.other").await.is_empty());
    let again = ok(bench.client.attach_namespace(attach(NQN, &file)).await);
    assert_eq!(again, made, "what is so already changes nothing");
    assert!(ok(bench.client.detach_namespace(detach(NQN, 7)).await).existed);
    assert!(!ok(bench.client.detach_namespace(detach(NQN, 7)).await).existed);
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(events.message().await.unwrap().unwrap().what.unwrap());
    }
    assert!(matches!(&told[0], What::NamespaceAttached(e) if e.nqn == NQN && e.nsid == 7));
    assert!(matches!(&told[1], What::NamespaceAttached(e) if e.nsid == 1));
    assert!(matches!(&told[2], What::NamespaceDetached(e) if e.nqn == NQN && e.nsid == 7));
    // Its file is free: it may be attached under another id.
    let other = file.replace("nsid=7", "nsid=8");
    assert_eq!(ok(bench.client.attach_namespace(attach(NQN, &other)).await).nsid, 8);
}

#[tokio::test]
async fn what_cannot_be_attached_is_refused_with_its_reason() {
    let mut bench = Bench::with(Settings::default()).await;
    let file = format!("file:{}?size=1MiB&nsid=3", bench.path("a"));
    ok(bench.client.attach_namespace(attach(NQN, &file)).await);
    let missing = format!("file:{}", bench.path("none"));
    for (nqn, uri, code, word) in [
        ("", "mem:1MiB", Code::InvalidArgument, "nqn is missing"),
        (NQN, "disk:1MiB", Code::InvalidArgument, "disk"),
        (NQN, "mem:1MiB?nsid=0", Code::InvalidArgument, "nsid"),
        (NQN, "mem:1MiB?nsid=1025", Code::InvalidArgument, "nsid"),
        ("nqn.other", "mem:1MiB", Code::NotFound, "nqn.other"),
        (NQN, "mem:1MiB?nsid=3", Code::AlreadyExists, "namespace 3"),
        (NQN, &file.replace("nsid=3", "nsid=4"), Code::AlreadyExists, "namespace 3"),
        (NQN, &missing, Code::FailedPrecondition, "none"),
        (NQN, "mem:1MiB?inject=read,error", Code::FailedPrecondition, "--allow-injection"),
    ] {
        refused(bench.client.attach_namespace(attach(nqn, uri)).await, code, word);
    }
    assert_eq!(listed(&mut bench, NQN).await.len(), 1);
    for _ in 0..3 {
        ok(bench.client.attach_namespace(attach(NQN, "mem:1MiB")).await);
    }
    let full = bench.client.attach_namespace(attach(NQN, "mem:1MiB")).await;
    refused(full, Code::ResourceExhausted, "too many");
    let nowhere = bench.client.detach_namespace(detach("nqn.other", 1)).await;
    refused(nowhere, Code::NotFound, "nqn.other");
}

#[tokio::test]
async fn a_replica_is_shared_and_not_attached() {
    let mut bench = Bench::new().await;
    bench.pool("p").await;
    let replica = bench.replica("r").await;
    let nqn = replica.share.unwrap().nqn;
    assert_eq!(listed(&mut bench, &nqn).await, [(1, NamespaceSource::Pool, 1 << 20)]);
    let word = "unshare";
    refused(
        bench.client.attach_namespace(attach(&nqn, "mem:1MiB")).await,
        Code::FailedPrecondition,
        word,
    );
    refused(bench.client.detach_namespace(detach(&nqn, 1)).await, Code::FailedPrecondition, word);
}

#[tokio::test]
async fn discovery_is_told_of_other_services_behind_the_paths_elsewhere() {
    let referrals = vec!["10.0.0.9:8009".parse().unwrap()];
    let bench = Bench::with(Settings { referrals, ..Settings::default() }).await;
    let path = braid_shard::Elsewhere {
        nqn: braid_nvme::connect::Nqn::parse(NQN),
        address: "10.0.0.2:4420".parse().unwrap(),
        allowed_hosts: vec!["nqn.host".into()],
    };
    bench.manager.tell_elsewhere(vec![path.clone()]).await;
    let told = bench.manager.host.world().elsewhere.clone();
    assert_eq!(told[0], path);
    assert_eq!((told[1].nqn, told[1].address.to_string()), (None, "10.0.0.9:8009".into()));
    assert_eq!(told.len(), 2);
}
