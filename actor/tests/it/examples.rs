//! Proves: each example prints what the head of its file says, and ends.
#![allow(dead_code, reason = "the `main` of an example does not run here")]

use crate::support::SOON;
use std::error::Error;

#[path = "../../examples/chat_room.rs"]
mod chat_room;
#[path = "../../examples/crawler.rs"]
mod crawler;
#[path = "../../examples/dining_philosophers.rs"]
mod dining_philosophers;
#[path = "../../examples/ping_pong.rs"]
mod ping_pong;
#[path = "../../examples/supervised_bank.rs"]
mod supervised_bank;

/// What the first block of text in the head of `source` says, below the command.
fn promised(source: &str) -> Vec<&str> {
    let block = source.lines().skip_while(|line| *line != "//! ```text");
    let mut lines = block
        .skip(1)
        .map(|line| line.strip_prefix("//! ").unwrap_or_default());
    let command = lines.next().unwrap_or_default();
    assert!(command.starts_with("$ cargo run"), "no command in the head");
    lines.take_while(|line| *line != "```").collect()
}

async fn check(source: &str, run: impl Future<Output = Result<Vec<String>, Box<dyn Error>>>) {
    let lines = tokio::time::timeout(SOON, run).await;
    let lines = lines.expect("an example ends by itself").unwrap();
    assert_eq!(lines, promised(source));
    assert!(!lines.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_bank_does_what_its_head_says() {
    check(
        include_str!("../../examples/supervised_bank.rs"),
        supervised_bank::run(),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_chat_room_does_what_its_head_says() {
    let source = include_str!("../../examples/chat_room.rs");
    check(source, chat_room::run()).await;
}

#[tokio::test(start_paused = true)]
async fn the_crawler_does_what_its_head_says() {
    check(include_str!("../../examples/crawler.rs"), crawler::run()).await;
}

#[tokio::test(start_paused = true)]
async fn the_philosophers_do_what_their_head_says() {
    let source = include_str!("../../examples/dining_philosophers.rs");
    check(source, dining_philosophers::run()).await;
}

#[tokio::test(start_paused = true)]
async fn ping_pong_does_what_its_head_says() {
    check(
        include_str!("../../examples/ping_pong.rs"),
        ping_pong::run(),
    )
    .await;
}
