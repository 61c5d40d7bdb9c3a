//! Ping-pong: two actors that play a ball to each other; the answer comes from whoever misses it.
//!
//! ```text
//! $ cargo run -p otava-actor --example ping_pong
//! ping missed the ball after 1000 hits
//! ping hit it 500 times, pong 500 times
//! ```
//!
//! A reference and a reply port are ordinary parts of a message: the ball carries both, so neither
//! player has to know the other one, nor who wants to hear how it ends.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo, TellError};
use std::error::Error;

/// How often the ball is hit.
const HITS: u32 = 1_000;

struct Player {
    hits: u32,
}

struct Ball {
    hits_left: u32,
    /// Whom to play it to.
    back_to: ActorRef<Shot>,
    /// Who hears how it ends: the name of the player who missed it.
    over: ReplyTo<String>,
}

enum Shot {
    Ball(Ball),
    Hits(ReplyTo<u32>),
}

impl Actor for Player {
    type Msg = Shot;
    type Err = TellError<Shot>;

    async fn handle(&mut self, shot: Shot, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        match shot {
            Shot::Ball(ball) if ball.hits_left == 0 => {
                // Whether somebody still waits for it does not matter here.
                let _ = ball.over.send(ctx.path().name().to_owned());
            }
            Shot::Ball(ball) => {
                self.hits += 1;
                ball.back_to.tell(Shot::Ball(Ball {
                    hits_left: ball.hits_left - 1,
                    back_to: ctx.me().clone(),
                    over: ball.over,
                }))?;
            }
            Shot::Hits(reply_to) => {
                let _ = reply_to.send(self.hits);
            }
        }
        Ok(())
    }
}

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let system = ActorSystem::new("club");
    let ping = system.spawn("ping", Player { hits: 0 })?;
    let pong = system.spawn("pong", Player { hits: 0 })?;
    let serve = |over| {
        Shot::Ball(Ball {
            hits_left: HITS,
            back_to: pong.clone(),
            over,
        })
    };
    let missed_by = ping.ask(serve).await?;
    let (of_ping, of_pong) = (ping.ask(Shot::Hits).await?, pong.ask(Shot::Hits).await?);
    Ok(vec![
        format!("{missed_by} missed the ball after {HITS} hits"),
        format!("ping hit it {of_ping} times, pong {of_pong} times"),
    ])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
