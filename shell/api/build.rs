//! Generates Rust from the `.proto`, without a protoc.
#![forbid(unsafe_code)]

fn main() {
    const PROTOS: [&str; 2] = ["proto/control.proto", "proto/engine.proto"];
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={proto}");
    }
    let files = protox::compile(PROTOS, ["proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    tonic_prost_build::configure()
        .compile_fds(files)
        .unwrap_or_else(|error| panic!("cannot write the generated code: {error}"));
}
