//! Chat: rooms that keep what was said, over nodes that come and go.
//!
//! ```text
//! $ cargo run --example chat
//! alice hears: 1 alice: hello
//! bob hears: 1 alice: hello
//! alice hears: 2 bob: hi alice
//! bob hears: 2 bob: hi alice
//! alice's node leaves
//! bob hears: 3 bob: are you there?
//! the room on another node: 1 alice: hello | 2 bob: hi alice | 3 bob: are you there?
//! ```
//!
//! A room is an entity: it lives on one node at a time, and a line is durable before anybody hears of it. A
//! topic carries the number of the newest line to everybody, at most once; who hears of one that he has
//! not, or hears nothing for a while, asks the room. So nobody misses a line, and nobody asks in vain all day.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava::prelude::*;
use otava::{Entities, EntityRef, Topic};
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;
use tokio::sync::mpsc;

/// What was said in a room, and which one of its lines that is.
#[derive(Clone, Deserialize, Serialize)]
struct Line {
    number: u64,
    who: String,
    text: String,
}

/// There is a new line.
#[derive(Clone, Deserialize, Serialize)]
struct News;

impl RemoteMessage for News {
    const NAME: &'static str = "chat.News";
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.number, self.who, self.text)
    }
}

#[otava::protocol(id = "chat.room", remote)]
trait RoomApi {
    async fn say(&mut self, who: String, text: String) -> u64;
    async fn lines(&mut self, after: u64) -> Vec<Line>;
}

struct Room {
    lines: Vec<Line>,
    topic: Topic<News>,
}

impl EventSourced for Room {
    type Command = RoomMsg;
    type Event = Line;
    type Snapshot = Vec<Line>;
    const EVENT_NAME: &'static str = "chat.Said";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: RoomMsg) -> Effect<Self> {
        match command {
            RoomMsg::Say {
                who,
                text,
                reply_to,
            } => {
                let number = self.lines.len() as u64 + 1;
                let line = Line { number, who, text };
                Effect::persist(line)
                    .reply(reply_to, number)
                    .then(|room: &Self| {
                        // Who has no room for it asks by itself, after a while.
                        let _ = room.topic.publish(News);
                    })
            }
            RoomMsg::Lines { after, reply_to } => {
                let lines = self.lines.iter().filter(|line| line.number > after);
                Effect::none().reply(reply_to, lines.cloned().collect())
            }
        }
    }

    fn apply(&mut self, line: &Line) {
        self.lines.push(line.clone());
    }

    fn snapshot(&self) -> Option<Vec<Line>> {
        Some(self.lines.clone())
    }

    fn restore(&mut self, lines: Vec<Line>) {
        self.lines = lines;
    }
}

/// Rooms of this node. Each has a topic of the same name.
fn rooms(node: &Node) -> Result<Entities<RoomMsg>, Box<dyn Error>> {
    let here = node.clone();
    let create = move |room: &str| Room {
        lines: Vec::new(),
        topic: here.topic(room).expect("rooms have short names"),
    };
    Ok(node.entities_with("room", EntityOptions::default(), create)?)
}

/// Hands on that there is news.
struct Listener(mpsc::Sender<()>);

impl Actor for Listener {
    type Msg = News;
    type Err = Infallible;

    async fn handle(&mut self, News: News, _: &mut Context<Self>) -> Result<(), Infallible> {
        // One that waits there already says the same.
        let _ = self.0.try_send(());
        Ok(())
    }
}

/// Somebody at a node, in the room "rust".
struct Guest {
    name: &'static str,
    node: Node,
    room: EntityRef<RoomMsg>,
    news: mpsc::Receiver<()>,
    heard: u64,
}

impl Guest {
    async fn arrive(name: &'static str, node: Node) -> Result<Self, Box<dyn Error>> {
        let room = rooms(&node)?.entity("rust");
        node.join().await?;
        let (sender, news) = mpsc::channel(1);
        let listener = node.system().spawn("listener", Listener(sender))?;
        node.topic::<News>("rust")?.subscribe(&listener)?;
        let heard = 0;
        Ok(Self {
            name,
            node,
            room,
            news,
            heard,
        })
    }

    async fn says(&self, text: &str) -> Result<(), Box<dyn Error>> {
        self.room.say(self.name.to_owned(), text.to_owned()).await?;
        Ok(())
    }

    /// The next line.
    async fn hears(&mut self) -> Result<String, Box<dyn Error>> {
        loop {
            let lines = self.room.lines(self.heard).await?;
            if let Some(line) = lines.first() {
                self.heard = line.number;
                return Ok(format!("{} hears: {line}", self.name));
            }
            // News may be lost: then it is the clock that tells.
            let _ = tokio::time::timeout(Duration::from_secs(2), self.news.recv()).await;
        }
    }
}

async fn run(folder: &std::path::Path) -> Result<Vec<String>, Box<dyn Error>> {
    let first = Node::builder("chat", "node-1").data(folder).start().await?;
    let seed = first.id().addr;
    let mut alice = Guest::arrive("alice", first).await?;
    let second = Node::builder("chat", "node-2").data(folder);
    let second = second.seeds([seed]).start().await?;
    let mut bob = Guest::arrive("bob", second).await?;
    let mut told = Vec::new();
    alice.says("hello").await?;
    told.extend([alice.hears().await?, bob.hears().await?]);
    bob.says("hi alice").await?;
    told.extend([alice.hears().await?, bob.hears().await?]);
    told.push("alice's node leaves".to_owned());
    alice.node.leave().await;
    bob.says("are you there?").await?;
    told.push(bob.hears().await?);
    let lines = bob.room.lines(0).await?;
    let lines: Vec<_> = lines.iter().map(Line::to_string).collect();
    told.push(format!("the room on another node: {}", lines.join(" | ")));
    bob.node.leave().await;
    Ok(told)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for line in run(folder.path()).await? {
        println!("{line}");
    }
    Ok(())
}
