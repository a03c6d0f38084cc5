//! Identities as requests write them, and names.

use braid_nexus::Uuid;
use tonic::Status;

/// Characters of a volume's name, at most: its replicas are called after it, and a pool keeps 63.
const NAME_MAX: usize = 60;
/// Characters of a node's name, at most: as of a host's.
const NODE_MAX: usize = 63;

/// As people and programs write it.
#[must_use]
pub fn text(uuid: &Uuid) -> String {
    uuid::Uuid::from_bytes(*uuid).to_string()
}

/// Reads an identity.
///
/// # Errors
/// When it is none; `what` says whose.
pub fn parse(what: &str, text: &str) -> Result<Uuid, Status> {
    let uuid = uuid::Uuid::try_parse(text).map(uuid::Uuid::into_bytes);
    uuid.map_err(|_| Status::invalid_argument(format!("{what} '{text}' is no UUID")))
}

/// Reads an identity that may be left out.
///
/// # Errors
/// When it is there and is none.
pub fn parse_optional(what: &str, text: &str) -> Result<Option<Uuid>, Status> {
    if text.is_empty() { Ok(None) } else { parse(what, text).map(Some) }
}

/// Refuses a name of a volume that could not be told from another kind of reference.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), Status> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_MAX {
        "is longer than 60 characters"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
        "has other characters than letters, digits, dots, dashes and underscores, or does not \
         begin with a letter or digit"
    } else if uuid::Uuid::try_parse(name).is_ok() {
        "is a UUID, which people would take for an identity"
    } else {
        return Ok(());
    };
    Err(Status::invalid_argument(format!("name '{name}' {wrong}")))
}

/// Refuses a name of a node.
///
/// # Errors
/// What is wrong with it.
pub fn check_node(name: &str) -> Result<(), Status> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if (1..=NODE_MAX).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "node '{name}' is not 1 to 63 letters, digits, dots and dashes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_identities() {
        for good in ["a", "vm-1.disk_0", "0"] {
            check_name(good).unwrap();
        }
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for bad in ["", "-a", "a b", "a/b", "a@b", uuid, &"a".repeat(61)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_node("n1.example").is_ok() && check_node("n_1").is_err());
        assert!(parse("volume", "x").unwrap_err().message().contains("volume 'x'"));
    }
}
