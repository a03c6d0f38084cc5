//! Identify (Base 5.17, NVM 4.1.5): what a controller and its namespaces are.

mod controller;
mod namespace;

use zerocopy::IntoBytes;

use super::controller::{Controller, Kind};
use super::view::{NamespaceView, SubsystemView};
use super::window::Window;
use crate::Status;
use crate::command::Command;

pub use controller::IdentifyController;
pub(crate) use controller::{WARNING_TEMPERATURE_KELVIN, notices};
pub use namespace::IdentifyNamespace;

/// Bytes of every Identify data structure.
pub(crate) const IDENTIFY_BYTES: u32 = 4096;

/// WZSL: log2 of the largest Write Zeroes in units of 4 KiB. It must not exceed 65536 blocks, 32
/// MiB if they have 512 bytes, for NLB could not say it; and 8 MiB of memory are zeroed within a
/// millisecond or so, which other commands can wait.
const WZSL: u8 = 11;
/// Bytes that one Write Zeroes may cover.
pub const WRITE_ZEROES_BYTES_MAX: u64 = 4096 << WZSL;

/// VSL: log2 of the largest Verify in units of 4 KiB. As much as is zeroed in one command.
const VSL: u8 = WZSL;
/// Bytes that one Verify may cover.
pub const VERIFY_BYTES_MAX: u64 = 4096 << VSL;

/// Identify: writes the data structure into `out`, [`IDENTIFY_BYTES`] long.
pub(crate) fn identify(
    controller: &Controller,
    view: &SubsystemView<'_>,
    command: &Command,
    out: &mut [u8],
) -> Result<(), Status> {
    let cns = command.cdw(10).to_le_bytes()[0];
    let csi = command.cdw(11).to_le_bytes()[3];
    let mut page = Window::new(0, out);
    let nsid = command.nsid.get();
    match (controller.kind, cns) {
        (_, 0x01) => page.put(0, IdentifyController::new(controller, view).as_bytes()),
        (Kind::Io, 0x00) => page.put(0, IdentifyNamespace::new(view, nsid)?.as_bytes()),
        (Kind::Io, 0x02) => namespace::list(&mut page, view, nsid)?,
        (Kind::Io, 0x03) => namespace::descriptors(&mut page, active(view, nsid)?),
        // The NVM command set says nothing more of a namespace without protection information.
        (Kind::Io, 0x05) if csi == 0 => drop(active(view, nsid)?),
        (Kind::Io, 0x08) => namespace::independent(&mut page, view, active(view, nsid)?),
        (Kind::Io, 0x06) if csi == 0 => page.put(0, &[VSL, WZSL]),
        _ => return Err(Status::INVALID_FIELD.dnr()),
    }
    Ok(())
}

/// The namespace with this id, which must be active.
fn active<'a>(view: &'a SubsystemView<'_>, nsid: u32) -> Result<&'a NamespaceView, Status> {
    view.namespace(nsid).ok_or(Status::INVALID_NAMESPACE.dnr())
}

/// A text field: printable ASCII, space padded, cut to its length.
pub(crate) fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if (b' '..=b'~').contains(&from) { from } else { b'?' };
    }
    field
}
