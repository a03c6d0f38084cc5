//! Answers as tables for people, as JSON or YAML for programs.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::quantity::Bytes;
use crate::table;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs, and people who edit.
    Yaml,
}

/// Prints a result. Whoever closed our stdout did not want the rest.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// One thing of an answer: a row of a table, an object with the same facts and more.
pub trait Row: Serialize {
    /// The columns' names.
    const HEAD: &'static [&'static str];

    /// The columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints several things; programs find them below `key`.
///
/// # Errors
/// Never, unless an encoder fails.
pub fn list<T: Row>(format: Format, key: &str, things: &[T]) -> Result<()> {
    let text = match format {
        Format::Table => rows(things),
        Format::Json | Format::Yaml => encoded(format, &serde_json::json!({ key: things }))?,
    };
    print(&text);
    Ok(())
}

/// Prints one thing.
///
/// # Errors
/// Never, unless an encoder fails.
pub fn one<T: Row>(format: Format, thing: &T) -> Result<()> {
    let text = match format {
        Format::Table => rows(std::slice::from_ref(thing)),
        Format::Json | Format::Yaml => encoded(format, thing)?,
    };
    print(&text);
    Ok(())
}

/// Prints that something was done, for people; programs get an object that says so.
///
/// # Errors
/// Never, unless an encoder fails.
pub fn done(format: Format, sentence: &str) -> Result<()> {
    let text = match format {
        Format::Table => format!("{sentence}\n"),
        Format::Json | Format::Yaml => encoded(format, &serde_json::json!({ "done": sentence }))?,
    };
    print(&text);
    Ok(())
}

/// As one line of JSON, or a document of YAML, for a stream.
///
/// # Errors
/// Never, unless an encoder fails.
pub fn piece(format: Format, thing: &impl Serialize) -> Result<String> {
    match format {
        Format::Json | Format::Table => {
            serde_json::to_string(thing).map(|text| text + "\n").map_err(failed)
        }
        Format::Yaml => Ok(format!("---\n{}", encoded(format, thing)?)),
    }
}

/// As JSON, or as YAML if that is the format.
///
/// # Errors
/// Never, unless an encoder fails.
pub fn encoded(format: Format, thing: &impl Serialize) -> Result<String> {
    match format {
        Format::Yaml => {
            let text = serde_saphyr::to_string(thing).map_err(failed)?;
            Ok(if text.ends_with('\n') { text } else { text + "\n" })
        }
        Format::Json | Format::Table => {
            serde_json::to_string_pretty(thing).map(|text| text + "\n").map_err(failed)
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::run(format!("cannot print the answer: {error}"))
}

fn rows<T: Row>(things: &[T]) -> String {
    let head: Vec<_> = T::HEAD.iter().map(ToString::to_string).collect();
    let rows: Vec<_> = std::iter::once(head).chain(things.iter().map(Row::cells)).collect();
    table::render(&rows)
}

/// A size as people read it: three digits and a unit, exact where that is short.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let exact = Bytes(bytes).to_string();
    if exact.len() <= 6 {
        return exact;
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}{unit}")
}

/// Seconds since 1970 as a date and a time, UTC.
#[must_use]
pub fn moment(unix_s: u64) -> String {
    let (day, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date of a day since 1970-01-01. Years are counted from March on, so that a leap day is the
/// last of its year; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn date(day: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let day = day + 719_468;
    let (era, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (64 << 20, "64MiB"),
            (10 << 40, "10TiB"),
            (1_234_567, "1.18MiB"),
            (123_456_789, "118MiB"),
            (12_345_678_901, "11.5GiB"),
            ((1 << 30) - 4096, "1.00GiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn moments_are_dates() {
        for (second, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (1_798_761_599, "2026-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(moment(second), text);
        }
    }

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        value: u64,
    }

    #[test]
    fn programs_read_back_what_is_printed() {
        let thing = Thing { name: "no: yes", value: 7 };
        let yaml = encoded(Format::Yaml, &thing).unwrap();
        assert_eq!(yaml, "name: \"no: yes\"\nvalue: 7\n");
        let json = encoded(Format::Json, &thing).unwrap();
        assert_eq!(json, "{\n  \"name\": \"no: yes\",\n  \"value\": 7\n}\n");
        assert_eq!(piece(Format::Json, &thing).unwrap(), "{\"name\":\"no: yes\",\"value\":7}\n");
    }
}
