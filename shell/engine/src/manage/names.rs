//! What replicas and snapshots are called: by hosts, by people, and in requests.

use braid_pool::LayerInfo;
use tonic::Status;
use uuid::Uuid;

use crate::serve::identity;

/// Bytes of a name, as a pool keeps it.
const NAME_BYTES_MAX: usize = 63;
/// The namespace id of everything that a pool serves: a subsystem each.
pub const NSID: u32 = 1;

/// What hosts recognise a replica or a snapshot by: all of it follows from its uuid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Name of its subsystem.
    pub nqn: String,
    /// Serial number of its subsystem.
    pub serial: String,
    /// Namespace globally unique identifier.
    pub nguid: [u8; 16],
}

impl Names {
    /// The names of a uuid.
    #[must_use]
    pub fn of(uuid: [u8; 16]) -> Self {
        let uuid = Uuid::from_bytes(uuid);
        let nqn = identity::replica_nqn(uuid);
        Self { serial: identity::serial(&nqn), nguid: identity::nguid(uuid), nqn }
    }
}

/// Refuses a name that could not be told from another kind of reference, or be printed.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str) -> Result<(), Status> {
    let wrong = if name.is_empty() {
        "is empty; give it a name"
    } else if name.len() > NAME_BYTES_MAX {
        "is longer than 63 bytes"
    } else if name.trim() != name {
        "begins or ends with a blank"
    } else if name.chars().any(char::is_control) {
        "has a control character in it"
    } else if name.contains('@') {
        "has an @ in it, which stands between a replica and its snapshot"
    } else if Uuid::try_parse(name).is_ok() {
        "is a UUID, which people would take for an identity"
    } else {
        return Ok(());
    };
    Err(Status::invalid_argument(format!("name '{name}' {wrong}")))
}

/// The uuid that a request gives, if it gives one.
///
/// # Errors
/// When it gives something else.
pub fn uuid(text: &str) -> Result<Option<[u8; 16]>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match Uuid::try_parse(text) {
        Ok(uuid) if !uuid.is_nil() => Ok(Some(uuid.into_bytes())),
        _ => Err(Status::invalid_argument(format!(
            "uuid '{text}' is none; write 32 hexadecimal digits, as uuidgen prints them"
        ))),
    }
}

/// A uuid that nobody else has.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn random() -> Result<[u8; 16], Status> {
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match got {
        Ok(16) => Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()),
        _ => Err(Status::internal("the kernel gave no random bytes")),
    }
}

/// As people and programs write it.
#[must_use]
pub fn text(uuid: [u8; 16]) -> String {
    Uuid::from_bytes(uuid).to_string()
}

/// What a request means by a replica or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By its identity.
    Uuid([u8; 16]),
    /// A replica by its name.
    Name(String),
    /// A snapshot by the uuid or name of its replica, and its own name.
    Snapshot(String, String),
}

impl Reference {
    /// Reads a reference to a replica.
    ///
    /// # Errors
    /// When it is none.
    pub fn replica(text: &str) -> Result<Self, Status> {
        match Uuid::try_parse(text) {
            Ok(uuid) => Ok(Self::Uuid(uuid.into_bytes())),
            Err(_) if text.is_empty() => {
                Err(Status::invalid_argument("replica is missing: give its uuid or its name"))
            }
            Err(_) => check(text).map(|()| Self::Name(text.to_owned())),
        }
    }

    /// Reads a reference to a snapshot.
    ///
    /// # Errors
    /// When it is none.
    pub fn snapshot(text: &str) -> Result<Self, Status> {
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(Self::Uuid(uuid.into_bytes()));
        }
        let Some((replica, name)) = text.split_once('@') else {
            return Err(Status::invalid_argument(format!(
                "snapshot '{text}' is neither a uuid nor REPLICA@NAME"
            )));
        };
        Self::replica(replica)?;
        check(name)?;
        Ok(Self::Snapshot(replica.to_owned(), name.to_owned()))
    }

    /// Whether it means this one of these.
    #[must_use]
    pub fn means(&self, layer: &LayerInfo, all: &[LayerInfo]) -> bool {
        match self {
            Self::Uuid(uuid) => layer.uuid == *uuid,
            Self::Name(name) => !layer.snapshot && layer.name == *name,
            Self::Snapshot(replica, name) => {
                layer.snapshot
                    && layer.name == *name
                    && layer.source.is_some_and(|of| is_called(of, replica, all))
            }
        }
    }
}

/// Whether `text` is the uuid or the name of the replica `of`.
fn is_called(of: [u8; 16], text: &str, all: &[LayerInfo]) -> bool {
    match Uuid::try_parse(text) {
        Ok(uuid) => uuid.into_bytes() == of,
        Err(_) => all.iter().any(|layer| layer.uuid == of && layer.name == text),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// Hosts remember these for years: a change of the derivation would rename every replica.
    #[test]
    fn names_never_change() {
        let names = Names::of(*b"0123456789abcdef");
        assert_eq!(names.nqn, "nqn.2026-01.io.braid:30313233-3435-3637-3839-616263646566");
        assert_eq!(names.serial, "BRD42AF3C4F8BDF5B0DB");
        let nguid = Uuid::from_bytes(names.nguid).simple().to_string();
        assert_eq!(nguid, "780c98db86795b89b2d54ebd38d149a9");
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        for good in ["a", "vm 1", "датасет", &"x".repeat(63)] {
            check(good).unwrap();
        }
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for bad in ["", " a", "a\n", "a@b", uuid, &"x".repeat(64), &"ж".repeat(32)] {
            assert_eq!(check(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn references_are_read() {
        let text = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert!(matches!(Reference::replica(text), Ok(Reference::Uuid(_))));
        assert_eq!(Reference::replica("a").unwrap(), Reference::Name("a".into()));
        let daily = Reference::Snapshot("a".into(), "daily".into());
        assert_eq!(Reference::snapshot("a@daily").unwrap(), daily);
        assert!(Reference::snapshot(&format!("{text}@daily")).is_ok());
        for bad in ["", "daily", "@daily", "a@", "a@b@c"] {
            let refused = Reference::snapshot(bad).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        }
        assert!(Reference::replica("").is_err());
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
