//! Faults as text: `read,error,1MiB+64KiB,3`.

use braid_shard::{Fault, Injection, Operation};

use crate::quantity::{Bytes, Period};

/// What an injection looks like, for messages and help.
pub const FORM: &str = "OPERATION,FAULT[,RANGE[,COUNT]], such as write,error or \
                        read,delay:20ms,1MiB+64KiB,10";

/// Reads an injection.
///
/// The operation is `read`, `write` or `flush`; the fault is `error`, `stall`, `delay:TIME` or
/// `corrupt`; the range is `OFFSET+LENGTH` in bytes or `all`; the count is a number or `always`.
///
/// # Errors
/// One line that names the part that is wrong.
pub fn parse(text: &str) -> Result<Injection, String> {
    let mut parts = text.split(',');
    let operation = operation(parts.next().unwrap_or_default())?;
    let fault = fault(parts.next().ok_or_else(|| format!("a fault is missing: {FORM}"))?)?;
    let (offset, len) = range(parts.next().unwrap_or("all"))?;
    let count = count(parts.next().unwrap_or("always"))?;
    if let Some(rest) = parts.next() {
        return Err(format!("'{rest}' is too much: {FORM}"));
    }
    if fault == Fault::Corrupt && operation == Operation::Flush {
        return Err("a flush carries no data to corrupt".into());
    }
    Ok(Injection { operation, fault, offset, len, count })
}

fn operation(text: &str) -> Result<Operation, String> {
    match text {
        "read" => Ok(Operation::Read),
        "write" => Ok(Operation::Write),
        "flush" => Ok(Operation::Flush),
        _ => Err(format!("'{text}' is not read, write or flush: {FORM}")),
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("error", "") => Ok(Fault::Error),
        ("stall", "") => Ok(Fault::Stall),
        ("corrupt", "") => Ok(Fault::Corrupt),
        ("delay", "") => Err("say how long: delay:20ms".into()),
        ("delay", time) => time.parse().map(|Period(time)| Fault::Delay(time)),
        _ => Err(format!("'{text}' is not error, stall, delay:TIME or corrupt: {FORM}")),
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    if text == "all" {
        return Ok((0, u64::MAX));
    }
    let wrong = || format!("'{text}' is not a range: OFFSET+LENGTH in bytes, or all");
    let (offset, len) = text.split_once('+').ok_or_else(wrong)?;
    match (offset.parse::<Bytes>(), len.parse::<Bytes>()) {
        (Ok(offset), Ok(len)) if len.0 > 0 && offset.0.checked_add(len.0).is_some() => {
            Ok((offset.0, len.0))
        }
        _ => Err(wrong()),
    }
}

fn count(text: &str) -> Result<u32, String> {
    match text {
        "always" => Ok(u32::MAX),
        _ => text
            .parse()
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| format!("'{text}' is not a count: a number from 1, or always")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn operation_and_fault_alone_hit_everything_for_ever() {
        let injection = parse("write,error").unwrap();
        assert_eq!((injection.operation, injection.fault), (Operation::Write, Fault::Error));
        assert_eq!((injection.offset, injection.len, injection.count), (0, u64::MAX, u32::MAX));
    }

    #[test]
    fn a_delay_a_range_and_a_count_are_read() {
        let injection = parse("read,delay:20ms,1MiB+4KiB,3").unwrap();
        assert_eq!(injection.fault, Fault::Delay(Duration::from_millis(20)));
        assert_eq!((injection.offset, injection.len, injection.count), (1 << 20, 4096, 3));
    }

    #[test]
    fn each_wrong_part_is_named() {
        for (text, named) in [
            ("", "'' is not read"),
            ("trim,error", "'trim'"),
            ("read", "a fault is missing"),
            ("read,panic", "'panic'"),
            ("read,delay", "delay:20ms"),
            ("read,delay:soon", "'soon'"),
            ("read,error,5", "'5' is not a range"),
            ("read,error,0+0", "'0+0' is not a range"),
            ("read,error,all,0", "'0' is not a count"),
            ("read,error,all,1,2", "'2' is too much"),
            ("flush,corrupt", "no data"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
