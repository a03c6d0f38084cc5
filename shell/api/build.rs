//! Generates Rust from the `.proto`, without a protoc.
#![forbid(unsafe_code)]

fn main() {
    const PROTO: &str = "proto/engine.proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    tonic_prost_build::configure()
        .compile_fds(files)
        .unwrap_or_else(|error| panic!("cannot write the generated code: {error}"));
}
