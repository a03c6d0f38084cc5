//! What of the standard a target here does: one page, of which the answers are asked of a
//! controller, and the rows are those of the standard's tables. `cargo xtask docs` keeps it in
//! `docs/`.

use alloc::string::String;
use core::fmt::Write;
use core::time::Duration;

use braid_block::{BlockSize, Geometry};

use crate::Status;
use crate::auth::Security;
use crate::command::{Command, Sgl, admin};
use crate::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use crate::property::{Configuration, Property};
use crate::target::{
    AnaGroup, Controller, ControllerLimits, ControllerModel, Counters, Directory, IoCommand, Kind,
    Listed, SubsystemView,
};

/// Whether the standard asks for it, of a controller that does I/O over fabrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Mandatory,
    Optional,
    /// There is no such thing over fabrics.
    Forbidden,
}

use Need::{Forbidden, Mandatory, Optional};

/// A row: its code, its name, whether it is asked for, and the test that shows it; none, if we do
/// not have it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    code: u8,
    name: &'static str,
    need: Need,
    /// The file of its test.
    pub file: &'static str,
    /// The name of its test.
    pub test: &'static str,
}

const fn row(
    code: u8,
    name: &'static str,
    need: Need,
    file: &'static str,
    test: &'static str,
) -> Row {
    Row { code, name, need, file, test }
}

const ANA: &str = "core/nvme/tests/controller/ana.rs";
const AUTHENTICATION: &str = "core/shard/tests/authentication.rs";
const CHECKING: &str = "core/shard/tests/checking.rs";
const DISCOVERY: &str = "core/nvme/tests/controller/discovery.rs";
const ENDINGS: &str = "core/shard/tests/endings.rs";
const EVENT: &str = "core/nvme/tests/controller/event.rs";
const FEATURE: &str = "core/nvme/tests/controller/feature.rs";
const IDENTIFY: &str = "core/nvme/tests/controller/identify.rs";
const LBA_STATUS: &str = "core/nvme/tests/controller/lba_status.rs";
const LIFE: &str = "core/nvme/tests/controller/life.rs";
const LOG: &str = "core/nvme/tests/controller/log.rs";
const RESERVATION: &str = "core/shard/tests/reservation.rs";
const SHARD: &str = "core/shard/tests/target.rs";

const ADMIN: &[Row] = &[
    row(0x00, "Delete I/O Submission Queue", Forbidden, "", ""),
    row(0x01, "Create I/O Submission Queue", Forbidden, "", ""),
    row(0x02, "Get Log Page", Mandatory, LOG, "a_page_read_in_parts_is_the_page"),
    row(0x04, "Delete I/O Completion Queue", Forbidden, "", ""),
    row(0x05, "Create I/O Completion Queue", Forbidden, "", ""),
    row(0x06, "Identify", Mandatory, IDENTIFY, "an_io_controller_says_what_it_can"),
    row(
        0x08,
        "Abort",
        Mandatory,
        CHECKING,
        "an_abort_of_a_write_ends_it_when_its_data_is_here_and_is_answered_then",
    ),
    row(
        0x09,
        "Set Features",
        Mandatory,
        FEATURE,
        "a_value_that_was_set_is_the_current_one_and_the_default_stays",
    ),
    row(
        0x0a,
        "Get Features",
        Mandatory,
        FEATURE,
        "a_value_that_was_set_is_the_current_one_and_the_default_stays",
    ),
    row(0x0c, "Asynchronous Event Request", Mandatory, EVENT, "a_change_answers_a_request"),
    row(0x0d, "Namespace Management", Optional, "", ""),
    row(0x10, "Firmware Commit", Optional, "", ""),
    row(0x11, "Firmware Image Download", Optional, "", ""),
    row(0x14, "Device Self-test", Optional, "", ""),
    row(0x15, "Namespace Attachment", Optional, "", ""),
    row(0x18, "Keep Alive", Mandatory, SHARD, "a_silent_host_loses_its_controller"),
    row(0x19, "Directive Send", Optional, "", ""),
    row(0x1a, "Directive Receive", Optional, "", ""),
    row(0x1d, "NVMe-MI Send", Optional, "", ""),
    row(0x1e, "NVMe-MI Receive", Optional, "", ""),
    row(0x20, "Capacity Management", Optional, "", ""),
    row(0x21, "Discovery Information Management", Optional, "", ""),
    row(0x24, "Lockdown", Optional, "", ""),
    row(0x7f, "Fabrics commands", Mandatory, LIFE, "properties_read_what_the_controller_is"),
    row(0x80, "Format NVM", Optional, "", ""),
    row(0x81, "Security Send", Optional, "", ""),
    row(0x82, "Security Receive", Optional, "", ""),
    row(0x84, "Sanitize", Optional, "", ""),
    row(
        0x86,
        "Get LBA Status",
        Optional,
        LBA_STATUS,
        "allocated_blocks_are_looked_up_in_the_range_that_the_command_names",
    ),
];

const INPUT_OUTPUT: &[Row] = &[
    row(0x00, "Flush", Mandatory, SHARD, "a_flush_reaches_the_device_after_the_writes_it_covers"),
    row(
        0x01,
        "Write",
        Mandatory,
        SHARD,
        "what_is_written_is_read_with_every_digest_setting_and_size",
    ),
    row(
        0x02,
        "Read",
        Mandatory,
        SHARD,
        "what_is_written_is_read_with_every_digest_setting_and_size",
    ),
    row(0x04, "Write Uncorrectable", Optional, "", ""),
    row(
        0x05,
        "Compare; with Write as one",
        Optional,
        CHECKING,
        "no_other_write_to_the_range_comes_between",
    ),
    row(0x08, "Write Zeroes", Optional, SHARD, "write_zeroes_and_deallocate_read_as_zeros"),
    row(0x09, "Dataset Management", Optional, SHARD, "write_zeroes_and_deallocate_read_as_zeros"),
    row(
        0x0c,
        "Verify",
        Optional,
        CHECKING,
        "a_verify_reads_without_sending_and_tells_what_it_cannot_read",
    ),
    row(
        0x0d,
        "Reservation Register",
        Optional,
        RESERVATION,
        "a_registration_outlives_its_controller",
    ),
    row(
        0x0e,
        "Reservation Report",
        Optional,
        RESERVATION,
        "a_registration_outlives_its_controller",
    ),
    row(
        0x11,
        "Reservation Acquire",
        Optional,
        RESERVATION,
        "a_reservation_refuses_the_commands_of_others_and_of_nobody_else",
    ),
    row(
        0x15,
        "Reservation Release",
        Optional,
        RESERVATION,
        "hosts_are_told_what_others_did_to_them",
    ),
    row(0x19, "Copy", Optional, "", ""),
];

const LOGS: &[Row] = &[
    row(0x00, "Supported Log Pages", Optional, LOG, "supported_pages_are_those_that_are_answered"),
    row(
        0x01,
        "Error Information",
        Mandatory,
        LOG,
        "the_error_log_holds_what_is_not_the_hosts_doing_newest_first",
    ),
    row(0x02, "SMART / Health Information", Mandatory, LOG, "smart_tells_what_was_counted"),
    row(0x03, "Firmware Slot Information", Mandatory, LOG, "the_first_firmware_slot_is_active"),
    row(
        0x04,
        "Changed Namespace List",
        Optional,
        LOG,
        "changed_namespaces_are_listed_once_ascending_until_they_are_read",
    ),
    row(
        0x05,
        "Commands Supported and Effects",
        Optional,
        LOG,
        "the_effects_are_those_of_the_commands_that_are_answered",
    ),
    row(0x06, "Device Self-test", Optional, "", ""),
    row(0x07, "Telemetry Host-Initiated", Optional, "", ""),
    row(0x08, "Telemetry Controller-Initiated", Optional, "", ""),
    row(0x09, "Endurance Group Information", Optional, "", ""),
    row(
        0x0c,
        "Asymmetric Namespace Access",
        Optional,
        ANA,
        "the_log_tells_each_group_its_state_and_its_namespaces",
    ),
    row(0x0d, "Persistent Event Log", Optional, "", ""),
    row(0x0e, "LBA Status Information", Optional, "", ""),
    row(0x12, "Feature Identifiers Supported and Effects", Optional, "", ""),
    row(0x13, "NVMe-MI Commands Supported and Effects", Optional, "", ""),
    row(0x70, "Discovery", Mandatory, DISCOVERY, "the_log_read_in_any_parts_is_the_log"),
    row(
        0x80,
        "Reservation Notification",
        Optional,
        RESERVATION,
        "hosts_are_told_what_others_did_to_them",
    ),
    row(0x81, "Sanitize Status", Optional, "", ""),
];

const FEATURES: &[Row] = &[
    row(0x01, "Arbitration", Mandatory, FEATURE, KEPT),
    row(0x02, "Power Management", Mandatory, FEATURE, "a_wrong_value_is_refused"),
    row(0x03, "LBA Range Type", Optional, "", ""),
    row(0x04, "Temperature Threshold", Mandatory, FEATURE, "each_temperature_threshold_is_its_own"),
    row(0x05, "Error Recovery", Mandatory, FEATURE, KEPT),
    row(
        0x06,
        "Volatile Write Cache",
        Optional,
        ENDINGS,
        "turning_the_write_cache_off_makes_durable_what_was_completed_before",
    ),
    row(
        0x07,
        "Number of Queues",
        Mandatory,
        FEATURE,
        "queues_are_granted_as_asked_for_up_to_the_limit",
    ),
    row(0x08, "Interrupt Coalescing", Optional, FEATURE, KEPT),
    row(0x09, "Interrupt Vector Configuration", Optional, FEATURE, KEPT),
    row(0x0a, "Write Atomicity Normal", Mandatory, FEATURE, KEPT),
    row(
        0x0b,
        "Asynchronous Event Configuration",
        Mandatory,
        FEATURE,
        "events_that_there_are_not_cannot_be_enabled",
    ),
    row(0x0c, "Autonomous Power State Transition", Optional, "", ""),
    row(0x0d, "Host Memory Buffer", Forbidden, "", ""),
    row(0x0e, "Timestamp", Optional, "", ""),
    row(
        0x0f,
        "Keep Alive Timer",
        Mandatory,
        ENDINGS,
        "a_keep_alive_time_out_that_is_made_shorter_counts_at_once",
    ),
    row(0x10, "Host Controlled Thermal Management", Optional, "", ""),
    row(
        0x16,
        "Host Behavior Support",
        Optional,
        FEATURE,
        "host_behaviour_is_set_and_read_as_512_bytes",
    ),
    row(
        0x81,
        "Host Identifier",
        Optional,
        FEATURE,
        "the_host_identifier_is_the_one_of_connect_in_128_bits",
    ),
    row(0x82, "Reservation Notification Mask", Optional, RESERVATION, "what_is_masked_is_not_told"),
    row(
        0x83,
        "Reservation Persistence",
        Optional,
        RESERVATION,
        "the_feature_is_another_way_to_say_what_persists",
    ),
    row(0x84, "Namespace Write Protection Config", Optional, "", ""),
];

/// The test of features that are kept and have no effect.
const KEPT: &str = "a_value_that_was_set_is_the_current_one_and_the_default_stays";

const FABRICS: &[Row] = &[
    row(0x00, "Property Set", Mandatory, LIFE, "enabling_makes_a_controller_ready"),
    row(0x01, "Connect", Mandatory, LIFE, "a_queue_is_refused_for_the_parameter_that_is_wrong"),
    row(0x04, "Property Get", Mandatory, LIFE, "properties_read_what_the_controller_is"),
    row(
        0x05,
        "Authentication Send",
        Optional,
        AUTHENTICATION,
        "every_queue_proves_its_host_and_nothing_is_done_for_it_before",
    ),
    row(
        0x06,
        "Authentication Receive",
        Optional,
        AUTHENTICATION,
        "a_host_may_ask_who_the_controller_is_and_not_believe_it",
    ),
    row(0x08, "Disconnect", Optional, "", ""),
];

/// A table: its heading, what its codes are, its rows, and whether a controller has one of them.
struct Table {
    title: &'static str,
    code: &'static str,
    rows: &'static [Row],
    has: fn(&mut Controller, u8) -> bool,
}

const TABLES: [Table; 5] = [
    Table { title: "Admin commands", code: "opcode", rows: ADMIN, has: has_admin },
    Table { title: "I/O commands", code: "opcode", rows: INPUT_OUTPUT, has: has_io },
    Table { title: "Fabrics commands", code: "type", rows: FABRICS, has: has_fabrics },
    Table { title: "Log pages", code: "page", rows: LOGS, has: has_log },
    Table { title: "Features", code: "feature", rows: FEATURES, has: has_feature },
];

fn has_admin(controller: &mut Controller, opcode: u8) -> bool {
    let command = Command { sgl: Sgl::transport(4096), ..Command::new(opcode, 0) };
    let refused = controller.transfer(&command).err();
    !refused.is_some_and(|status| status.is(Status::INVALID_OPCODE))
}

fn has_io(controller: &mut Controller, opcode: u8) -> bool {
    // A discovery controller has no I/O queue to send it by.
    let geometry = Geometry { block: BlockSize::B4096, blocks: 1 << 20 };
    let refused = IoCommand::parse(&Command::new(opcode, 1), Some(geometry)).err();
    controller.kind() == Kind::Io
        && !refused.is_some_and(|status| status.is(Status::INVALID_OPCODE))
}

fn has_fabrics(controller: &mut Controller, fctype: u8) -> bool {
    let command = Command::new(admin::FABRICS, u32::from(fctype));
    let refused = controller.transfer(&command).err();
    // Those of authentication are for the connection; discovery asks nobody.
    let proof = controller.kind() == Kind::Io && Security::of(&command).is_some();
    proof || !refused.is_some_and(|status| status.is(Status::INVALID_OPCODE))
}

fn has_log(controller: &mut Controller, lid: u8) -> bool {
    let mut command = Command { sgl: Sgl::transport(64), ..Command::new(admin::GET_LOG_PAGE, 0) };
    command.set_cdw(10, u32::from(lid) | 15 << 16);
    let refused = controller.transfer(&command).err();
    !refused.is_some_and(|status| status.is(Status::INVALID_LOG_PAGE))
}

fn has_feature(controller: &mut Controller, fid: u8) -> bool {
    let mut command = Command { sgl: Sgl::transport(512), ..Command::new(admin::GET_FEATURES, 0) };
    command.set_cdw(10, u32::from(fid));
    command.set_cdw(11, 1);
    controller.transfer(&command).is_ok()
}

/// A controller of this kind, enabled.
fn controller(kind: Kind) -> Option<Controller> {
    let name = Nqn::parse("nqn.2026-01.io.braid:conformance")?;
    let connect = Connect {
        cid: 0,
        qid: 0,
        entries: 32,
        flow_control: false,
        kato: Duration::from_secs(5),
        cntlid: CNTLID_DYNAMIC,
        hostid: [1; 16],
        subnqn: name,
        hostnqn: name,
    };
    let limits = ControllerLimits { queue_entries: 128, io_queues: 4, in_capsule_bytes: 8192 };
    let mut controller = Controller::new(kind, 1, &connect, limits);
    let view = SubsystemView {
        nqn: &name,
        serial: "",
        model: "",
        firmware: "",
        controllers: ControllerModel::Dynamic,
        namespaces: &[],
        groups: &[] as &[AnaGroup],
        epoch: 0,
        portals: &[],
        port: 0,
        uptime: Duration::ZERO,
        counters: Counters::default(),
        directory: &Nothing,
    };
    let enable = Property::Configuration.set(u64::from(Configuration::ENABLE.to_wire()));
    let _done = controller.admin(&view, &enable, &[], &mut []);
    Some(controller)
}

struct Nothing;

impl Directory for Nothing {
    fn generation(&self) -> u64 {
        0
    }

    fn is_same_everywhere(&self) -> bool {
        true
    }

    fn entries(&self, _: &Nqn, _: &mut dyn FnMut(Listed<'_>)) {}
}

/// Every row that a controller has, of any kind.
pub fn supported_rows() -> impl Iterator<Item = Row> {
    TABLES.into_iter().flat_map(|table| {
        let has = table.has;
        table.rows.iter().copied().filter(move |row| {
            [Kind::Io, Kind::Discovery]
                .into_iter()
                .filter_map(controller)
                .any(|mut controller| has(&mut controller, row.code))
        })
    })
}

/// The codes that a controller has and no row names.
#[must_use]
pub fn unnamed() -> alloc::vec::Vec<(&'static str, u8)> {
    let mut found = alloc::vec::Vec::new();
    for table in TABLES {
        for code in 0..=u8::MAX {
            let named = table.rows.iter().any(|row| row.code == code);
            let has = |kind| controller(kind).is_none_or(|mut asked| (table.has)(&mut asked, code));
            if !named && (has(Kind::Io) || has(Kind::Discovery)) {
                found.push((table.title, code));
            }
        }
    }
    found
}

/// The page.
#[must_use]
pub fn conformance_page() -> String {
    let mut page = String::from(HEAD);
    for table in TABLES {
        let _ = write!(
            page,
            "\n## {}\n\n| {} | name | standard | I/O controller | discovery controller | tested by \
             |\n|---|---|---|---|---|---|\n",
            table.title, table.code
        );
        for row in table.rows {
            put(&mut page, &table, row);
        }
    }
    let _ = write!(page, "{TAIL}");
    page
}

fn put(page: &mut String, table: &Table, row: &Row) {
    let need = match row.need {
        Mandatory => "mandatory",
        Optional => "optional",
        Forbidden => "not over fabrics",
    };
    let has = |kind| controller(kind).is_some_and(|mut found| (table.has)(&mut found, row.code));
    let (io, discovery) = (has(Kind::Io), has(Kind::Discovery));
    let word = |has| if has { "yes" } else { "no" };
    let test = match (row.test, io || discovery) {
        ("", _) | (_, false) => "-".into(),
        (test, true) => alloc::format!("`{test}` in `{}`", row.file),
    };
    let (code, name) = (row.code, row.name);
    let _ = writeln!(
        page,
        "| {code:02x}h | {name} | {need} | {} | {} | {test} |",
        word(io),
        word(discovery)
    );
}

const HEAD: &str = "\
# NVMe conformance

What a host may ask of a target here, and what it is answered. This page is made of the code by
`cargo xtask docs`: whether something is supported was asked of a controller, not written down.
*Mandatory* and *optional* are those of a controller that does I/O over fabrics (NVMe Base 1.4 and
2.0); what is not supported is answered with Invalid Command Opcode, Invalid Field or Invalid Log
Page, and Do Not Retry.
";

const TAIL: &str = "
## What is not so usual

* The version is 1.4: hosts ask for nothing of 2.0 that would be missing. Identify CNS 08h is
  answered all the same.
* Deleting a queue is closing its connection; there is no Disconnect.
* A discovery log has only the entries of the portal that it is read by, if the host asks for that
  (LSP bit 1); it has no extended entries, and tells nobody of what only others may see.
* Reading the last of several parts of a discovery log counts as having read it, whatever RAE says.
* Explicit registration with a discovery controller is an opcode that there is not: its data is
  taken, and the host is heard on.
* A namespace comes and goes by the management of its engine, not by Namespace Management.
";
