//! `braid-engine serve`: from options to a running engine and to its end.

pub mod backend;
pub mod config;
pub mod engine;
pub mod exporter;
pub mod file;
pub mod holder;
pub mod identity;
pub mod injection;
pub mod keys;
pub mod metrics;
pub mod namespaces;
pub mod notes;
pub mod options;
pub mod plan;
pub mod pools;
pub mod ready;
pub mod reload;
pub mod server;
pub mod signature;
pub mod snapshot;
pub mod state;
pub mod teller;
pub mod threads;
pub mod uri;
pub mod usage;
pub mod volumes;
pub mod wiring;

pub use braid_terminal::log;
pub use options::Options;

use crate::error::Result;

/// What `serve --help` teaches below the list of options.
pub const HELP: &str = "\
Namespaces:
  mem:SIZE                  memory of this process, gone with it
  file:/PATH?size=SIZE      a file; made when it is not there and a size is given
  /dev/NAME, dev:/PATH      a block device
  pool:/PATH                a pool: each of its replicas becomes a subsystem of its own
 with options behind a question mark, joined by &:
  block=512|4096            logical block size (see --block-size)
  uuid=UUID  nguid=HEX      identity; derived from the URI and this machine's id if not given
  nsid=N                    namespace id; the first free one if not given
  sparse=1                  file: take space when it is written, give it back on discard
  prefill=1                 file: write all of it once when it is made (for benchmarks)
  force=1                   device: as --force, for this one
  inject=OPERATION,FAULT[,RANGE[,COUNT]]   with --allow-injection, repeatable:
                            read|write|flush, error|stall|corrupt|delay:TIME,
                            OFFSET+LENGTH|all, a number|always
  lose-unflushed=1          with --allow-injection: lose what was not flushed when killed

Of a pool:
  uuid=UUID                 the identity that is expected there
  share=all|none            whether its replicas are shared at once [default: all]

Discovery:
  Each --listen is also a discovery service. It tells a host of the subsystems that it may connect
  to, at the addresses that it can reach: one that came from outside hears of no loopback address,
  0.0.0.0 and [::] are the address that it came to. Of a volume it tells the paths by other engines
  too, as the control plane knows them; --referral names other discovery services. Hosts that stay
  connected are told of every change.

While it runs, the commands pool, replica, snapshot, namespace, scrub, device, ana, fault, events
and status manage it over its socket.

Signals:
  SIGTERM, SIGINT           orderly stop: commands in flight finish, hosts see an orderly close;
                            a second one, or the end of --drain, ends it at once
  SIGHUP                    read --config and --host-keys again: the log level and the keys
                            change while it runs

A line 'braid-engine: ready nqn=NQN listen=ADDR:PORT[,..] namespaces=N' on stdout, and systemd's
READY=1, say that hosts can connect.

Examples:
  braid-engine serve mem:256MiB
  braid-engine serve pool:/var/lib/braid/pool1 pool:/dev/sdb
  braid-engine serve 'file:/var/lib/braid/disk1?size=1GiB' --nqn nqn.2026-01.io.braid:disk1 \\
      --listen 0.0.0.0:4420 --listen '[::]:4420' --metrics 127.0.0.1:9420
  braid-engine serve /dev/sdb --allow-host nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-...
  braid-engine serve 'mem:64MiB?inject=read,error,1MiB+4KiB,3' --allow-injection
  braid-engine serve --config /etc/braid/engine.toml

A configuration file:
  listen = [\"0.0.0.0:4420\"]
  metrics = \"127.0.0.1:9420\"
  [[subsystem]]
  nqn = \"nqn.2026-01.io.braid:a\"
  namespaces = [\"file:/var/lib/braid/a?size=1GiB\"]
  [[subsystem]]
  nqn = \"nqn.2026-01.io.braid:b\"
  namespaces = [\"/dev/sdb\", \"/dev/sdc\"]
  allow-host = [\"nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427\"]";

/// Serves until it is told to stop.
///
/// # Errors
/// When the options make no sense or the machine does not allow it.
pub fn serve(line: Options) -> Result<()> {
    let options = file::under(line.clone())?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = u16::try_from(cpus).unwrap_or(u16::MAX);
    let plan = plan::Plan::new(options, &identity::machine(), cpus)?;
    let log = log::start(plan.log, plan.log_format);
    let result = engine::run(&plan, line, log.clone());
    log.flush();
    result
}
