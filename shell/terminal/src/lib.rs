//! What our programs share where people meet them: one line for what went wrong, tables or JSON or
//! YAML for what was asked, sizes and times as they are written, a log that holds nobody up.
#![forbid(unsafe_code)]

pub mod call;
pub mod confirm;
pub mod error;
pub mod log;
pub mod output;
pub mod quantity;
pub mod table;

pub use error::{Error, Kind, Result};
