//! What people write for sizes, times and switches: on the command line, in a URI and in TOML.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Visitor};

/// A number of bytes: `4096`, `64KiB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("'{text}' is not a size; write 4096, 64KiB, 256MiB or 1GiB"))
    }
}

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 5] =
            [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
        let whole =
            |&&(_, shift): &&(&str, u32)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift);
        let (unit, shift) = UNITS.iter().find(whole).copied().unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// A length of time: `10s`, `250ms`, `50us`, `2m`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => f64::NAN,
        };
        number
            .parse::<f64>()
            .ok()
            .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a time; write 10s, 250ms or 2m"))
    }
}

/// An IP address and a TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("'{text}' is not an address and port; write 127.0.0.1:4420 or [::1]:4420")
        })
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "1" | "true" | "yes" => Ok(Self(true)),
            "off" | "0" | "false" | "no" => Ok(Self(false)),
            _ => Err(format!("'{text}' is neither on nor off")),
        }
    }
}

/// Reads a value that TOML gives as text, number or truth value by what the text means.
///
/// # Errors
/// What the text is not.
pub fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    deserializer.deserialize_any(TextVisitor(PhantomData))
}

/// Makes types that are read from a command line readable from TOML alike.
#[macro_export]
macro_rules! deserialize_from_text {
    ($($kind:ty),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::quantity::from_text(deserializer)
            }
        }
    )*};
}

deserialize_from_text!(Bytes, Period, Address, Switch);

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_in_binary_units() {
        for (text, bytes, printed) in [
            ("4096", 4096, "4KiB"),
            ("256MiB", 256 << 20, "256MiB"),
            ("1.5GiB", 1536 << 20, "1536MiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("0", 0, "0B"),
        ] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
        }
        assert!("much".parse::<Bytes>().unwrap_err().contains("64KiB"));
        assert!("".parse::<Bytes>().is_err());
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, micros) in [
            ("10s", 10_000_000),
            ("10", 10_000_000),
            ("250ms", 250_000),
            ("50us", 50),
            ("2m", 120_000_000),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().0, Duration::from_micros(micros), "{text}");
        }
        for text in ["", "s", "10parsecs", "-1s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_say_what_they_should_be() {
        assert!("[::1]:4420".parse::<Address>().is_ok());
        assert!("localhost".parse::<Address>().unwrap_err().contains("127.0.0.1:4420"));
    }
}
