//! The stream of events.

use braid_api::v1::event::What;
use braid_api::v1::{self, Event};
use braid_pool::Note;

use super::{Bench, ok};
use crate::manage::host::{Home, Told};

async fn next(stream: &mut tonic::Streaming<Event>) -> Event {
    stream.message().await.unwrap().expect("the stream goes on")
}

#[tokio::test]
async fn changes_are_told_in_order_to_all_who_watch() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let mut first = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    let mut second = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    let made = bench.replica("r").await;
    bench.replica("r").await;
    let destroy = v1::DestroyReplicaRequest { pool: String::new(), replica: "r".into() };
    ok(bench.client.destroy_replica(destroy).await);
    for stream in [&mut first, &mut second] {
        let mut last = 0;
        for expected in ["made", "shared", "not shared", "destroyed"] {
            let event = next(stream).await;
            assert!(event.text.contains(expected), "{expected}: {event:?}");
            assert_eq!((&event.replica, &event.pool), (&made.uuid, &made.pool));
            assert!(event.number > last && event.unix_ms > 0);
            last = event.number;
        }
    }
}

#[tokio::test]
async fn what_a_pool_tells_is_passed_on_even_from_before_it_was_open() {
    let mut bench = Bench::new().await;
    let home = Home { shard: 0, pool: 1 };
    let told = |note| Told { home, note, layer: Some([7; 16]), left_out: 0 };
    bench.manager.told(told(Note::Repaired { device: 4096 }));
    let mut stream = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    // The number that a pool is made under is not the one that it is opened under.
    bench.manager.told(Told {
        home: Home { shard: 0, pool: 1 },
        note: Note::Full,
        layer: None,
        left_out: 0,
    });
    let pool = bench.pool("a").await;
    let first = next(&mut stream).await;
    assert!(matches!(first.what, Some(What::MetadataRepaired(_))), "{first:?}");
    assert_eq!(first.pool, pool.uuid);
    assert!(matches!(next(&mut stream).await.what, Some(What::PoolFull(_))));
    for (note, word) in [
        (Note::Opened { clean: false, replayed: 3, rejected: 1 }, "after a crash"),
        (Note::Media { handle: None, offset: 8192, device: 12288 }, "byte 8192"),
        (Note::Lost { device: 8192 }, "both copies"),
        (Note::Kept { device: 8192 }, "keeps its space"),
        (Note::Stalled { seconds: 12 }, "12 s"),
        (Note::Moving, "goes on"),
        (Note::Reclaimed, "space back"),
        (Note::Scrubbed { blocks: 9, errors: 0 }, "9 blocks"),
    ] {
        bench.manager.told(told(note));
        let event = next(&mut stream).await;
        assert!(event.text.contains(word), "{word}: {event:?}");
        assert_eq!(event.replica, "07070707-0707-0707-0707-070707070707");
    }
}

#[tokio::test]
async fn a_pool_that_is_gone_does_not_drown_what_the_next_one_tells() {
    let mut bench = Bench::new().await;
    let first = bench.pool("a").await;
    let told = |pool, note| Told { home: Home { shard: 0, pool }, note, layer: None, left_out: 0 };
    // Other pools were refused since.
    for _ in 0..2 {
        bench.manager.next_home().unwrap();
    }
    ok(bench.client.export_pool(v1::ExportPoolRequest { pool: first.uuid }).await);
    let mut stream = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    // Late notes of what is closed, then those of the one that is on its way into the table.
    (0..5000).for_each(|_| bench.manager.told(told(1, Note::Full)));
    (0..300).for_each(|device| bench.manager.told(told(5, Note::Lost { device })));
    let opened = Note::Opened { clean: true, replayed: 0, rejected: 0 };
    bench.manager.told(told(5, opened));
    (0..5000).for_each(|_| bench.manager.told(told(1, Note::Full)));
    bench.pool("b").await;
    let (mut lost, mut full, mut opened) = (0, 0, 0);
    while opened == 0 {
        match next(&mut stream).await.what {
            Some(What::MetadataLost(_)) => lost += 1,
            Some(What::PoolFull(_)) => full += 1,
            Some(What::PoolOpened(_)) => opened += 1,
            Some(What::Missed(missed)) => lost += missed.events,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((lost, full), (255, 0));
}

#[tokio::test]
async fn an_event_says_what_was_left_out_before_it() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let mut stream = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    let home = Home { shard: 0, pool: 1 };
    let note = Note::Media { handle: None, offset: 8192, device: 12288 };
    bench.manager.told(Told { home, note, layer: None, left_out: 4711 });
    let event = next(&mut stream).await;
    assert!(event.text.contains("byte 8192") && event.text.contains("4711 notes"), "{event:?}");
}

#[tokio::test]
async fn the_stream_of_a_reader_that_sleeps_says_what_it_missed() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let mut stream = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    let home = Home { shard: 0, pool: 1 };
    let told = 5000;
    for _ in 0..told {
        bench.manager.told(Told { home, note: Note::Full, layer: None, left_out: 0 });
    }
    let (mut heard, mut missed, mut last) = (0, 0, None);
    while heard + missed < told {
        let event = next(&mut stream).await;
        match event.what {
            Some(What::Missed(lost)) => missed += lost.events,
            _ => {
                heard += 1;
                last = Some(event.number);
            }
        }
    }
    assert!(missed > 0 && heard >= 256 && last.is_some(), "{heard} {missed}");
}
