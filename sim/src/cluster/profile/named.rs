//! Kinds of clusters that meet one trap often.

use std::time::Duration;

use super::{Fault, MIB, Profile};
use crate::cluster::Spread;
use crate::cluster::ambush::Ambush;

type Make = fn(Profile) -> Profile;

/// The kinds, by name.
pub(super) const NAMED: [(&str, Make); 37] = [
    ("rebuild-chain", |mut profile| {
        // Three snapshots and a clone are rebuilt on an empty disk; the source dies half-way.
        profile.rebuilds_chain = true;
        profile.habits.heat = 40;
        profile.habits.weights = [4, 8, 2, 1];
        profile.habits.think = Duration::from_millis(10);
        profile.limits.segments_max = 2;
        profile.pace.read = Spread::micros(100, 5000);
        profile.faulty = Duration::from_secs(6);
        profile.with(&[])
    }),
    ("store-lost", |profile| {
        // The record comes from the copies alone, while members come and go.
        profile.on_shaky_store().with(&[
            (Fault::StoreLost, 3),
            (Fault::Exclude, 4),
            (Fault::Kill, 3),
            (Fault::Split, 2),
            (Fault::Snapshot, 1),
            (Fault::PowerCut, 1),
        ])
    }),
    ("store-restored", |profile| {
        // An older state is back: members that were excluded are named again, and may not serve.
        profile.on_shaky_store().with(&[
            (Fault::StoreRestore, 3),
            (Fault::Exclude, 4),
            (Fault::Kill, 3),
            (Fault::Split, 2),
            (Fault::Snapshot, 1),
            (Fault::TakeOver, 2),
        ])
    }),
    ("given-up", |mut profile| {
        // Replicas are given up and named again, in whatever slot is free, with what they had.
        profile.pause = Spread::millis(100, 1500);
        profile.lasts = Spread::millis(100, 3000);
        profile.faulty = Duration::from_secs(20);
        profile.with(&[
            (Fault::Exclude, 5),
            (Fault::GiveUp, 5),
            (Fault::Kill, 2),
            (Fault::Snapshot, 2),
            (Fault::DeleteSnapshot, 1),
            (Fault::TakeOver, 1),
            (Fault::Wipe, 1),
            (Fault::StoreLost, 1),
        ])
    }),
    ("copies-in-flight", |mut profile| {
        // What an owner left divergent is copied; the source dies while copies are on their way,
        // and hosts write to the same blocks.
        profile.nodes = 5;
        profile.replicas = 4;
        profile.sectors = MIB;
        profile.habits.sectors = MIB;
        profile.habits.hot = (0, 32);
        profile.habits.heat = 100;
        profile.habits.weights = [1, 12, 0, 1];
        profile.habits.think = Duration::from_millis(1);
        profile.habits.depth = 8;
        profile.hosts = 3;
        profile.limits.segments_max = 1;
        profile.weather.slow_in = 4;
        profile.weather.slow = Spread::millis(5, 300);
        profile.ambush = Some(Ambush::CopyOnItsWay);
        profile.pause = Spread::millis(2000, 5000);
        profile.lasts = Spread::millis(1000, 3000);
        profile.faulty = Duration::from_secs(20);
        profile.with(&[(Fault::KillOwner, 1)])
    }),
    ("full-members", |mut profile| {
        // Members get full while a replica returns that has space: what it alone has is nobody's.
        profile.sectors = 16 * MIB;
        profile.habits.sectors = 16 * MIB;
        profile.habits.weights = [1, 5, 5, 0];
        profile.habits.heat = 0;
        profile.habits.transfer = 256;
        profile.habits.ragged = 0;
        profile.habits.think = Duration::from_millis(150);
        profile.hosts = 1;
        profile.limits.segments_max = 1;
        profile.faulty = Duration::from_secs(20);
        profile.pace.read = Spread::micros(2000, 60_000);
        profile.ambush = Some(Ambush::FullMembers);
        profile.pause = Spread::millis(1000, 4000);
        profile.lasts = Spread::millis(1000, 3000);
        profile.with(&[(Fault::Exclude, 1)])
    }),
    ("held-packets", |mut profile| {
        // Packets of a host come to an engine that lost the volume and owns it again; meanwhile the
        // host has sent the same commands elsewhere, and they were overwritten.
        profile.nodes = 2;
        profile.replicas = 2;
        profile.weather.lapse = Spread::millis(12_000, 15_000);
        profile.habits.reconnect = Duration::from_secs(15);
        profile.habits.hot = (0, 32);
        profile.habits.heat = 100;
        profile.habits.weights = [4, 10, 1, 0];
        profile.habits.think = Duration::from_millis(2);
        profile.habits.depth = 8;
        profile.hosts = 3;
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(500, 2000);
        profile.ambush = Some(Ambush::HeldPackets);
        profile.with(&[(Fault::AwayAndBack, 1)])
    }),
    ("calm", |profile| profile.with(&[(Fault::Look, 1)])),
    ("overlap", |mut profile| {
        profile.habits.hot = (0, 16);
        profile.habits.heat = 100;
        profile.habits.think = Duration::from_millis(1);
        profile.habits.depth = 8;
        profile.faulty = Duration::from_secs(4);
        profile.with(&[(Fault::Look, 1)])
    }),
    ("kills", |profile| {
        profile.with(&[(Fault::Kill, 4), (Fault::KillTwo, 1), (Fault::TakeOver, 1)])
    }),
    ("members", |mut profile| {
        // Members fail one by one, and the owner lives.
        profile.nodes = 4;
        profile.pace.stall_in = 3000;
        profile.with(&[(Fault::Stall, 3), (Fault::Split, 3), (Fault::Exclude, 2), (Fault::Kill, 2)])
    }),
    ("duel", |mut profile| {
        profile.temper.doubt_in = 6;
        profile.temper.twice_in = 2;
        profile.weather.slow_in = 200;
        profile.with(&[(Fault::TakeOver, 4), (Fault::Split, 2), (Fault::OneWay, 1)])
    }),
    ("divergence", |mut profile| {
        // Owners die in the middle of writes that reach some members late; what differs is read,
        // and members die before it is mended.
        profile.nodes = 4;
        profile.sectors = 8 * MIB;
        profile.habits.sectors = 8 * MIB;
        profile.limits.segments_max = 1;
        profile.pace.read = Spread::micros(200, 20_000);
        profile.weather.slow_in = 20;
        profile.weather.slow = Spread::millis(5, 900);
        profile.habits.weights = [12, 6, 1, 1];
        profile.habits.think = Duration::from_millis(4);
        profile.habits.heat = 60;
        profile.habits.hot = (0, 64);
        profile.hosts = 3;
        profile.pursuit_in = 1;
        profile.pause = Spread::millis(2000, 5000);
        profile.lasts = Spread::millis(500, 2000);
        profile.faulty = Duration::from_secs(20);
        profile.with(&[(Fault::KillOwner, 1)])
    }),
    ("late-writes", |mut profile| {
        // Members fail and return at once, in the same epoch; the replica did not hear that the
        // older association ended, and what was sent on it comes after.
        profile.weather.slow_in = 20;
        profile.weather.slow = Spread::millis(100, 4000);
        profile.weather.half_open_in = 2;
        profile.weather.lapse = Spread::millis(2000, 4000);
        profile.habits.hot = (0, 32);
        profile.habits.heat = 100;
        profile.habits.weights = [4, 10, 1, 0];
        profile.habits.think = Duration::from_millis(2);
        profile.habits.depth = 8;
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(200, 1500);
        profile.lasts = Spread::millis(20, 500);
        profile.with(&[(Fault::Exclude, 1)])
    }),
    ("late-hosts", |mut profile| {
        // Hosts give paths up, engines do not hear of it, and what was sent there comes when
        // that engine owns the volume again.
        profile.nodes = 2;
        profile.replicas = 2;
        profile.weather.slow_in = 40;
        profile.weather.slow = Spread::millis(100, 1500);
        profile.weather.lapse = Spread::millis(2000, 4000);
        profile.habits.reconnect = Duration::from_secs(5);
        profile.habits.hot = (0, 32);
        profile.habits.heat = 100;
        profile.habits.weights = [4, 10, 1, 0];
        profile.habits.think = Duration::from_millis(2);
        profile.habits.depth = 12;
        profile.hosts = 3;
        profile.faulty = Duration::from_secs(30);
        profile.pause = Spread::millis(1000, 4000);
        profile.with(&[(Fault::AwayAndBack, 1)])
    }),
    ("slow-resync", |mut profile| {
        // Comparing takes seconds; winners die meanwhile, and others return.
        profile.sectors = 12 * MIB;
        profile.habits.sectors = 12 * MIB;
        profile.limits.segments_max = 1;
        profile.pace.read = Spread::micros(500, 60_000);
        profile.weather.slow_in = 8;
        profile.weather.slow = Spread::millis(5, 1200);
        profile.habits.weights = [2, 10, 1, 0];
        profile.habits.think = Duration::from_millis(4);
        profile.habits.heat = 0;
        profile.habits.transfer = 8;
        profile.hosts = 1;
        profile.habits.depth = 24;
        profile.pursuit_in = 1;
        profile.pursuit = Spread::millis(20, 2000);
        profile.pause = Spread::millis(2000, 6000);
        profile.lasts = Spread::millis(200, 2000);
        profile.faulty = Duration::from_secs(20);
        profile.with(&[(Fault::KillOwner, 1)])
    }),
    ("fresh-regions", |mut profile| {
        // Members return while hosts write to regions that are not marked.
        profile.sectors = 16 * MIB;
        profile.habits.sectors = 16 * MIB;
        profile.habits.weights = [1, 10, 1, 3];
        profile.habits.think = Duration::from_millis(600);
        profile.habits.heat = 0;
        profile.habits.transfer = 8;
        profile.hosts = 3;
        profile.timing.idle = Duration::from_millis(20);
        profile.weather.delay = Spread::micros(500, 30_000);
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(300, 2500);
        profile.with(&[(Fault::Exclude, 1)])
    }),
    ("leases", |mut profile| {
        // A take-over does not wait for members that do not answer, so leases alone protect reads.
        profile.timing.fence = Duration::from_millis(50);
        profile.habits.weights = [14, 6, 1, 0];
        profile.habits.think = Duration::from_millis(2);
        profile.habits.hot = (0, 16);
        profile.habits.heat = 100;
        profile.hosts = 3;
        profile.cut_off_in = 2;
        profile.lasts = Spread::millis(500, 2500);
        profile.pause = Spread::millis(500, 2000);
        profile.with(&[(Fault::TakeOver, 1)])
    }),
    ("older-epochs", |mut profile| {
        // Writes of an older epoch come after the fence of the next one.
        profile.temper.doubt_in = 8;
        profile.pace.write = Spread::micros(50, 60_000);
        profile.pace.stall_in = 100;
        profile.pace.stall = Spread::millis(20, 2500);
        profile.weather.slow_in = 60;
        profile.weather.slow = Spread::millis(20, 2500);
        profile.weather.reset_in = 3000;
        profile.habits.heat = 100;
        profile.habits.hot = (0, 32);
        profile.with(&[(Fault::TakeOver, 4), (Fault::Split, 1)])
    }),
    ("ghosts", |mut profile| {
        // A write of a part of a block that only a snapshot has waits for what is there, in a
        // region that is not marked yet, when the next epoch begins; other members never hear of
        // it, and its host is dead. Nobody reads, so no lease holds the fence up until it ended;
        // and no second take-over follows at once, which would see its mark.
        profile.sectors = MIB;
        profile.habits.sectors = MIB;
        profile.habits.weights = [0, 10, 0, 0];
        profile.habits.think = Duration::from_millis(1500);
        profile.habits.hot = (0, 64);
        profile.habits.heat = 100;
        profile.habits.transfer = 8;
        profile.habits.ragged = 100;
        profile.habits.depth = 1;
        profile.hosts = 1;
        profile.timing.idle = Duration::from_millis(20);
        profile.temper.again = Duration::from_secs(60);
        profile.pace.read = Spread::micros(80_000, 300_000);
        profile.weather.slow_in = 3;
        profile.weather.slow = Spread::millis(50, 500);
        profile.ambush = Some(Ambush::LastCommand);
        profile.faulty = Duration::from_secs(25);
        profile.pause = Spread::millis(1200, 2500);
        profile.lasts = Spread::millis(300, 800);
        profile.with(&[(Fault::Usurp, 4), (Fault::DeleteSnapshot, 4)])
    }),
    ("late-marks", |mut profile| {
        // All power fails, that of hosts too, while the first write to a region that was closed is
        // on its way: nobody sends it again. Regions close before the next write, but are open when
        // all is judged: a closed one would tell by its checksum what members differ in.
        profile.sectors = MIB;
        profile.habits.sectors = MIB;
        profile.habits.weights = [0, 10, 0, 0];
        profile.habits.think = Duration::from_secs(4);
        profile.habits.hot = (0, 128);
        profile.habits.heat = 100;
        profile.habits.transfer = 32;
        profile.habits.ragged = 0;
        profile.habits.depth = 1;
        profile.hosts = 1;
        profile.timing.idle = Duration::from_millis(1500);
        profile.pace.flush = Spread::micros(20_000, 400_000);
        profile.ambush = Some(Ambush::LastCommand);
        profile.faulty = Duration::from_secs(40);
        profile.pause = Spread::millis(4000, 12_000);
        profile.lasts = Spread::millis(50, 300);
        profile.with(&[(Fault::Outage, 1)])
    }),
    ("returns", |mut profile| {
        profile.pause = Spread::millis(200, 1500);
        profile.lasts = Spread::millis(20, 1500);
        profile.pace.stall_in = 500;
        profile.pace.stall = Spread::millis(10, 1500);
        profile.with(&[
            (Fault::Exclude, 4),
            (Fault::Kill, 2),
            (Fault::Split, 2),
            (Fault::TakeOver, 1),
        ])
    }),
    ("store", |mut profile| {
        // Commits of returns come late, when the joiner was given up.
        profile.whims.lose_request_in = 0;
        profile.whims.lose_answer_in = 6;
        profile.whims.late_in = 3;
        profile.whims.late = Spread::millis(1000, 6000);
        profile.lasts = Spread::millis(500, 4000);
        profile.pause = Spread::millis(300, 2000);
        profile.with(&[(Fault::Exclude, 6), (Fault::Split, 3), (Fault::Kill, 1)])
    }),
    ("power", |profile| {
        profile.with(&[(Fault::PowerCut, 4), (Fault::TakeOver, 1), (Fault::Look, 1)])
    }),
    ("unceasing-snapshots", |mut profile| {
        // A disk is replaced, and snapshots are taken all the time until its replica is a member.
        // Marks were cleared before.
        profile.snapshots_unceasing = true;
        profile.sectors = 16 * MIB;
        profile.habits.sectors = 16 * MIB;
        profile.habits.heat = 90;
        profile.habits.weights = [2, 10, 2, 0];
        profile.habits.think = Duration::from_millis(800);
        profile.habits.transfer = 32;
        profile.timing.idle = Duration::from_millis(20);
        profile.limits.segments_max = 1;
        profile.pace.read = Spread::micros(4000, 30_000);
        profile.faulty = Duration::from_secs(4);
        profile.with(&[])
    }),
    ("last-member", |mut profile| {
        // One of two members dies, or is back, and soon the other one loses its power: what was
        // flushed must be on the media of whichever is left.
        profile.nodes = 2;
        profile.replicas = 2;
        profile.whims.lose_answer_in = 4;
        profile.habits.weights = [6, 10, 1, 1];
        profile.habits.think = Duration::from_millis(100);
        profile.faulty = Duration::from_secs(30);
        profile.pause = Spread::millis(20, 700);
        profile.lasts = Spread::millis(1000, 4000);
        profile.with(&[(Fault::Kill, 2), (Fault::PowerCut, 3), (Fault::Exclude, 1)])
    }),
    ("blackout", |mut profile| {
        profile.habits.weights = [8, 8, 1, 3];
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(1000, 6000);
        profile.lasts = Spread::millis(100, 1500);
        profile.with(&[(Fault::Blackout, 4), (Fault::PowerCut, 1), (Fault::HostReset, 2)])
    }),
    ("marks", |mut profile| {
        // Regions are cleaned often, while writes are late at one member and members are away.
        profile.habits.weights = [2, 8, 1, 6];
        profile.habits.think = Duration::from_millis(300);
        profile.timing.idle = Duration::from_millis(20);
        profile.weather.slow_in = 20;
        profile.weather.slow = Spread::millis(20, 1500);
        profile.lasts = Spread::millis(1500, 6000);
        profile.faulty = Duration::from_secs(8);
        profile.watches_marks = true;
        profile.with(&[(Fault::Kill, 3), (Fault::Exclude, 2), (Fault::TakeOver, 1)])
    }),
    ("holes", |mut profile| {
        profile.habits.weights = [6, 6, 6, 1];
        profile.with(&[(Fault::Exclude, 4), (Fault::Kill, 2), (Fault::Look, 1)])
    }),
    ("snapshots", |mut profile| {
        profile.pause = Spread::millis(100, 1500);
        profile.with(&[
            (Fault::Snapshot, 6),
            (Fault::DeleteSnapshot, 2),
            (Fault::Exclude, 2),
            (Fault::Kill, 2),
            (Fault::Resize, 1),
            (Fault::TakeOver, 1),
        ])
    }),
    ("stale-reads", |mut profile| {
        // An owner that is cut off from the others, but not from its hosts.
        profile.habits.weights = [12, 6, 1, 0];
        profile.lasts = Spread::millis(1000, 8000);
        profile.with(&[(Fault::Isolate, 4), (Fault::Pause, 3), (Fault::OneWay, 1)])
    }),
    ("hosts", |mut profile| {
        profile.weather.slow_in = 100;
        profile.habits.reconnect = Duration::from_millis(50);
        profile.temper.doubt_in = 8;
        profile.with(&[
            (Fault::HostReset, 4),
            (Fault::HostCrash, 2),
            (Fault::HostCut, 3),
            (Fault::TakeOver, 4),
        ])
    }),
    ("full", |mut profile| {
        // Pools get full one by one, while hosts write where nothing was.
        profile.sectors = 6 * MIB;
        profile.habits.sectors = 6 * MIB;
        profile.habits.weights = [2, 10, 6, 1];
        profile.habits.think = Duration::from_millis(20);
        profile.habits.heat = 0;
        profile.habits.transfer = 256;
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(500, 3000);
        profile.lasts = Spread::millis(1000, 6000);
        profile.with(&[
            (Fault::Fill, 8),
            (Fault::Snapshot, 6),
            (Fault::DeleteSnapshot, 4),
            (Fault::Exclude, 1),
            (Fault::Kill, 1),
        ])
    }),
    ("ambush", |mut profile| {
        // Returns are met by what hurts them most, when it does.
        profile.ambush_in = 1;
        profile.pause = Spread::millis(500, 2500);
        profile.lasts = Spread::millis(20, 1500);
        profile.faulty = Duration::from_secs(20);
        profile.with(&[(Fault::Exclude, 4), (Fault::Kill, 2), (Fault::DeleteSnapshot, 3)])
    }),
    ("slow-store", |mut profile| {
        // The store is away for longer than hosts are let wait, and members fail meanwhile.
        profile.faulty = Duration::from_secs(25);
        profile.lasts = Spread::millis(8000, 16_000);
        profile.pause = Spread::millis(500, 3000);
        profile.with(&[(Fault::StoreDown, 4), (Fault::Kill, 2), (Fault::Split, 2)])
    }),
    ("rot", |mut profile| {
        profile.faulty = Duration::from_secs(20);
        profile.pause = Spread::millis(100, 1500);
        profile.with(&[
            (Fault::BitFlip, 3),
            (Fault::LatentError, 3),
            (Fault::Misdirect, 3),
            (Fault::TakeOver, 1),
        ])
    }),
    ("slow-exclusion", |mut profile| {
        // One member fails, alone, while the store is away from its owner for longer than hosts
        // are let wait: what they sent is held, and carried out when they come back. At first
        // nobody else is appointed meanwhile.
        profile.faulty = Duration::from_secs(70);
        profile.pause = Spread::millis(5000, 15_000);
        profile.lasts = Spread::millis(1000, 20_000);
        profile.temper.patience = Duration::from_secs(40);
        profile.with(&[(Fault::SlowExclusion, 1)])
    }),
];
