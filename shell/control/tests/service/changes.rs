//! What people ask to be different about a volume: done once, whoever dies in the middle.

use std::time::Duration;

use braid_api::control as wire;
use tonic::Code;

use super::engine::{Engine, Manners};
use super::process::{Control, Folder};
use super::supervise::{three, well};

const GIB: u64 = 1 << 30;

async fn resize(control: &Control, size_bytes: u64) -> Result<wire::Volume, tonic::Status> {
    let request = wire::ResizeRequest { volume: "db".into(), size_bytes };
    control.client().await.resize(request).await.map(tonic::Response::into_inner)
}

/// How often all engines together were given this order.
fn ordered(engines: &[Engine], word: &str) -> usize {
    engines.iter().flat_map(Engine::orders).filter(|order| order == word).count()
}

fn on<'a>(engines: &'a [Engine], node: &str) -> &'a Engine {
    engines.iter().find(|engine| engine.node == node).unwrap()
}

#[tokio::test]
async fn a_volume_grows_once_however_often_it_is_asked_and_never_shrinks() {
    let folder = Folder::new();
    let (control, engines, _cluster, _) = three(&folder).await;
    let grown = control.ask(&["volume", "resize", "db", "2GiB", "-o", "json"]).await;
    assert_eq!(grown.code, Some(0), "{grown:?}");
    let grown: serde_json::Value = serde_json::from_str(&grown.stdout).unwrap();
    assert_eq!(grown["size_bytes"], 2 * GIB);
    assert_eq!(resize(&control, 2 * GIB - 1).await.unwrap().size_bytes, 2 * GIB, "rounded up");
    assert_eq!(ordered(&engines, "Resize"), 1);
    for (bytes, code) in [(GIB, Code::InvalidArgument), (0, Code::InvalidArgument)] {
        let refused = resize(&control, bytes).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let smaller = control.ask(&["volume", "resize", "db", "1GiB"]).await;
    assert_eq!(smaller.code, Some(2), "{smaller:?}");
    assert!(smaller.stderr.contains("volumes only grow"), "{smaller:?}");
    let request = wire::ResizeRequest { volume: "other".into(), size_bytes: GIB };
    let missing = control.client().await.resize(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    let history = control.ask(&["volume", "history", "db"]).await.stdout;
    assert!(history.contains("grows it to 2147483648 bytes: done"), "{history}");
    let told = |engine: &Engine| engine.topology().volumes[0].size_bytes;
    control.until("db", "told everywhere", |_| engines.iter().all(|e| told(e) == 2 * GIB)).await;
}

#[tokio::test]
async fn a_volume_that_has_no_space_to_grow_keeps_its_size_and_is_left_alone() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let owner = on(&engines, &volume.engine);
    let refuses = Some((Code::ResourceExhausted, "a replica has no space for it".into()));
    owner.set(Manners { refuses, ..Manners::default() });
    let refused = resize(&control, 4 * GIB).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("no space"), "{refused}");
    owner.set(Manners::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ordered(&engines, "Resize"), 1, "nobody wants it any more");
    assert_eq!(control.volume("db").await.unwrap().size_bytes, GIB);
    assert_eq!(resize(&control, 2 * GIB).await.unwrap().size_bytes, 2 * GIB);
}

#[tokio::test]
async fn a_volume_grows_though_the_answer_is_lost_or_its_owner_dies_in_the_middle() {
    let folder = Folder::new();
    let (control, mut engines, _cluster, volume) = three(&folder).await;
    on(&engines, &volume.engine).set(Manners { unheard: true, ..Manners::default() });
    let grown = resize(&control, 2 * GIB).await.unwrap();
    assert_eq!((grown.size_bytes, ordered(&engines, "Resize")), (2 * GIB, 1), "the record tells");
    on(&engines, &volume.engine).set(Manners { mute: true, ..Manners::default() });
    let asked = resize(&control, 3 * GIB);
    let dies = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let at = engines.iter().position(|engine| engine.node == volume.engine).unwrap();
        engines.remove(at).kill().await;
    };
    let (grown, ()) = tokio::join!(asked, dies);
    let grown = grown.unwrap();
    assert_eq!((grown.size_bytes, grown.epoch), (3 * GIB, volume.epoch + 1), "{grown:?}");
    assert_eq!(ordered(&engines, "Resize"), 1, "the next owner did it");
}

#[tokio::test]
async fn what_was_asked_for_outlives_the_control_plane() {
    let folder = Folder::new();
    let (mut control, engines, _cluster, volume) = three(&folder).await;
    let (address, owner) = (control.address.clone(), on(&engines, &volume.engine));
    owner.set(Manners { mute: true, ..Manners::default() });
    let mut client = control.client().await;
    let request = wire::ResizeRequest { volume: "db".into(), size_bytes: 2 * GIB };
    let asked = tokio::spawn(async move { client.resize(request).await });
    while ordered(&engines, "Resize") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    control.kill();
    assert!(asked.await.unwrap().is_err());
    owner.set(Manners::default());
    let control = Control::start_at(&folder, "store", &address);
    control.until("db", "larger", |v| v.size_bytes == 2 * GIB && well(v)).await;
}
