//! Traffic light: an actor that behaves differently in each state, as an enum of states.
//!
//! ```text
//! cargo run -p otava-actor --example traffic_light
//! ```
//!
//! prints `red, green, yellow, red` and `broken, 2 calls were put aside and are answered now: red`.
//!
//! A behaviour is a variant that carries what only that behaviour needs, and `handle` is one `match`
//! on state and message: what is not possible in a state has no place to be, and the compiler names
//! every case that was forgotten. A change of behaviour is an assignment.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{
    Actor, ActorSystem, AskError, Context, ReplyTo, SpawnError, Stash, StashFull, TellError,
};
use std::num::NonZeroUsize;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Color {
    Red,
    Green,
    Yellow,
}

enum Message {
    /// The time of this colour is over.
    Next,
    Break,
    Repair,
    Show(ReplyTo<Color>),
}

enum State {
    Working(Color),
    /// Nobody is answered; questions wait for the repair.
    Broken {
        waiting: Stash<Message>,
    },
}

struct Light(State);

impl Light {
    fn show(&mut self, color: Color, ctx: &mut Context<Self>) {
        self.0 = State::Working(color);
        let time = match color {
            Color::Red | Color::Green => Duration::from_millis(30),
            Color::Yellow => Duration::from_millis(10),
        };
        ctx.timer_once("next", time, Message::Next);
    }
}

impl Actor for Light {
    type Msg = Message;
    type Err = StashFull<Message>;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        self.show(Color::Red, ctx);
        Ok(())
    }

    async fn handle(&mut self, msg: Message, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        match (&mut self.0, msg) {
            (State::Working(color), Message::Next) => {
                let next = match color {
                    Color::Red => Color::Green,
                    Color::Green => Color::Yellow,
                    Color::Yellow => Color::Red,
                };
                self.show(next, ctx);
            }
            (State::Working(color), Message::Show(reply_to)) => {
                // Whether the asker still waits does not matter here.
                let _ = reply_to.send(*color);
            }
            (State::Working(_), Message::Break) => {
                ctx.cancel_timer("next");
                let waiting = Stash::new(NonZeroUsize::new(100).expect("it is not zero"));
                self.0 = State::Broken { waiting };
            }
            (State::Broken { waiting }, question @ Message::Show(_)) => {
                waiting.stash(question, ctx)?;
            }
            (State::Broken { waiting }, Message::Repair) => {
                ctx.unstash_all(waiting);
                self.show(Color::Red, ctx);
            }
            (State::Working(_), Message::Repair)
            | (State::Broken { .. }, Message::Break | Message::Next) => {}
        }
        Ok(())
    }
}

/// What may go wrong in this program.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Tell(#[from] TellError<Message>),
}

/// The lines that the program prints.
async fn run() -> Result<Vec<String>, Failure> {
    let system = ActorSystem::new("town");
    let light = system.spawn("light", Light(State::Working(Color::Red)))?;
    let mut colors = Vec::new();
    for wait in [5, 30, 30, 10] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let color = light.ask(Message::Show).await?;
        colors.push(format!("{color:?}").to_lowercase());
    }
    light.tell(Message::Break)?;
    let calls = [light.ask(Message::Show), light.ask(Message::Show)];
    let calls = calls.map(|call| tokio::spawn(call.into_future()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = calls.iter().filter(|call| !call.is_finished()).count();
    light.tell(Message::Repair)?;
    let mut answers = Vec::new();
    for call in calls {
        // Nobody aborts these tasks, and they do not panic.
        if let Ok(answer) = call.await {
            answers.push(format!("{:?}", answer?).to_lowercase());
        }
    }
    answers.dedup();
    Ok(vec![
        colors.join(", "),
        format!(
            "broken, {waiting} calls were put aside and are answered now: {}",
            answers.join(", ")
        ),
    ])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test(start_paused = true)]
    async fn the_light_does_what_the_head_of_the_file_says() {
        let lines = super::run().await.unwrap();
        let broken = "broken, 2 calls were put aside and are answered now: red";
        assert_eq!(lines, ["red, green, yellow, red", broken]);
    }
}
