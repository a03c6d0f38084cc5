//! `braid-bench`: measures an engine of the same build. `cargo xtask bench target` runs it.
#![forbid(unsafe_code)]

mod direct;
mod fio;
mod framing;
mod load;
mod loopback;
mod machine;
mod measure;
mod pool;
mod rows;
mod table;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use machine::Setup;
use table::Row;
use wire::Controller;

#[derive(Parser)]
#[command(name = "braid-bench", about = "Measures an engine of the same build")]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures the target and prints a table
    Target(Options),
    /// Measures a pool and prints a table
    Pool(PoolOptions),
    /// Measures replicated volumes and prints a table; in a network namespace of its own
    Nexus(NexusOptions),
    /// Loads a target for a while: for profilers, and to compare other targets
    Load(LoadOptions),
    /// Serves the bare wire, for `target`
    #[command(hide = true)]
    Framing,
    /// Drives a shard on a file without TCP, for `target`
    #[command(hide = true)]
    Shard { file: PathBuf },
    /// Makes a pool, for `pool`
    #[command(hide = true)]
    PoolMake {
        file: PathBuf,
        #[command(flatten)]
        how: pool::How,
    },
    /// Drives a pool without TCP, for `pool`
    #[command(hide = true)]
    PoolServe {
        file: PathBuf,
        #[command(flatten)]
        how: pool::How,
    },
    /// Makes a pool with so many bytes mapped that keeps no data, for `pool`
    #[command(hide = true)]
    PoolMap { file: PathBuf, bytes: u64 },
    /// Opens that and has all of its maps in memory, for `pool`
    #[command(hide = true)]
    PoolLoad { file: PathBuf },
}

#[derive(clap::Args)]
struct Options {
    /// What to measure
    #[arg(value_name = "ROW", default_values = ["p1", "p2", "p3", "p6", "p10"])]
    rows: Vec<Which>,
    /// The engine's binary
    #[arg(long, default_value = "braid-engine")]
    engine: PathBuf,
    /// CPU of what serves; the rest stays where it was started
    #[arg(long, default_value_t = 0)]
    cpu: u32,
    /// Folder for the file that is measured
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Slices of 250 ms in each comparison, both sides together
    #[arg(long, default_value_t = 60)]
    slices: usize,
    /// Seconds that the idle engine is watched
    #[arg(long, default_value_t = 12)]
    idle: u64,
    /// How the result is printed
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct PoolOptions {
    /// What to measure; all of it if nothing is named
    #[arg(value_name = "ROW")]
    rows: Vec<rows::pool::Which>,
    /// Only rows in whose name this occurs
    #[arg(long, default_value = "")]
    only: String,
    /// GiB in use of each replica
    #[arg(long, default_value_t = 1)]
    gib: u64,
    /// CPU of what serves; the rest stays where it was started
    #[arg(long, default_value_t = 0)]
    cpu: u32,
    /// Folder for the file that is measured
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Folder in memory for sparse files of any size
    #[arg(long, default_value = "/dev/shm")]
    memory: PathBuf,
    /// Slices of 500 ms in each comparison, two sides together
    #[arg(long, default_value_t = 20)]
    slices: usize,
    /// How the result is printed
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct NexusOptions {
    /// What to measure; all of it if nothing is named
    #[arg(value_name = "ROW")]
    rows: Vec<rows::nexus::Which>,
    /// Where braid-engine and braid-control are
    #[arg(long)]
    binaries: PathBuf,
    /// Folder for the files of the pools
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Slices of 250 ms in each comparison of two sides, both together
    #[arg(long, default_value_t = 60)]
    slices: usize,
    /// GiB of the volume whose engines and replicas are lost
    #[arg(long, default_value_t = 10)]
    gib: u64,
    /// Times that an engine is killed, that one is cut off, and that a replica is made anew
    #[arg(long, default_value_t = 5)]
    losses: usize,
    /// How the result is printed
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct LoadOptions {
    /// Where the target listens
    address: SocketAddr,
    /// Read or write
    #[arg(value_enum)]
    way: load::Way,
    /// Commands in flight
    depth: u16,
    /// For how long
    seconds: u64,
    /// The subsystem
    #[arg(long, default_value = wire::NQN)]
    nqn: String,
    /// 4 KiB blocks of namespace 1 to use
    #[arg(long, default_value_t = 65536)]
    blocks: u64,
    /// Connect to the bare wire instead
    #[arg(long)]
    bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Latency at depth 1 by way of waiting
    P1,
    /// The target beside the bare wire; P5 comes with it
    #[value(alias = "p5")]
    P2,
    /// A file beside fio
    P3,
    /// Idle CPU and memory
    P6,
    /// A quiet connection beside a loud one
    P10,
}

fn main() -> ExitCode {
    let done = match Line::parse().task {
        Task::Target(options) => target(&options),
        Task::Pool(options) => pool_rows(options),
        Task::Nexus(options) => nexus_rows(options),
        Task::Load(options) => load(&options),
        Task::Framing => framing::serve(),
        Task::Shard { file } => direct::serve(&file),
        Task::PoolMake { file, how } => pool::make(&file, &how),
        Task::PoolServe { file, how } => pool::serve(&file, &how),
        Task::PoolMap { file, bytes } => pool::map(&file, bytes),
        Task::PoolLoad { file } => pool::load(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("braid-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn target(options: &Options) -> io::Result<()> {
    let setup = Setup {
        engine: options.engine.clone(),
        cpu: options.cpu,
        folder: options.folder.clone(),
        slices: options.slices,
        idle: options.idle,
    };
    print(options.output, |told| {
        options.rows.iter().try_for_each(|which| measure(*which, &setup, told))
    })
}

fn pool_rows(options: PoolOptions) -> io::Result<()> {
    let setup = Setup {
        engine: PathBuf::new(),
        cpu: options.cpu,
        folder: options.folder,
        slices: options.slices,
        idle: 0,
    };
    let which = match options.rows {
        rows if rows.is_empty() => rows::pool::Which::value_variants().to_vec(),
        rows => rows,
    };
    let PoolOptions { only, gib, memory, .. } = options;
    let wanted = rows::pool::Wanted { which, only, gib, memory };
    print(options.output, |told| rows::pool::rows(&setup, &wanted, told))
}

fn nexus_rows(options: NexusOptions) -> io::Result<()> {
    let NexusOptions { rows, binaries, folder, slices, gib, losses, output } = options;
    let which = match rows {
        rows if rows.is_empty() => rows::nexus::Which::value_variants().to_vec(),
        rows => rows,
    };
    let wanted = rows::nexus::Wanted { which, binaries, folder, slices, gib, losses };
    print(output, |told| rows::nexus::rows(&wanted, told))
}

/// Prints rows as they are measured, or all of them at the end, and what was found.
fn print(
    output: Output,
    measured: impl FnOnce(&mut dyn FnMut(Row)) -> io::Result<()>,
) -> io::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    let show = output == Output::Table;
    if show {
        println!("{}", table::head());
    }
    measured(&mut |row| {
        if show {
            println!("{}", row.line());
        }
        rows.push(row);
    })?;
    if !show {
        let list: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{}", serde_json::json!({ "rows": list, "found": table::summary(&rows) }));
        return Ok(());
    }
    println!("{}", table::summary(&rows));
    Ok(())
}

fn load(options: &LoadOptions) -> io::Result<()> {
    let LoadOptions { way, depth, blocks, .. } = *options;
    let mut held = None;
    let stream = if options.bare {
        TcpStream::connect(options.address)?
    } else {
        let new = Controller::connect(options.address, &options.nqn, 1, Duration::ZERO)?;
        held.insert(new).queue(1)?
    };
    let mut load = load::Load::new(stream, way, 1, depth, blocks);
    load.watch();
    let (done, took) = load.run(Duration::from_secs(options.seconds))?;
    let micros = |part| {
        load.latency.as_ref().map_or(0.0, |l| measure::count(l.value_at_quantile(part)) / 1e3)
    };
    println!(
        "{} IOPS, latency p50 {:.1} us, p99 {:.1} us",
        u128::from(done) * 1_000_000 / took.as_micros().max(1),
        micros(0.5),
        micros(0.99)
    );
    Ok(())
}

fn measure(which: Which, setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    match which {
        Which::P1 => rows::polling::rows(setup, told),
        Which::P2 => rows::wire::rows(setup, told),
        Which::P3 => rows::disk::rows(setup, told),
        Which::P6 => rows::idle::rows(setup, told),
        Which::P10 => rows::neighbour::rows(setup, told),
    }
}
