//! What is known of a change whose answer is lost: it is asked for again, the same, until it is.

use std::time::Duration;

use braid_api::control as wire;
use braid_api::control::membership_client::MembershipClient;
use braid_api::control::registry_client::RegistryClient;
use braid_nexus::Record;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::process::{Control, Folder, channel};
use super::supervise::three;

/// Asks until it is known: how often that took, and whether it is there.
async fn swap(
    client: &mut MembershipClient<Channel>,
    old: &Record,
    new: &Record,
    patience: Duration,
) -> (u32, bool) {
    let begun = Instant::now();
    let volume = uuid::Uuid::from_bytes(old.volume).to_string();
    for tries in 1.. {
        let request =
            wire::SwapRequest { volume: volume.clone(), old: old.encode(), new: new.encode() };
        // The first answers are not waited for long.
        let patience = if tries > 3 { Duration::from_secs(2) } else { patience };
        match timeout(patience, client.swap(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                return (tries, answer.committed || answer.record == new.encode());
            }
            Ok(Err(status)) => assert_ne!(status.code(), Code::InvalidArgument, "{status}"),
            Err(_) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it ends by its answer");
}

async fn record(control: &Control) -> Record {
    let volume = control.volume("db").await.unwrap();
    let request = wire::FetchRequest { volume: volume.uuid };
    let fetched = control.membership().fetch(request).await.unwrap().into_inner();
    Record::decode(&fetched.record).unwrap()
}

#[tokio::test]
async fn changes_are_made_once_whatever_answers_are_lost() {
    let folder = Folder::new();
    let (control, _engines, _cluster, _) = three(&folder).await;
    let mut client = control.membership();
    let mut old = record(&control).await;
    let mut repeated = 0;
    for number in 0..60_u64 {
        let new = Record { bytes: old.bytes + 4096, ..*old.next() };
        // Too short for a commit, mostly: the answer is lost, the change is not.
        let (tries, committed) =
            swap(&mut client, &old, &new, Duration::from_micros(200 * (number % 20))).await;
        assert!(committed);
        repeated += u32::from(tries > 1);
        old = new;
    }
    assert!(repeated > 10, "{repeated} of 60 were asked for again");
    assert_eq!(record(&control).await, old);
}

#[tokio::test]
async fn no_change_that_was_answered_is_lost_with_the_process() {
    let folder = Folder::new();
    let (mut control, _engines, _cluster, _) = three(&folder).await;
    let address = control.address.clone();
    let mut old = record(&control).await;
    let first = old.version;
    let mut changes = 0;
    for life in 0..8_u64 {
        let mut client = control.membership();
        let swaps = tokio::spawn(async move {
            let mut done = 0;
            loop {
                let new = Record { bytes: old.bytes + 4096, ..*old.next() };
                let request = wire::SwapRequest {
                    volume: uuid::Uuid::from_bytes(old.volume).to_string(),
                    old: old.encode(),
                    new: new.encode(),
                };
                match client.swap(request).await {
                    Ok(answer) if answer.get_ref().committed => (old, done) = (new, done + 1),
                    // Nobody knows of this one.
                    _ => return (old, new, done),
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(50 + 37 * life)).await;
        control.kill();
        let (answered, unknown, done) = swaps.await.unwrap();
        changes += done;
        control = Control::start_at(&folder, "store", &address);
        let found = record(&control).await;
        assert!(found == answered || found == unknown, "life {life}: {found:?}, {answered:?}");
        // The same again tells: it is there now, in whichever way.
        let mut client = control.membership();
        let (_, committed) = swap(&mut client, &answered, &unknown, Duration::from_secs(2)).await;
        assert!(committed, "life {life}");
        changes += 1;
        old = unknown;
    }
    assert_eq!(record(&control).await.version, first + changes);
    assert!(changes > 20, "{changes}");
}

#[tokio::test]
async fn each_engine_has_controller_ids_of_its_own_and_keeps_them_over_a_kill() {
    let folder = Folder::new();
    let (mut control, engines, _cluster, _) = three(&folder).await;
    let address = control.address.clone();
    control.kill();
    let _control = Control::start_at(&folder, "store", &address);
    let begun = Instant::now();
    while engines.iter().any(|engine| engine.allotted().len() < 2) {
        assert!(begun.elapsed() < Duration::from_secs(60), "they are not welcome again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut ranges: Vec<(u32, u32)> = engines.iter().flat_map(|e| e.allotted()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(ranges.iter().all(|(min, max)| *min >= 1 && min < max), "{ranges:?}");
    assert!(ranges.is_sorted_by(|before, after| before.1 < after.0), "{ranges:?}");
}

#[tokio::test]
async fn garbage_gets_a_clear_error() {
    let folder = Folder::new();
    let control = Control::start(&folder);
    let mut client = control.membership();
    let fetch = |volume: &str| wire::FetchRequest { volume: volume.into() };
    let none = client.fetch(fetch("no uuid")).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument, "{none}");
    let none = client.fetch(fetch("6ba7b810-9dad-11d1-80b4-00c04fd430c8")).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound, "{none}");
    let large = wire::SwapRequest {
        volume: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
        old: vec![0; 20_000],
        new: vec![],
    };
    let refused = client.swap(large).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let mut registry = RegistryClient::new(channel(&control.address).connect_lazy());
    let report = wire::from_engine::What::Report(wire::Report::default());
    let hello = |node: &str, id: &str| {
        wire::from_engine::What::Hello(wire::Hello {
            node: node.into(),
            id: id.into(),
            process: uuid::Uuid::nil().to_string(),
            ..wire::Hello::default()
        })
    };
    let id = uuid::Uuid::nil().to_string();
    for (what, said) in [
        (Some(report), "no Hello"),
        (None, "says nothing"),
        (Some(hello("a b", &id)), "node 'a b'"),
        (Some(hello("a", "x")), "no UUID"),
    ] {
        let messages = tokio_stream::iter([wire::FromEngine { what }]);
        let refused = registry.attend(messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(said), "{refused}");
    }
}
