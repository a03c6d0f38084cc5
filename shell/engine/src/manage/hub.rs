//! Events for whoever watches: bounded, so that a slow reader costs nobody anything but itself.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use braid_api::v1::Event;
use braid_api::v1::event::{Missed, What};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// Events that wait for a reader: one that is slower than that misses some, and is told so.
const EVENTS_WAITING_MAX: usize = 256;

/// Where events are told, and heard.
#[derive(Debug)]
pub struct Hub {
    sender: broadcast::Sender<Event>,
    number: AtomicU64,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// The pool.
    pub pool: Option<[u8; 16]>,
    /// The replica or snapshot.
    pub replica: Option<[u8; 16]>,
}

impl About {
    /// A pool as a whole.
    #[must_use]
    pub const fn pool(pool: [u8; 16]) -> Self {
        Self { pool: Some(pool), replica: None }
    }

    /// A replica or a snapshot of a pool.
    #[must_use]
    pub const fn replica(pool: [u8; 16], replica: [u8; 16]) -> Self {
        Self { pool: Some(pool), replica: Some(replica) }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_WAITING_MAX), number: AtomicU64::new(0) }
    }
}

impl Hub {
    /// Tells all who watch.
    pub fn tell(&self, about: About, text: String, what: What) {
        let written = |uuid: Option<[u8; 16]>| uuid.map_or_else(String::new, super::names::text);
        let event = Event {
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
            unix_ms: unix_ms(),
            pool: written(about.pool),
            replica: written(about.replica),
            text,
            what: Some(what),
        };
        // Fails when nobody watches.
        let _ = self.sender.send(event);
    }

    /// Everything from now on.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(forward(self.sender.subscribe(), sender));
        Watch(receiver)
    }
}

/// What one reader hears.
#[derive(Debug)]
pub struct Watch(mpsc::Receiver<Result<Event, Status>>);

impl Stream for Watch {
    type Item = Result<Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Passes events on until the reader goes away or there will be no more.
async fn forward(mut from: broadcast::Receiver<Event>, to: mpsc::Sender<Result<Event, Status>>) {
    loop {
        let event = tokio::select! {
            event = from.recv() => event,
            () = to.closed() => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(events)) => missed(events),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if to.send(Ok(event)).await.is_err() {
            return;
        }
    }
}

fn missed(events: u64) -> Event {
    Event {
        unix_ms: unix_ms(),
        text: format!("{events} events were missed: this reader was too slow"),
        what: Some(What::Missed(Missed { events })),
        ..Event::default()
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
#[must_use]
pub fn unix_s() -> u64 {
    unix_ms() / 1000
}

#[cfg(test)]
mod tests {
    use braid_api::v1::event::PoolFull;
    use tokio_stream::StreamExt;

    use super::*;

    fn full(hub: &Hub, times: u64) {
        for _ in 0..times {
            hub.tell(About::pool([7; 16]), "full".into(), What::PoolFull(PoolFull {}));
        }
    }

    #[tokio::test]
    async fn events_are_heard_in_order_by_all() {
        let hub = Hub::default();
        full(&hub, 1);
        let (mut first, mut second) = (hub.watch(), hub.watch());
        full(&hub, 2);
        for watch in [&mut first, &mut second] {
            for number in [2, 3] {
                let event = watch.next().await.unwrap().unwrap();
                assert_eq!((event.number, event.text.as_str()), (number, "full"));
                assert_eq!(event.pool, "07070707-0707-0707-0707-070707070707");
            }
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_missed() {
        let hub = Hub::default();
        let mut watch = hub.watch();
        let told = 3 * EVENTS_WAITING_MAX as u64;
        full(&hub, told);
        let mut heard = 0;
        let mut lost = 0;
        let mut last = 0;
        while last < told {
            let event = watch.next().await.unwrap().unwrap();
            match event.what {
                Some(What::Missed(missed)) => lost += missed.events,
                _ => {
                    heard += 1;
                    last = event.number;
                }
            }
        }
        assert_eq!(heard + lost, told);
        assert!(lost >= told - 2 * EVENTS_WAITING_MAX as u64 && lost > 0, "{lost}");
    }

    #[tokio::test]
    async fn a_reader_that_left_costs_nothing() {
        let hub = Hub::default();
        drop(hub.watch());
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(hub.sender.receiver_count(), 0);
    }
}
