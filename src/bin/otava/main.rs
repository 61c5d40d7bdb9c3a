//! Command: `otava`, what an operator of a cluster runs from a shell.
//!
//! ```text
//! $ cargo install otava --features cli
//! $ otava cert authority --out authority
//! $ otava cert node --name node-1 --role worker --authority authority --out node-1
//! $ otava cert show node-1/certificate.pem
//! ```

mod cert;
mod write;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Tools for clusters of Otava nodes.
#[derive(Parser)]
#[command(name = "otava", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes and shows certificates.
    #[command(subcommand)]
    Cert(cert::Command),
}

fn main() -> ExitCode {
    let Command::Cert(command) = Arguments::parse().command;
    match cert::run(&command) {
        Ok(told) => {
            // Whoever closed the pipe does not want to know.
            let _ = std::io::stdout().write_all(told.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "otava: {error}");
            ExitCode::FAILURE
        }
    }
}
