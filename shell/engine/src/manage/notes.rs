//! What pools tell becomes events, log lines, and what is known of a pool that failed.

use braid_api::v1::event::{
    MediaError, MetadataLost, MetadataRepaired, PoolFailed, PoolFull, PoolMoving, PoolOpened,
    PoolStalled, Reclaimed, Scrubbed, What,
};
use braid_pool::{Note, Operation};

use super::host::{Host, Told};
use super::hub::{About, unix_s};
use super::manager::{Manager, locked};
use super::names;

impl<H: Host> Manager<H> {
    /// Takes what a pool tells.
    pub fn told(&self, told: Told) {
        let Some(pool) = self.by_home(told.home) else { return self.keep_early(told) };
        let mut heard = locked(&pool.heard);
        match told.note {
            Note::Failed { operation, offset, error } => {
                let operation = operation_name(operation);
                heard.failed = Some(format!("a {operation} at byte {offset} failed: {error}"));
            }
            Note::Scrubbed { blocks, errors } => {
                heard.scrubbed = Some((unix_s(), blocks, errors));
            }
            _ => {}
        }
        drop(heard);
        let about = About { pool: Some(pool.uuid), replica: told.layer };
        let path = pool.path.display();
        if told.note == Note::Stopped {
            tracing::info!(pool = %path, "stopped in order");
        }
        let Some((what, text)) = event(told.note) else { return };
        let of = told.layer.map(|uuid| format!(" of {}", names::text(uuid))).unwrap_or_default();
        let left_out = match told.left_out {
            0 => String::new(),
            more => format!("; {more} notes before it were left out: they were too many"),
        };
        if is_bad(told.note) {
            tracing::error!(pool = %path, left_out = told.left_out, "{text}{of}");
        } else {
            tracing::info!(pool = %path, left_out = told.left_out, "{text}{of}");
        }
        self.hub.tell(about, format!("pool {path}: {text}{of}{left_out}"), what);
    }
}

/// The event of a note, and its text without the pool; None: the management itself tells of it.
pub(crate) fn event(note: Note) -> Option<(What, String)> {
    let pair = match note {
        Note::Opened { clean, replayed, rejected } => {
            let stop = if clean { "an orderly stop" } else { "a crash" };
            let text = format!(
                "opened after {stop}; {replayed} journal blocks replayed, {rejected} first writes \
                 that had not reached the disk undone"
            );
            (What::PoolOpened(PoolOpened { clean, replayed_blocks: replayed, rejected }), text)
        }
        Note::Failed { operation, offset, error } => {
            let operation = operation_name(operation);
            let text = format!("failed: a {operation} at byte {offset}: {error}");
            let what = PoolFailed {
                operation: operation.into(),
                device_offset_bytes: offset,
                error: error.to_string(),
            };
            (What::PoolFailed(what), text)
        }
        Note::Media { offset, device, .. } => {
            let text = format!("the block at byte {offset} is lost (byte {device} of the disk)");
            let what = MediaError { offset_bytes: offset, device_offset_bytes: device };
            (What::MediaError(what), text)
        }
        Note::Repaired { device } => {
            let what = MetadataRepaired { device_offset_bytes: device };
            (What::MetadataRepaired(what), format!("a page at byte {device} is repaired"))
        }
        Note::Lost { device } => {
            let what = MetadataLost { device_offset_bytes: device };
            (What::MetadataLost(what), format!("both copies of a page at byte {device} are bad"))
        }
        Note::Stalled { seconds } => {
            let text = format!("an operation on its disk takes {seconds} s by now");
            (What::PoolStalled(PoolStalled { seconds }), text)
        }
        Note::Moving => (What::PoolMoving(PoolMoving {}), "its disk goes on".into()),
        Note::Full => (What::PoolFull(PoolFull {}), "is full".into()),
        Note::Scrubbed { blocks, errors } => {
            let text = format!("scrubbed: {blocks} blocks read, {errors} lost");
            (What::Scrubbed(Scrubbed { blocks, errors }), text)
        }
        Note::Reclaimed => {
            (What::Reclaimed(Reclaimed {}), "what was destroyed has given its space back".into())
        }
        Note::Kept { device } => {
            let text = format!(
                "what was destroyed keeps its space, for part of it cannot be read (its page is \
                 at byte {device})"
            );
            (What::MetadataLost(MetadataLost { device_offset_bytes: device }), text)
        }
        Note::Refused(_) | Note::Stopped => return None,
    };
    Some(pair)
}

const fn is_bad(note: Note) -> bool {
    matches!(
        note,
        Note::Failed { .. }
            | Note::Media { .. }
            | Note::Lost { .. }
            | Note::Kept { .. }
            | Note::Stalled { .. }
    )
}

const fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
    }
}
