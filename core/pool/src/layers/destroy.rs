//! Making replicas and snapshots go away: a flag, and `reclaim` does the rest.

use zerocopy::IntoBytes;

use super::{Progress, image_of};
use crate::codec::layer_fields;
use crate::{Done, Failure, Pool};

impl Pool {
    /// Makes a replica, or a snapshot, go away. One that is not there did so before: the command
    /// is repeated.
    pub(super) fn destroy(&mut self, uuid: &[u8; 16], snapshot: bool) -> Progress<Done> {
        let Some(layer) = self.served(uuid) else { return Ok(Some(Done::default())) };
        let Some(state) = self.state_of(layer) else { return Err(Failure::NotFound) };
        if state.sealed != snapshot {
            return Err(Failure::Invalid);
        }
        let mut state = state.clone();
        self.store.space.promised = self.store.space.promised.saturating_sub(state.promised());
        state.deleted = true;
        self.record_group(&[(image_of(layer), layer_fields(&state).as_bytes())]);
        self.unserve(layer);
        self.reclaim_wanted();
        Ok(Some(Done::default()))
    }

    /// Takes a layer's number for requests, and its name, away.
    fn unserve(&mut self, layer: u32) {
        let map = &mut self.store.map;
        let Some(held) = map.layers.get_mut(&layer) else { return };
        if let Some(handle) = held.handle.take() {
            map.handles.remove(handle);
        }
        let uuid = held.state().uuid;
        map.names.remove(&uuid);
    }
}
