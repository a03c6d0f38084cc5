//! The engine itself, block devices, scrubs and faults.

use braid_api::v1;
use tonic::Code;

use super::model::NQN;
use super::{Bench, OTHER, ok, refused};
use crate::manage::host::{Home, Told};
use crate::manage::manager::Settings;

#[tokio::test]
async fn an_engine_says_what_it_is() {
    let listen = vec!["127.0.0.1:4420".to_owned()];
    let settings = Settings { listen: listen.clone(), ..Settings::default() };
    let mut bench = Bench::with(settings).await;
    let engine = ok(bench.client.get_engine(v1::GetEngineRequest {}).await);
    assert_eq!((engine.listen, engine.shards), (listen, 2));
    assert_eq!(engine.pid, std::process::id());
    assert!(!engine.allows_injection && engine.started_unix_s > 0);
    ok(bench.client.list_devices(v1::ListDevicesRequest {}).await);
}

#[tokio::test]
async fn a_scrub_is_started_looked_after_and_stopped() {
    let mut bench = Bench::new().await;
    let start = |pool: &str| v1::StartScrubRequest { pool: pool.into(), rate_bytes_per_s: 0 };
    let get = || v1::GetScrubRequest { pool: String::new() };
    let stop = |pool: &str| v1::StopScrubRequest { pool: pool.into() };
    refused(bench.client.start_scrub(start("")).await, Code::NotFound, "no pool");
    let pool = bench.pool("a").await;
    assert!(!ok(bench.client.get_scrub(get()).await).running);
    for _ in 0..2 {
        let scrub = ok(bench.client.start_scrub(start(&pool.uuid)).await);
        assert_eq!((scrub.running, scrub.total_bytes), (true, 1 << 20));
    }
    for _ in 0..2 {
        assert!(!ok(bench.client.stop_scrub(stop(&pool.path)).await).running);
    }
    let note = braid_pool::Note::Scrubbed { blocks: 7, errors: 1 };
    bench.manager.told(Told { home: Home { shard: 0, pool: 2 }, note, layer: None, left_out: 0 });
    bench.manager.told(Told { home: Home { shard: 0, pool: 1 }, note, layer: None, left_out: 0 });
    let scrub = ok(bench.client.get_scrub(get()).await);
    assert_eq!((scrub.finished_blocks, scrub.finished_errors), (7, 1));
    assert!(scrub.finished_unix_s > 0);
    refused(bench.client.stop_scrub(stop(OTHER)).await, Code::NotFound, OTHER);
    refused(bench.client.start_scrub(start("x")).await, Code::InvalidArgument, "'x'");
}

#[tokio::test]
async fn faults_are_set_where_they_are_allowed() {
    let fault = v1::Fault { operation: 1, kind: 1, count: 3, ..v1::Fault::default() };
    let request = |nqn: &str, nsid| v1::SetFaultsRequest {
        nqn: nqn.into(),
        nsid,
        faults: vec![fault],
        pool: String::new(),
    };
    let mut bench = Bench::new().await;
    ok(bench.client.set_faults(request(NQN, 0)).await);
    assert_eq!(bench.manager.host.world().faults[0].count, 3);
    refused(bench.client.set_faults(request(NQN, 2)).await, Code::NotFound, "namespace 2");
    refused(bench.client.set_faults(request("nqn.x", 0)).await, Code::NotFound, "nqn.x");
    refused(bench.client.set_faults(request("", 0)).await, Code::InvalidArgument, "nqn");
    let mut wrong = request(NQN, 0);
    wrong.faults[0].kind = 0;
    refused(bench.client.set_faults(wrong).await, Code::InvalidArgument, "kind");
    let none = v1::SetFaultsRequest { faults: Vec::new(), ..request(NQN, 1) };
    ok(bench.client.set_faults(none).await);
    assert!(bench.manager.host.world().faults.is_empty());

    let pool = bench.pool("a").await;
    let below = |pool: &str| v1::SetFaultsRequest { pool: pool.into(), ..request("", 0) };
    ok(bench.client.set_faults(below(&pool.path)).await);
    let set = bench.manager.host.world().disk_faults.clone();
    assert_eq!(set.map(|(home, faults)| (home.pool, faults[0].count)), Some((1, 3)));
    refused(bench.client.set_faults(below(OTHER)).await, Code::NotFound, OTHER);
    let mut lie = below(&pool.path);
    lie.faults[0].kind = v1::FaultKind::Corrupt.into();
    refused(bench.client.set_faults(lie).await, Code::InvalidArgument, "lie");

    let mut strict = Bench::with(Settings::default()).await;
    let answer = strict.client.set_faults(request(NQN, 0)).await;
    refused(answer, Code::FailedPrecondition, "--allow-injection");
}
