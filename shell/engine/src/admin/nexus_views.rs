//! What is printed of nexuses: the fields of the `.proto`, with words for numbers.

use braid_api::v1::{self, MemberState, NexusState};
use serde::Serialize;

use crate::admin::output::{Row, moment, size};

/// A nexus.
#[derive(Debug, Serialize)]
pub(super) struct Nexus {
    volume: String,
    name: String,
    nqn: String,
    state: &'static str,
    size_bytes: u64,
    epoch: u64,
    owner: String,
    members: Vec<Member>,
    suspect_bytes: u64,
    marked_bytes: u64,
    snapshots: u32,
    rebuild: Progress,
    totals: Totals,
}

/// A replica of a volume.
#[derive(Debug, Serialize)]
pub(super) struct Member {
    replica: String,
    state: &'static str,
    reason: String,
}

/// How far a rebuild is, and how fast it may go.
#[derive(Debug, Serialize)]
pub(super) struct Progress {
    volume: String,
    paused: bool,
    beside_bytes_per_s: u64,
    alone_bytes_per_s: u64,
    replica: String,
    snapshot: String,
    snapshots_left: u32,
    total_bytes: u64,
    done_bytes: u64,
    copied_bytes: u64,
    bytes_per_s: u64,
    left_s: Option<u64>,
    waits_behind: Option<u32>,
    away: usize,
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub(super) struct Happened {
    unix_ms: u64,
    what: String,
    replica: String,
    reason: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Totals {
    take_overs: u64,
    take_over_ms: u64,
    fence_ms: u64,
    exclusions: u64,
    returns_begun: u64,
    returns: u64,
    held: u64,
    held_ms: u64,
    resynced_regions: u64,
    resynced_bytes: u64,
    repaired_blocks: u64,
    rebuilt_bytes: u64,
    rebuild_copied_bytes: u64,
    degraded_ms: u64,
    snapshots: u64,
}

impl From<v1::NexusTotals> for Totals {
    fn from(totals: v1::NexusTotals) -> Self {
        Self {
            take_overs: totals.take_overs,
            take_over_ms: totals.take_over_ms,
            fence_ms: totals.fence_ms,
            exclusions: totals.exclusions,
            returns_begun: totals.returns_begun,
            returns: totals.returns,
            held: totals.held,
            held_ms: totals.held_ms,
            resynced_regions: totals.resynced_regions,
            resynced_bytes: totals.resynced_bytes,
            repaired_blocks: totals.repaired_blocks,
            rebuilt_bytes: totals.rebuilt_bytes,
            rebuild_copied_bytes: totals.rebuild_copied_bytes,
            degraded_ms: totals.degraded_ms,
            snapshots: totals.snapshots,
        }
    }
}

impl From<v1::NexusMember> for Member {
    fn from(member: v1::NexusMember) -> Self {
        let state = match member.state() {
            MemberState::Member => "member",
            MemberState::Failing => "failing",
            MemberState::Away => "away",
            MemberState::Returning => "returning",
            MemberState::Unspecified => "unknown",
        };
        Self { replica: member.replica, state, reason: member.reason }
    }
}

impl Row for Member {
    const HEAD: &'static [&'static str] = &["replica", "state", "reason"];

    fn cells(&self) -> Vec<String> {
        vec![self.replica.clone(), self.state.into(), self.reason.clone()]
    }
}

impl From<v1::Nexus> for Progress {
    fn from(nexus: v1::Nexus) -> Self {
        let away = |member: &&v1::NexusMember| member.state() != MemberState::Member;
        let away = nexus.members.iter().filter(away).count();
        let pace = nexus.pace.unwrap_or_default();
        let rebuild = nexus.rebuild.unwrap_or_default();
        Self {
            volume: nexus.volume,
            paused: pace.paused,
            beside_bytes_per_s: pace.beside_bytes_per_s,
            alone_bytes_per_s: pace.alone_bytes_per_s,
            replica: rebuild.replica,
            snapshot: rebuild.snapshot,
            snapshots_left: rebuild.snapshots_left,
            total_bytes: rebuild.total_bytes,
            done_bytes: rebuild.done_bytes,
            copied_bytes: rebuild.copied_bytes,
            bytes_per_s: rebuild.bytes_per_s,
            left_s: rebuild.left_s,
            waits_behind: rebuild.waits_behind,
            away,
        }
    }
}

impl Progress {
    /// For people who wait.
    pub(super) fn sentence(&self) -> String {
        let Self { total_bytes: total, done_bytes: done, .. } = self;
        if self.away == 0 {
            return "all replicas are members".into();
        }
        if self.replica.is_empty() {
            return format!("{} away{}", self.away, if self.paused { ", paused" } else { "" });
        }
        let percent = (u128::from(*done) * 100).checked_div(u128::from(*total)).unwrap_or(100);
        let rate = match (self.paused, self.waits_behind) {
            (true, _) => "paused".into(),
            (false, Some(0)) => "waits for its turn: next".into(),
            (false, Some(before)) => format!("waits for its turn: {before} before it"),
            (false, None) => speed(self.bytes_per_s),
        };
        let left = self.left_s.map_or(String::new(), |left| format!(", {} left", time(left)));
        format!("{percent} % of {}, {rate}{left}", size(*total))
    }
}

fn speed(rate: u64) -> String {
    if rate == 0 { "rate not known yet".into() } else { format!("{}/s", size(rate)) }
}

fn limit(rate: u64) -> String {
    if rate == 0 { "any".into() } else { format!("{}/s", size(rate)) }
}

/// To the second for two minutes, to the minute for two hours.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}min", seconds.div_ceil(60)),
        _ => format!("{}h", seconds.div_ceil(3600)),
    }
}

impl Row for Progress {
    const HEAD: &'static [&'static str] =
        &["volume", "replica", "progress", "copied", "beside", "alone"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.volume.clone(),
            self.replica.clone(),
            self.sentence(),
            size(self.copied_bytes),
            limit(self.beside_bytes_per_s),
            limit(self.alone_bytes_per_s),
        ]
    }
}

impl From<v1::Nexus> for Nexus {
    fn from(nexus: v1::Nexus) -> Self {
        let state = match nexus.state() {
            NexusState::Standby => "standby",
            NexusState::TakingOver => "taking-over",
            NexusState::Serving => "serving",
            NexusState::Inaccessible => "inaccessible",
            NexusState::Unspecified => "unknown",
        };
        let rebuild = Progress::from(nexus.clone());
        Self {
            state,
            rebuild,
            members: nexus.members.into_iter().map(Member::from).collect(),
            totals: nexus.totals.unwrap_or_default().into(),
            volume: nexus.volume,
            name: nexus.name,
            nqn: nexus.nqn,
            size_bytes: nexus.size_bytes,
            epoch: nexus.epoch,
            owner: nexus.owner,
            suspect_bytes: nexus.suspect_bytes,
            marked_bytes: nexus.marked_bytes,
            snapshots: nexus.snapshots,
        }
    }
}

impl Row for Nexus {
    const HEAD: &'static [&'static str] =
        &["volume", "name", "state", "epoch", "size", "members", "rebuild", "without redundancy"];

    fn cells(&self) -> Vec<String> {
        let owner = self.epoch != 0;
        let members = self.members.iter().filter(|member| member.state == "member").count();
        let of = |text: String| if owner { text } else { String::new() };
        vec![
            self.volume.clone(),
            self.name.clone(),
            self.state.into(),
            of(self.epoch.to_string()),
            of(size(self.size_bytes)),
            of(format!("{members} of {}", self.members.len())),
            of(self.rebuild.sentence()),
            of(time(self.totals.degraded_ms / 1000)),
        ]
    }
}

impl From<v1::NexusEvent> for Happened {
    fn from(event: v1::NexusEvent) -> Self {
        let v1::NexusEvent { unix_ms, what, replica, reason, text } = event;
        Self { unix_ms, what, replica, reason, text }
    }
}

impl Row for Happened {
    const HEAD: &'static [&'static str] = &["when", "what", "text"];

    fn cells(&self) -> Vec<String> {
        vec![moment(self.unix_ms / 1000), self.what.clone(), self.text.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nexus() -> v1::Nexus {
        let member = |state: MemberState| v1::NexusMember {
            replica: "r".into(),
            state: state.into(),
            reason: String::new(),
        };
        v1::Nexus {
            volume: "v".into(),
            epoch: 3,
            state: NexusState::Serving.into(),
            size_bytes: 1 << 30,
            members: vec![member(MemberState::Member), member(MemberState::Returning)],
            pace: Some(v1::RebuildPace { beside_bytes_per_s: 64 << 20, ..Default::default() }),
            rebuild: Some(v1::Rebuild {
                replica: "r".into(),
                total_bytes: 1 << 30,
                done_bytes: 1 << 29,
                bytes_per_s: 1 << 20,
                left_s: Some(512),
                ..Default::default()
            }),
            ..v1::Nexus::default()
        }
    }

    #[test]
    fn a_rebuild_is_shown_with_what_is_left() {
        let shown = Nexus::from(nexus()).cells();
        assert_eq!(shown[2..4], ["serving".to_owned(), "3".into()]);
        assert_eq!(shown[5], "1 of 2");
        assert_eq!(shown[6], "50 % of 1GiB, 1MiB/s, 9min left");
        let cells = Progress::from(nexus()).cells();
        assert_eq!(cells[4..], ["64MiB/s".to_owned(), "any".into()]);
    }

    #[test]
    fn who_stands_by_knows_nothing_of_members() {
        let standby = v1::Nexus { epoch: 0, members: Vec::new(), rebuild: None, ..nexus() };
        assert!(Nexus::from(standby).cells()[3..].iter().all(String::is_empty));
    }

    #[test]
    fn a_rebuild_that_waits_for_its_turn_says_so() {
        let mut nexus = nexus();
        let rebuild = nexus.rebuild.as_mut().unwrap();
        (rebuild.left_s, rebuild.waits_behind) = (None, Some(2));
        let text = Progress::from(nexus.clone()).sentence();
        assert_eq!(text, "50 % of 1GiB, waits for its turn: 2 before it");
        nexus.rebuild.as_mut().unwrap().waits_behind = Some(0);
        assert_eq!(Progress::from(nexus).sentence(), "50 % of 1GiB, waits for its turn: next");
    }

    #[test]
    fn a_paused_rebuild_says_so() {
        let mut nexus = nexus();
        nexus.pace = Some(v1::RebuildPace { paused: true, ..Default::default() });
        nexus.rebuild.as_mut().unwrap().left_s = None;
        assert_eq!(Progress::from(nexus.clone()).sentence(), "50 % of 1GiB, paused");
        nexus.rebuild = None;
        assert_eq!(Progress::from(nexus).sentence(), "1 away, paused");
    }
}
