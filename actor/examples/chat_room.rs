//! Chat room: a room and its guests, as protocols; who is found, who is watched, who only listens.
//!
//! ```text
//! $ cargo run -p otava-actor --example chat_room
//! alice has heard:
//!   alice came
//!   bob came
//!   bob: good evening
//!   alice: hello bob
//!   bob left
//! the statistics: 2 lines, 21 letters
//! ```
//!
//! Nobody is given a reference to the room: guests find it at the receptionist. The room watches its
//! guests, so it need not be told that one has gone. What is said is also an event, for whoever wants to
//! know: the room knows nothing of the statistics.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{Actor, ActorRef, ActorSystem, Context, ServiceKey, Terminated, actor, protocol};
use std::convert::Infallible;
use std::error::Error;

/// What a guest can say to a room.
#[protocol]
pub(crate) trait RoomApi {
    async fn enter(&mut self, guest: ActorRef<GuestMsg>);
    async fn say(&mut self, name: String, text: String);
    /// Returns who is there.
    async fn guests(&mut self) -> Vec<String>;
}

/// What a room, and others, can say to a guest.
#[protocol]
pub(crate) trait GuestApi {
    async fn hear(&mut self, line: String);
    async fn speak(&mut self, text: String);
    /// Returns all that was heard.
    async fn heard(&mut self) -> Vec<String>;
}

static ROOMS: ServiceKey<RoomMsg> = ServiceKey::new("rooms");

/// An event: somebody has said something.
#[derive(Clone)]
struct Said(String);

#[derive(Default)]
struct Room(Vec<ActorRef<GuestMsg>>);

impl Room {
    fn all_hear(&self, line: &str) {
        for guest in &self.0 {
            // Whoever is gone or cannot keep up misses it; the system counts that.
            let _ = guest.hear(line.to_owned());
        }
    }
}

#[actor]
impl RoomApi for Room {
    type Err = Infallible;

    async fn enter(
        &mut self,
        guest: ActorRef<GuestMsg>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        ctx.watch(&guest);
        let came = format!("{} came", guest.path().name());
        self.0.push(guest);
        self.all_hear(&came);
        Ok(())
    }

    async fn say(
        &mut self,
        name: String,
        text: String,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.all_hear(&format!("{name}: {text}"));
        ctx.system().event_stream().publish(Said(text));
        Ok(())
    }

    async fn guests(&mut self, _: &mut Context<Self>) -> Result<Vec<String>, Infallible> {
        let names = self.0.iter().map(|guest| guest.path().name().to_owned());
        Ok(names.collect())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.0.retain(|guest| !who.is(guest));
        self.all_hear(&format!("{} left", who.path.name()));
        Ok(())
    }
}

#[derive(Default)]
struct Guest {
    room: Option<ActorRef<RoomMsg>>,
    heard: Vec<String>,
}

#[actor]
impl GuestApi for Guest {
    type Err = Box<dyn Error + Send + Sync>;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        let rooms = ctx.system().receptionist().find(&ROOMS)?;
        let room = rooms.actors().first().ok_or("there is no room")?;
        room.enter(ctx.me().clone())?;
        self.room = Some(room.clone());
        Ok(())
    }

    async fn hear(&mut self, line: String, _: &mut Context<Self>) -> Result<(), Self::Err> {
        self.heard.push(line);
        Ok(())
    }

    async fn speak(&mut self, text: String, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        if let Some(room) = &self.room {
            room.say(ctx.path().name().to_owned(), text)?;
        }
        Ok(())
    }

    async fn heard(&mut self, _: &mut Context<Self>) -> Result<Vec<String>, Self::Err> {
        Ok(self.heard.clone())
    }
}

/// Counts lines and letters. An enum by hand: it is told events, and asked.
#[derive(Default)]
struct Statistics {
    lines: usize,
    letters: usize,
}

enum StatisticsMsg {
    Said(Said),
    Show(otava_actor::ReplyTo<String>),
}

impl From<Said> for StatisticsMsg {
    fn from(said: Said) -> Self {
        Self::Said(said)
    }
}

impl Actor for Statistics {
    type Msg = StatisticsMsg;
    type Err = Infallible;

    async fn handle(
        &mut self,
        msg: StatisticsMsg,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match msg {
            StatisticsMsg::Said(Said(text)) => {
                self.lines += 1;
                self.letters += text.len();
            }
            StatisticsMsg::Show(reply_to) => {
                let _ = reply_to.send(format!("{} lines, {} letters", self.lines, self.letters));
            }
        }
        Ok(())
    }
}

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let system = ActorSystem::new("house");
    let statistics = system.spawn("statistics", Statistics::default())?;
    system.event_stream().subscribe::<Said>(&statistics);
    let room = system.spawn("room", Room::default())?;
    system.receptionist().register(&ROOMS, &room)?;
    let alice = system.spawn("alice", Guest::default())?;
    alice.heard().await?;
    let bob = system.spawn("bob", Guest::default())?;
    bob.speak("good evening".into())?;
    bob.heard().await?;
    alice.speak("hello bob".into())?;
    alice.heard().await?;
    let (over, gone) = tokio::sync::oneshot::channel::<()>();
    let _watching = bob.on_terminated(|_| drop(over));
    bob.stop();
    let _ = gone.await;
    // The room is told before it takes this question.
    room.guests().await?;
    let mut lines = vec!["alice has heard:".to_owned()];
    lines.extend(alice.heard().await?.iter().map(|line| format!("  {line}")));
    let counted = statistics.ask(StatisticsMsg::Show).await?;
    lines.push(format!("the statistics: {counted}"));
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
