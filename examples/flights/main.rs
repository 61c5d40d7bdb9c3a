//! Flights: a three-node cluster of event-sourced aircraft that loses nothing when a node is killed.
//!
//! ```text
//! cargo run --release --example flights
//! ```
//!
//! Starts three processes of itself on loopback, which form a cluster and shard aircraft over
//! themselves; replays a month of real flights as commands; kills a node on the way, starts it again;
//! compares every aircraft with a plain scan of the file. The end of its output:
//!
//! ```text
//! exact: 3148 aircraft as in the file
//!   commands acknowledged              26,849
//!   retried                               131
//!   lost                                    0
//!   counted twice                           0
//!   ..
//! ```
//!
//! `docs/flights.md` explains every line. The exit status is 0 only if the comparison is exact.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod aircraft;
mod compare;
mod fault;
mod flight;
mod http;
mod input;
mod latency;
mod node;
mod options;
mod processes;
mod replay;
mod report;
mod run;
mod show;
mod table;
mod tally;
mod view;
mod window;

use std::process::ExitCode;

use clap::Parser;
use options::{Options, Role};
use tracing_subscriber::EnvFilter;

/// Wrong options or input: nothing was started.
const EXIT_USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = options.check() {
        eprintln!("flights: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,otava=info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    logs.with_writer(std::io::stderr).with_ansi(false).init();
    let (name, result) = match options.role {
        Some(Role::Node(options)) => (options.name.clone(), node::run(options).await),
        None => {
            let input = match input::read(&options.run.input_file()) {
                Ok(input) => input,
                Err(error) => {
                    eprintln!("flights: {error}");
                    return ExitCode::from(EXIT_USAGE);
                }
            };
            ("flights".to_owned(), run::run(options.run, input).await)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("{name}: {error}");
        ExitCode::FAILURE
    })
}
