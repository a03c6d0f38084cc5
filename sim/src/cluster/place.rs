//! What is where: volumes, and the nodes that hold their replicas.

use braid_nexus::Uuid;

/// A volume of the cluster.
#[derive(Clone, Debug)]
pub struct VolumeSite {
    /// Its identity.
    pub uuid: Uuid,
    /// Its size when it was made.
    pub bytes: u64,
    /// Its replicas, and their nodes.
    pub replicas: Vec<(Uuid, u8)>,
}

/// All volumes. They are known by their position.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// In the order in which they were made.
    pub volumes: Vec<VolumeSite>,
}

impl Sites {
    /// The node of a replica.
    #[must_use]
    pub fn node_of(&self, replica: &Uuid) -> Option<u8> {
        let all = self.volumes.iter().flat_map(|volume| &volume.replicas);
        all.filter(|(uuid, _)| uuid == replica).map(|(_, node)| *node).next()
    }

    /// The volume of a replica.
    #[must_use]
    pub fn volume_of(&self, replica: &Uuid) -> Option<usize> {
        let has = |volume: &VolumeSite| volume.replicas.iter().any(|(uuid, _)| uuid == replica);
        self.volumes.iter().position(has)
    }

    /// The replicas that a node holds: of which volume, and their size at first.
    pub fn of_node(&self, node: u8) -> impl Iterator<Item = (Uuid, u64)> {
        self.volumes.iter().flat_map(move |volume| {
            let mine = volume.replicas.iter().filter(move |(_, at)| *at == node);
            mine.map(|(uuid, _)| (*uuid, volume.bytes))
        })
    }
}

/// The identity of a volume.
#[must_use]
pub const fn volume_uuid(volume: usize) -> Uuid {
    let mut uuid = [0xa0; 16];
    uuid[0] = volume.to_le_bytes()[0];
    uuid
}

/// The identity of a volume's replica on a node.
#[must_use]
pub const fn replica_uuid(volume: usize, node: u8) -> Uuid {
    let mut uuid = [0x4e; 16];
    uuid[0] = volume.to_le_bytes()[0];
    uuid[1] = node;
    uuid
}
