//! What another implementation comes to: keys, values of groups and answers that were computed by
//! Python's `hmac`, `hashlib`, `zlib` and `pow`, of exponents 1 2 3 .. and 101 102 103 ..

use alloc::format;
use alloc::string::String;

use super::group::{EXPONENT_BYTES, Exponent};
use super::response::{Claim, Prover, augment};
use super::{Group, Hash, Names, Secret, SecretError};
use crate::connect::Nqn;

struct Vector {
    hash: Hash,
    group: Group,
    host: &'static str,
    controller: &'static str,
    /// Of the host and the controller.
    answers: [&'static str; 2],
    /// The first 8 bytes of what each tells of its exponent.
    publics: [&'static str; 2],
}

const VECTORS: [Vector; 4] = [
    Vector {
        hash: Hash::Sha256,
        group: Group::Null,
        host: "DHHC-1:01:EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi9A/ow7:",
        controller: "DHHC-1:01:yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5ufLkDyH:",
        answers: [
            "771bc79712242b0759f5aed3973be4193528affe72fe2fb955bbd06f7356e25d",
            "d7f1ed614619b9150b9c67cbe041e79b236622e097b19672bd3a6fa0612eb218",
        ],
        publics: ["", ""],
    },
    Vector {
        hash: Hash::Sha384,
        group: Group::Ffdhe2048,
        host: concat!(
            "DHHC-1:02:ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xN",
            "Tk9Qyo7tbg==:",
        ),
        controller: concat!(
            "DHHC-1:02:yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5ufo6err7O3u7/Dx8vP0",
            "9fb3szCTtg==:",
        ),
        answers: [
            concat!(
                "027031df0eef11bbda43a9a5f5dd09ff347b09c54a2458f2951a9eb27e8f3df2",
                "bc94895982f9711a1cb46da7e684f14b",
            ),
            concat!(
                "b7309ee83bac965e6434b0af4331e16a9c90e0ad56957184797223153cbbd5da",
                "d294fc00d4032bcef2ea699654be326b",
            ),
        ],
        publics: ["a48505255eff3780", "186d5121bda1f2d7"],
    },
    Vector {
        hash: Hash::Sha512,
        group: Group::Ffdhe3072,
        host: concat!(
            "DHHC-1:03:MjM0NTY3ODk6Ozw9Pj9AQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1e",
            "X2BhYmNkZWZnaGlqa2xtbm9wcfBEbLg=:",
        ),
        controller: concat!(
            "DHHC-1:03:yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5ufo6err7O3u7/Dx8vP0",
            "9fb3+Pn6+/z9/v8AAQIDBAUGB24FqBs=:",
        ),
        answers: [
            concat!(
                "9b786b487cf845a199201181142b0cb75944d7066d81b144d9cf8d6d8054bcb6",
                "61d52d12c9c381aed674dee327b1602684abf45a1ba35b70e86219b9ca363e76",
            ),
            concat!(
                "d54a70e9e0dd87219b1238ba5147429df2dc75a50d0a085415b6cf4ae21c7d89",
                "0f48cb92e14e7855ed546c3cf98af5a9d0aa76de3279c6c68c803c0cb824dd1c",
            ),
        ],
        publics: ["a6107144f4c7b5ed", "79dc4cbc86449806"],
    },
    Vector {
        hash: Hash::Sha256,
        group: Group::Ffdhe4096,
        host: "DHHC-1:00:ExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTJjyBkh:",
        controller: "DHHC-1:00:yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5ufLkDyH:",
        answers: [
            "f49b49c159ad50d326b6bb7b9dde621534be94df85ab0827449c0204a6f2ab39",
            "6feded3f470152e093dbb54bbbe856c759a1ea93205cffa7a37f5cfd335e9545",
        ],
        publics: ["967dfd0b7ac7116a", "650c69d5fa0d0be3"],
    },
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn answers_are_those_of_another_implementation() {
    let host = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:2cd2c43b-a90a-45c1-a8cd-86b33ab273b5");
    let subsystem = Nqn::parse("nqn.2026-01.io.braid:vectors");
    let (host, subsystem) = (host.unwrap(), subsystem.unwrap());
    let names = Names { host: &host, subsystem: &subsystem };
    let ours: Exponent = core::array::from_fn(|at| 1 + at as u8);
    let theirs: Exponent = core::array::from_fn(|at| 101 + at as u8);
    assert_eq!(EXPONENT_BYTES, 48);
    for vector in VECTORS {
        let Vector { hash, group, .. } = vector;
        let [first, second] = [group.public(&ours), group.public(&theirs)];
        let told = [&first, &second].map(|value| hex(&value[..value.len().min(8)]));
        assert_eq!(told, vector.publics);
        let shared = group.shared(&ours, &second).unwrap();
        let asks = [
            (Prover::Host, vector.host, &host, 0xc1, 0x0102_0304),
            (Prover::Controller, vector.controller, &subsystem, 0xc2, 0x0a0b_0c0d),
        ];
        for ((prover, key, owner, byte, sequence), answer) in asks.into_iter().zip(vector.answers) {
            let challenge = augment(hash, &[byte; 64][..hash.bytes()], &shared);
            let claim = Claim { hash, challenge, sequence, t_id: 0x4321, prover, names };
            let key = Secret::parse(key).unwrap().transformed(owner);
            assert_eq!(hex(&claim.answer(&key)), answer, "{hash:?} {group:?} {prover:?}");
            assert!(claim.is_answered(&key, &claim.answer(&key)));
            assert!(!claim.is_answered(&key[1..], &claim.answer(&key)));
        }
    }
}

#[test]
fn a_key_that_was_not_copied_whole_and_right_is_refused_and_never_shown() {
    let good = VECTORS[0].host;
    assert!(Secret::parse(good).is_ok());
    assert_eq!(format!("{:?}", Secret::parse(good)), "Ok(Secret { .. })");
    let long = VECTORS[1].host;
    let rows = [
        (String::from(&good[..good.len() - 1]), SecretError::Form),
        (good.replace("DHHC-1", "DHHC-2"), SecretError::Form),
        (good.replace(":01:", ":04:"), SecretError::Transform),
        (good.replace(":01:", ":1:"), SecretError::Transform),
        (good.replace("EBES", "EB*S"), SecretError::Encoding),
        (good.replace("EBES", "EBET"), SecretError::Checksum),
        (good.replace("EBES", ""), SecretError::Length),
        (format!("{}{}:", &long[..long.len() - 3], &long[11..]), SecretError::Encoding),
        (String::from("DHHC-1:00::"), SecretError::Length),
    ];
    for (text, error) in rows {
        assert_eq!(Secret::parse(&text), Err(error), "{text}");
    }
}
