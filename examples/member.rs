//! Member: a node that is a member and nothing else, and tells what it sees, a line an event.
//!
//! ```text
//! $ cargo run --example member -- node-1 127.0.0.1:7001 /tmp/members 127.0.0.1:7001 127.0.0.1:7002
//! 1795999999.184202 joined node-1
//! 1795999999.184291 leads node-1
//! 1795999999.184377 up node-1
//! ^C
//! 1796000012.733051 leaving node-1
//! ```
//!
//! The arguments: its name, where it listens, the folder for what lasts (shared by all nodes of the machine), the
//! seeds. Each line: seconds of the wall clock, what happened, to whom. All settings are the defaults.
//! `scripts/recovery.sh` kills such processes and reads how soon the others noticed.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use otava::{ClusterEvent, Ended, Node};
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::{Receiver, error::RecvError};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("NAME LISTEN FOLDER SEED..");
    let (name, listen, folder) = (next()?, next()?, next()?);
    let seeds: Result<Vec<SocketAddr>, _> = arguments.map(|seed| seed.parse()).collect();
    let node = Node::builder("members", &name)
        .listen(listen.parse()?)
        .data(folder)
        .seeds(seeds?)
        .start()
        .await?;
    let telling = tokio::spawn(tell(node.cluster().events()));
    let ended = tokio::select! {
        biased;
        ended = node.run_until_ended() => ended,
        joined = node.join() => {
            joined?;
            node.run_until_ended().await
        }
    };
    telling.abort();
    say("ended", format_args!("{ended:?}"));
    Ok(match ended {
        Ended::Left => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn tell(mut events: Receiver<ClusterEvent>) {
    loop {
        match events.recv().await {
            Ok(event) => tell_of(event),
            Err(RecvError::Lagged(missed)) => say("missed", missed),
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell_of(event: ClusterEvent) {
    let (what, node) = match event {
        ClusterEvent::MemberDowned(node) => ("down", node),
        ClusterEvent::MemberExiting(node) => ("exiting", node),
        ClusterEvent::MemberJoined(node) => ("joined", node),
        ClusterEvent::MemberLeaving(node) => ("leaving", node),
        ClusterEvent::MemberRemoved(node) => ("removed", node),
        ClusterEvent::MemberUp(node) => ("up", node),
        ClusterEvent::MemberWeaklyUp(node) => ("weakly-up", node),
        ClusterEvent::ReachableAgain(node) => ("reachable", node),
        ClusterEvent::Unreachable(node) => ("unreachable", node),
        ClusterEvent::LeaderChanged(Some(node)) => ("leads", node),
        other => return say("else", format_args!("{other:?}")),
    };
    say(what, &node.name);
}

fn say(what: &str, whom: impl std::fmt::Display) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    println!("{}.{:06} {what} {whom}", now.as_secs(), now.subsec_micros());
}
