//! The wire vocabulary: generated from `proto/engine.proto`, the management of an engine, and
//! `proto/control.proto`, the control plane. They document every call, its errors and the units of
//! every field. No logic.
#![forbid(unsafe_code)]

/// The management of an engine. Version 1: fields may be added, none is changed or taken away.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated; what the calls and fields mean stands in the .proto"
)]
pub mod v1 {
    tonic::include_proto!("braid.engine.v1");
}

/// The control plane. Version 1: fields may be added, none is changed or taken away.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated; what the calls and fields mean stands in the .proto"
)]
pub mod control {
    tonic::include_proto!("braid.control.v1");
}
