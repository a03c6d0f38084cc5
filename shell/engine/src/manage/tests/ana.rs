//! Access of hosts, shown and changed.

use braid_api::v1::event::What;
use braid_api::v1::{self, AnaState};
use tonic::Code;

use super::model::NQN;
use super::{Bench, ok};
use crate::manage::manager::Settings;

async fn bench() -> Bench {
    let listen = vec!["127.0.0.1:4420".to_owned(), "[::1]:4420".to_owned()];
    Bench::with(Settings { listen, ..Settings::default() }).await
}

fn set(nqn: &str, group: u32, listen: &str, state: AnaState) -> v1::SetAnaStateRequest {
    v1::SetAnaStateRequest { nqn: nqn.into(), group, listen: listen.into(), state: state.into() }
}

#[tokio::test]
async fn groups_are_listed_by_address_with_their_states() {
    let mut bench = bench().await;
    for (nqn, count) in [("", 2), (NQN, 2), ("nqn.other", 0)] {
        let request = v1::ListAnaGroupsRequest { nqn: nqn.into() };
        let groups = ok(bench.client.list_ana_groups(request).await).groups;
        let listens: Vec<_> = groups.iter().map(|group| group.listen.as_str()).collect();
        assert_eq!(listens, ["127.0.0.1:4420", "[::1]:4420"][..count]);
        assert!(groups.iter().all(|group| group.state() == AnaState::Optimized));
    }
}

#[tokio::test]
async fn a_state_is_set_and_told() {
    let mut bench = bench().await;
    let mut events = ok(bench.client.watch_events(v1::WatchEventsRequest {}).await);
    ok(bench.client.set_ana_state(set(NQN, 0, "", AnaState::Change)).await);
    let event = events.message().await.unwrap().unwrap();
    assert!(event.text.contains("group 1 of") && event.text.contains("change"), "{event:?}");
    assert!(matches!(event.what, Some(What::AnaStateSet(ref e)) if e.group == 1));
    let groups = bench.client.list_ana_groups(v1::ListAnaGroupsRequest::default()).await;
    assert!(ok(groups).groups.iter().all(|group| group.state() == AnaState::Change));
}

#[tokio::test]
async fn what_is_not_served_here_is_not_found() {
    let mut bench = bench().await;
    for (request, code) in [
        (set("", 1, "", AnaState::Optimized), Code::InvalidArgument),
        (set(NQN, 1, "", AnaState::Unspecified), Code::InvalidArgument),
        (set(NQN, 2, "", AnaState::Optimized), Code::NotFound),
        (set("nqn.other", 1, "", AnaState::Optimized), Code::NotFound),
        (set(NQN, 1, "127.0.0.1:1", AnaState::Optimized), Code::NotFound),
    ] {
        let refused = bench.client.set_ana_state(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{request:?}: {refused}");
    }
    ok(bench.client.set_ana_state(set(NQN, 1, "[::1]:4420", AnaState::Inaccessible)).await);
}
