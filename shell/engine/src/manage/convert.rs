//! From what pools say to what goes over the wire, and back: the one border.

use std::sync::atomic::Ordering;
use std::time::Duration;

use braid_api::v1::{self, FaultKind, FaultOperation, PoolState, SharePolicy};
use braid_pool::{LayerInfo, State};
use braid_shard::{Fault, Injection, Operation};
use tonic::Status;

use super::host::Picture;
use super::manager::{Pool, locked};
use super::names::{self, NSID, Names};
use crate::serve::uri::Allocation;

/// A pool.
pub(crate) fn pool(pool: &Pool, picture: &Picture) -> v1::Pool {
    let Picture { state, info, layers, counters } = picture;
    let count = |snapshot: bool| {
        let count = layers.iter().filter(|layer| layer.snapshot == snapshot).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    v1::Pool {
        uuid: names::text(pool.uuid),
        path: pool.path.display().to_string(),
        state: pool_state(*state).into(),
        reason: locked(&pool.heard).failed.clone().unwrap_or_default(),
        share: pool.policy.into(),
        shard: pool.home.shard.into(),
        replicas: count(false),
        snapshots: count(true),
        capacity_bytes: info.capacity,
        data_bytes: info.data,
        maps_bytes: info.maps,
        quarantine_bytes: info.quarantine,
        reserve_bytes: info.reserve,
        promised_bytes: info.promised,
        available_bytes: info.available,
        committed_bytes: info.committed,
        journal_blocks: info.journal_blocks,
        journal_used_blocks: info.journal_used,
        memory_bytes: info.memory,
        checksum_errors: counters.checksum_errors,
        unverified_blocks: counters.unverified,
        disk_bytes: pool.disk_bytes.load(Ordering::Relaxed),
        clean: info.clean,
        is_block_device: pool.is_block_device,
    }
}

const fn pool_state(state: State) -> PoolState {
    match state {
        State::Opening => PoolState::Opening,
        State::Open => PoolState::Open,
        State::Stopping | State::Stopped => PoolState::Closing,
        State::Failed => PoolState::Failed,
    }
}

/// A replica or a clone.
pub(crate) fn replica(pool: &Pool, layer: &LayerInfo) -> v1::Replica {
    v1::Replica {
        uuid: names::text(layer.uuid),
        name: layer.name.clone(),
        pool: names::text(pool.uuid),
        size_bytes: layer.bytes,
        block_bytes: layer.block.bytes(),
        thick: layer.thick,
        member: layer.member,
        snapshot: layer.source.map_or_else(String::new, names::text),
        created_unix_s: layer.created,
        own_bytes: layer.own,
        shared_bytes: layer.shared,
        instance: layer.instance,
        share: share(pool, layer),
    }
}

/// A snapshot, among all that its pool has.
pub(crate) fn snapshot(pool: &Pool, layer: &LayerInfo, all: &[LayerInfo]) -> v1::Snapshot {
    let replica = all.iter().find(|other| Some(other.uuid) == layer.source);
    v1::Snapshot {
        uuid: names::text(layer.uuid),
        name: layer.name.clone(),
        pool: names::text(pool.uuid),
        replica: layer.source.map_or_else(String::new, names::text),
        replica_name: replica.map_or_else(String::new, |replica| replica.name.clone()),
        size_bytes: layer.bytes,
        block_bytes: layer.block.bytes(),
        created_unix_s: layer.created,
        own_bytes: layer.own,
        shared_bytes: layer.shared,
        children: layer.children,
        share: share(pool, layer),
    }
}

fn share(pool: &Pool, layer: &LayerInfo) -> Option<v1::Share> {
    let allowed_hosts = pool.shared_with(&layer.uuid)?;
    let Names { nqn, serial, nguid } = Names::of(layer.uuid);
    let nguid = uuid::Uuid::from_bytes(nguid).simple().to_string();
    Some(v1::Share { nqn, serial, nguid, nsid: NSID, allowed_hosts })
}

/// What a request says about sharing.
pub(crate) fn policy(wire: i32) -> Result<SharePolicy, Status> {
    match SharePolicy::try_from(wire) {
        Ok(SharePolicy::Unspecified) => Ok(SharePolicy::All),
        Ok(policy) => Ok(policy),
        Err(_) => Err(Status::invalid_argument(format!("share {wire} is no share policy"))),
    }
}

/// What a request says about a file's space.
pub(crate) fn allocation(wire: i32) -> Result<Allocation, Status> {
    match v1::Allocation::try_from(wire) {
        Ok(v1::Allocation::Unspecified | v1::Allocation::Reserved) => Ok(Allocation::Reserved),
        Ok(v1::Allocation::Sparse) => Ok(Allocation::Sparse),
        Ok(v1::Allocation::Prefilled) => Ok(Allocation::Prefilled),
        Err(_) => Err(Status::invalid_argument(format!("allocation {wire} is none"))),
    }
}

/// A fault to inject.
pub(crate) fn fault(wire: &v1::Fault) -> Result<Injection, Status> {
    let operation = match FaultOperation::try_from(wire.operation) {
        Ok(FaultOperation::Read) => Operation::Read,
        Ok(FaultOperation::Write) => Operation::Write,
        Ok(FaultOperation::Flush) => Operation::Flush,
        _ => return Err(Status::invalid_argument("operation is not read, write or flush")),
    };
    let fault = match FaultKind::try_from(wire.kind) {
        Ok(FaultKind::Error) => Fault::Error,
        Ok(FaultKind::Stall) => Fault::Stall,
        Ok(FaultKind::Delay) if wire.delay_us == 0 => {
            return Err(Status::invalid_argument("delay_us is missing, or 0"));
        }
        Ok(FaultKind::Delay) => Fault::Delay(Duration::from_micros(wire.delay_us)),
        Ok(FaultKind::Corrupt) if operation == Operation::Flush => {
            return Err(Status::invalid_argument("a flush carries no data to corrupt"));
        }
        Ok(FaultKind::Corrupt) => Fault::Corrupt,
        _ => return Err(Status::invalid_argument("kind is not error, stall, delay or corrupt")),
    };
    let len = if wire.length_bytes == 0 { u64::MAX } else { wire.length_bytes };
    let count = if wire.count == 0 { u32::MAX } else { wire.count };
    Ok(Injection { operation, fault, offset: wire.offset_bytes, len, count })
}

/// The same, for a request.
pub(crate) fn fault_to_wire(injection: &Injection) -> v1::Fault {
    let operation = match injection.operation {
        Operation::Write | Operation::Zero | Operation::Discard => FaultOperation::Write,
        Operation::Read => FaultOperation::Read,
        Operation::Flush => FaultOperation::Flush,
    };
    let (kind, delay) = match injection.fault {
        Fault::Error => (FaultKind::Error, Duration::ZERO),
        Fault::Stall => (FaultKind::Stall, Duration::ZERO),
        Fault::Delay(delay) => (FaultKind::Delay, delay),
        Fault::Corrupt => (FaultKind::Corrupt, Duration::ZERO),
    };
    v1::Fault {
        operation: operation.into(),
        kind: kind.into(),
        delay_us: u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
        offset_bytes: injection.offset,
        length_bytes: if injection.len == u64::MAX { 0 } else { injection.len },
        count: if injection.count == u32::MAX { 0 } else { injection.count },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::injection;

    #[test]
    fn a_fault_is_the_same_on_both_sides() {
        for text in [
            "read,error",
            "write,stall,1MiB+4KiB,3",
            "read,delay:20ms,all,1",
            "flush,error",
            "write,corrupt",
        ] {
            let injection = injection::parse(text).unwrap();
            assert_eq!(fault(&fault_to_wire(&injection)).unwrap(), injection, "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        let good = v1::Fault { operation: 1, kind: 1, ..v1::Fault::default() };
        assert!(fault(&good).is_ok());
        for bad in [
            v1::Fault { operation: 0, ..good },
            v1::Fault { operation: 9, ..good },
            v1::Fault { kind: 0, ..good },
            v1::Fault { kind: 3, ..good },
            v1::Fault { operation: 3, kind: 4, ..good },
        ] {
            assert_eq!(fault(&bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
        assert!(policy(7).is_err() && allocation(7).is_err());
    }
}
