//! The supervisor over the wire: fail-over, return, standby, hand-over, and when it does nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use braid_api::control::{self as wire, Access, VolumeState};
use tonic::Code;

use super::engine::{Cluster, Engine, Manners};
use super::process::{Control, Folder};

pub(crate) type Shared = Arc<Mutex<Cluster>>;

/// A control plane, three engines, and a volume on all of them that is served and stood by for.
pub(crate) async fn three(folder: &Folder) -> (Control, Vec<Engine>, Shared, wire::Volume) {
    let control = Control::start(folder);
    let cluster = Shared::default();
    let mut engines = Vec::new();
    for node in ["n1", "n2", "n3"] {
        engines.push(Engine::start(&control.address, node, &cluster).await);
    }
    connected(&control, 3).await;
    create(&control, "db", &["n1", "n2", "n3"]).await.unwrap();
    let volume = control.until("db", "well", well).await;
    (control, engines, cluster, volume)
}

pub(crate) async fn connected(control: &Control, count: usize) {
    let mut client = control.client().await;
    let begun = Instant::now();
    loop {
        let listed = client.list_engines(wire::ListEnginesRequest {}).await.unwrap().into_inner();
        let ready = listed.engines.iter().filter(|engine| engine.alive && engine.pools > 0);
        if ready.count() == count {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{listed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn create(
    control: &Control,
    name: &str,
    engines: &[&str],
) -> Result<wire::Volume, tonic::Status> {
    let place = |engine: &&str| wire::Place { engine: (*engine).into(), ..wire::Place::default() };
    let request = wire::CreateRequest {
        name: name.into(),
        size_bytes: 1 << 30,
        places: engines.iter().map(place).collect(),
        ..wire::CreateRequest::default()
    };
    control.client().await.create(request).await.map(tonic::Response::into_inner)
}

pub(crate) fn well(volume: &wire::Volume) -> bool {
    volume.state() == VolumeState::Online && volume.alerts.is_empty() && volume.paths.len() >= 2
}

fn take(engines: &mut Vec<Engine>, node: &str) -> Engine {
    let at = engines.iter().position(|engine| engine.node == node).unwrap();
    engines.remove(at)
}

#[tokio::test]
async fn a_standby_takes_over_from_an_engine_that_died_and_what_it_had_comes_back() {
    let folder = Folder::new();
    let (control, mut engines, cluster, volume) = three(&folder).await;
    assert_eq!(volume.epoch, 1);
    let standby = volume.paths.iter().find(|path| path.access() == Access::Inaccessible);
    let standby = standby.unwrap().engine.clone();
    let begun = Instant::now();
    take(&mut engines, &volume.engine).kill().await;
    let after = control.until("db", "taken over", |v| v.epoch == 2 && !v.engine.is_empty()).await;
    let took = begun.elapsed();
    assert_eq!(after.engine, standby, "the one that hosts have a path to");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let of_the_dead = after.paths.iter().find(|path| path.engine == volume.engine).unwrap();
    assert_eq!(of_the_dead.access(), Access::Unspecified, "nobody reaches it");
    println!("taken over after {took:?}");
    // Alerts are those of the supervisor's last turn.
    let degraded = |v: &wire::Volume| {
        let told = v.alerts == ["degraded: 2 of 3 replicas"];
        v.state() == VolumeState::Degraded && v.paths.len() >= 2 && told
    };
    control.until("db", "degraded, with a standby, and nothing else is wrong", degraded).await;
    engines.push(Engine::start(&control.address, &volume.engine, &cluster).await);
    let after = control.until("db", "whole again", well).await;
    assert_eq!((after.epoch, after.engine), (2, standby), "nobody else needed to take over");
    let history = history(&control).await;
    for told in ["takes over", "degraded: 2 of 3 replicas", "brings replica", "all is well"] {
        assert!(history.iter().any(|line| line.contains(told)), "{told}: {history:?}");
    }
}

async fn history(control: &Control) -> Vec<String> {
    let request = wire::HistoryRequest { volume: "db".into() };
    let told = control.client().await.history(request).await.unwrap().into_inner();
    told.events.into_iter().map(|event| event.text).collect()
}

#[tokio::test]
async fn nobody_takes_over_because_the_control_plane_was_killed() {
    let folder = Folder::new();
    let (mut control, engines, _cluster, volume) = three(&folder).await;
    let address = control.address.clone();
    for _ in 0..2 {
        control.kill();
        control = Control::start_at(&folder, "store", &address);
        assert_eq!(control.volumes, 1);
        control.until("db", "seen again", well).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let after = control.volume("db").await.unwrap();
        assert_eq!((after.epoch, &after.engine), (volume.epoch, &volume.engine));
    }
    let orders: Vec<_> = engines.iter().flat_map(Engine::orders).collect();
    assert_eq!(orders.iter().filter(|order| *order == "TakeOver").count(), 1, "{orders:?}");
}

#[tokio::test]
async fn an_owner_that_died_while_the_control_plane_was_away_is_replaced() {
    let folder = Folder::new();
    let (mut control, mut engines, _cluster, volume) = three(&folder).await;
    control.kill();
    take(&mut engines, &volume.engine).kill().await;
    let address = control.address.clone();
    let control = Control::start_at(&folder, "store", &address);
    let after = control.until("db", "taken over", |v| v.epoch == 2 && !v.engine.is_empty()).await;
    assert_ne!(after.engine, volume.engine);
}

#[tokio::test]
async fn an_operator_moves_a_volume_in_order_or_not() {
    let folder = Folder::new();
    let (control, _engines, _cluster, volume) = three(&folder).await;
    let others: Vec<&str> =
        ["n1", "n2", "n3"].into_iter().filter(|node| *node != volume.engine).collect();
    let moved = control.ask(&["volume", "hand-over", "db", "--to", others[1]]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let after = control.until("db", "moved", well).await;
    assert_eq!((after.epoch, after.engine.as_str()), (2, others[1]));
    // Again: it is so already.
    let again = control.ask(&["volume", "hand-over", "db", "--to", others[1]]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(control.volume("db").await.unwrap().epoch, 2);
    let moved = control.ask(&["volume", "take-over", "db", "--to", others[0]]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let after = control.until("db", "moved", well).await;
    assert_eq!((after.epoch, after.engine.as_str()), (3, others[0]));
    let nowhere = control.ask(&["volume", "take-over", "db", "--to", "n9"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("engine n9 was not heard of"), "{nowhere:?}");
}

#[tokio::test]
async fn an_engine_that_stops_hands_its_volumes_over_first() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let serving = engines.iter().find(|engine| engine.node == volume.engine).unwrap();
    serving.leave();
    let moved = |v: &wire::Volume| well(v) && v.engine != volume.engine;
    control.until("db", "moved", moved).await;
    assert!(serving.orders().contains(&"HandOver".into()), "{:?}", serving.orders());
}

#[tokio::test]
async fn an_engine_that_refuses_is_named_with_its_reason() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let other = engines.iter().find(|engine| engine.node != volume.engine).unwrap();
    let refuses = Some((Code::ResourceExhausted, "no room for another volume".into()));
    other.set(Manners { refuses, ..Manners::default() });
    let moved = control.ask(&["volume", "take-over", "db", "--to", &other.node]).await;
    assert_eq!(moved.code, Some(1));
    let said = format!("engine {}: no room for another volume", other.node);
    assert!(moved.stderr.contains(&said), "{moved:?}");
    let after = control.volume("db").await.unwrap();
    assert_eq!((after.epoch, after.engine), (1, volume.engine));
}

#[tokio::test]
async fn engines_are_told_where_replicas_and_paths_are() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    for engine in &engines {
        let begun = Instant::now();
        loop {
            let topology = engine.topology();
            let told = topology.volumes.first();
            let whole = told.is_some_and(|told| {
                told.name == "db"
                    && told.replicas.len() == 3
                    && told.replicas.iter().all(|replica| replica.portals.len() == 1)
                    && told.paths.len() == volume.paths.len()
                    && told.paths.iter().any(|path| path.access() == Access::Optimized)
            });
            if whole {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{topology:?}\n{}", control.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_second_process_cannot_take_the_name_of_a_node() {
    let folder = Folder::new();
    let control = Control::start(&folder);
    let cluster = Shared::default();
    let first = Engine::start(&control.address, "n1", &cluster).await;
    connected(&control, 1).await;
    let portal = portal_of(&control).await;
    let second = Engine::start(&control.address, "n1", &Shared::default()).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(portal_of(&control).await, portal, "the first one stays");
    first.kill().await;
    let begun = Instant::now();
    while portal_of(&control).await == portal {
        assert!(begun.elapsed() < Duration::from_secs(20), "the second one is let in then");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.kill().await;
}

async fn portal_of(control: &Control) -> String {
    let mut client = control.client().await;
    let listed = client.list_engines(wire::ListEnginesRequest {}).await.unwrap().into_inner();
    listed.engines[0].portals[0].clone()
}
