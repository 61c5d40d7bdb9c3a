//! Chat room: a room and its guests, as protocols; who is found, and who is watched.
//!
//! ```text
//! $ cargo run -p otava-actor --example chat_room
//! alice has heard:
//!   alice came
//!   bob came
//!   bob: good evening
//!   alice: hello bob
//!   bob left
//! ```
//!
//! Nobody is given a reference to the room: guests find it at the receptionist. The room watches its
//! guests, so it need not be told that one has gone. Rooms and guests know each other's protocol only.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{ActorRef, ActorSystem, Context, ServiceKey, Terminated, actor, protocol};
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
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.all_hear(&format!("{name}: {text}"));
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

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let system = ActorSystem::new("house");
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
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
