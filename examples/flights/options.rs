//! Options: what the command line asks for, checked before anything is read or started.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Replays real flights into a cluster of event-sourced aircraft, kills a node on the way, and
/// compares every aircraft with a plain scan of the file.
#[derive(Debug, Parser)]
#[command(name = "flights", args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// What else the program can be.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Run one node; the parent starts its nodes this way, and so can you.
    Node(NodeOptions),
}

/// The options of the parent.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Flights as csv or csv.gz [default: examples/data/flights-2013-01.csv.gz].
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// How many node processes to start.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) nodes: u32,
    /// Which process dies by SIGKILL at about a third of the replay.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Kill::Worker)]
    pub(crate) kill: Kill,
    /// Write the state of every aircraft as csv, sorted by tail number.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Add the closing figures to a file, as one JSON object a run.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// Keep journal, certificates and logs here [default: a temporary folder, removed at the end
    /// unless something failed].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Keep the nodes up after the replay until Ctrl-C, then leave gracefully.
    #[arg(long)]
    pub(crate) serve: bool,
    /// Commands in flight at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: u32,
    /// Where the first node listens for its peers; each further node takes the next port
    /// [default: free ports on 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the first node answers HTTP; each further node takes the next port
    /// [default: free ports on 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
}

/// The options of one node.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeOptions {
    /// Its name, which its certificate is made for.
    #[arg(long, value_name = "NAME", default_value = "node-1")]
    pub(crate) name: String,
    /// Where it listens for its peers (QUIC).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001")]
    pub(crate) listen: SocketAddr,
    /// Where it answers HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8001")]
    pub(crate) http: SocketAddr,
    /// Nodes to join through, the first of which may form the cluster; may be repeated
    /// [default: itself].
    #[arg(long = "seed", value_name = "ADDR")]
    pub(crate) seeds: Vec<SocketAddr>,
    /// The folder that all nodes of this machine share: journal and certificates.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Leave when standard input ends, so that no node outlives the process that started it.
    #[arg(long, hide = true)]
    pub(crate) end_with_stdin: bool,
}

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Kill {
    /// Nobody.
    None,
    /// A node that is not the coordinator.
    Worker,
    /// The oldest node, where the shard coordinator lives.
    Coordinator,
}

impl Kill {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Worker => "WORKER",
            Self::Coordinator => "COORDINATOR",
        }
    }
}

impl Options {
    /// Checks what the single options cannot check alone.
    pub(crate) fn check(&self) -> Result<(), String> {
        let run = &self.run;
        if run.kill != Kill::None && run.nodes < 3 {
            return Err(format!(
                "--kill {} needs at least 3 nodes, or the rest is no majority: use --kill NONE",
                run.kill.name()
            ));
        }
        for (name, address) in [("--listen", run.listen), ("--http", run.http)] {
            let Some(address) = address else { continue };
            let last = u32::from(address.port()) + run.nodes - 1;
            if address.port() == 0 || last > u32::from(u16::MAX) {
                return Err(format!(
                    "{name} {address}: needs {} ports from here on",
                    run.nodes
                ));
            }
        }
        Ok(())
    }
}

impl RunOptions {
    /// The file to replay.
    pub(crate) fn input_file(&self) -> PathBuf {
        self.input.clone().unwrap_or_else(|| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights-2013-01.csv.gz")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("flights").chain(line.split_whitespace());
        let options = Options::try_parse_from(words).map_err(|error| error.to_string())?;
        options.check()?;
        Ok(options)
    }

    #[test]
    fn defaults_are_three_nodes_and_a_dying_worker() {
        let options = parse("").unwrap();
        assert!(options.role.is_none());
        assert_eq!((options.run.nodes, options.run.kill), (3, Kill::Worker));
        assert!(
            options
                .run
                .input_file()
                .ends_with("examples/data/flights-2013-01.csv.gz")
        );
    }

    #[test]
    fn a_kill_needs_a_majority_that_survives() {
        assert!(
            parse("--nodes 2")
                .unwrap_err()
                .contains("needs at least 3 nodes")
        );
        assert!(parse("--nodes 1 --kill none").is_ok());
        assert!(parse("--nodes 0 --kill NONE").is_err());
        assert!(
            parse("--kill EVERYBODY")
                .unwrap_err()
                .contains("COORDINATOR")
        );
        assert!(
            parse("--listen 127.0.0.1:65534")
                .unwrap_err()
                .contains("needs 3 ports")
        );
    }

    #[test]
    fn a_node_is_told_where_and_what() {
        let options = parse("node --name n --listen 127.0.0.1:1 --seed 127.0.0.1:2 --data /d");
        let Some(Role::Node(node)) = options.unwrap().role else {
            panic!("no node")
        };
        assert_eq!((node.name.as_str(), node.seeds.len()), ("n", 1));
        assert!(parse("node").is_err(), "a node needs its folder");
    }
}
