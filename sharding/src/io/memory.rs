//! Memory driver: asks the store of remembered entities, and brings its answers to the region.

use crate::logic::epoch::Epoch;
use crate::logic::remembering::{Answer, IDS_MAX, Request};
use crate::message::{Command, Local, RegionMessage};
use crate::remember::{RememberError, RememberStore, RememberedShard};
use futures_util::FutureExt as _;
use otava_actor::{Actor, Context};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// The store has answered, or let its time pass.
pub(crate) struct Recall {
    pub(crate) shard: u32,
    pub(crate) epoch: Epoch,
    pub(crate) number: u64,
    pub(crate) answer: StoreAnswer,
}

/// What it said.
pub(crate) enum StoreAnswer {
    Of(Answer),
    /// A later allocation exists.
    Refused,
}

impl StoreAnswer {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }

    pub(crate) fn into_answer(self) -> Answer {
        match self {
            Self::Of(answer) => answer,
            Self::Refused => Answer::Failed,
        }
    }
}

/// Asks, and lets the region know by a message.
pub(crate) fn ask<R, M>(
    ctx: &mut Context<R>,
    store: &Arc<dyn RememberStore>,
    within: Duration,
    (shard, epoch): (RememberedShard, Epoch),
    number: u64,
    request: Request,
) where
    R: Actor<Msg = RegionMessage<M>>,
    M: Send + 'static,
{
    let (store, of) = (store.clone(), shard.shard);
    let asked = async move {
        // A store that panics has not answered.
        let carried_out = AssertUnwindSafe(carry_out(&*store, &shard, request)).catch_unwind();
        let answer = tokio::time::timeout(within, carried_out).await;
        match answer {
            Ok(Ok(Ok(answer))) => StoreAnswer::Of(answer),
            Ok(Ok(Err(RememberError::Refused { current }))) => {
                let scope = &shard.scope;
                tracing::info!(%scope, %epoch, current, "the store of remembered entities refused");
                StoreAnswer::Refused
            }
            Ok(Ok(Err(error))) => {
                let scope = &shard.scope;
                tracing::warn!(%scope, %error, "the store of remembered entities is asked again");
                StoreAnswer::Of(Answer::Failed)
            }
            Ok(Err(_)) => {
                let scope = &shard.scope;
                tracing::error!(%scope, "the store of remembered entities panicked");
                StoreAnswer::Of(Answer::Failed)
            }
            Err(_) => {
                let scope = &shard.scope;
                tracing::warn!(%scope, ?within, "the store of remembered entities does not answer");
                StoreAnswer::Of(Answer::Failed)
            }
        }
    };
    ctx.pipe_to_self(asked, move |answer| {
        RegionMessage(Command::Local(Local::Recalled(Recall {
            shard: of,
            epoch,
            number,
            answer,
        })))
    });
}

async fn carry_out(
    store: &dyn RememberStore,
    shard: &RememberedShard,
    request: Request,
) -> Result<Answer, RememberError> {
    match request {
        Request::Add(ids) => store.add(shard, &ids).await.map(|()| Answer::Written),
        Request::Remove(ids) => store.remove(shard, &ids).await.map(|()| Answer::Written),
        Request::Load(after) => {
            let page = store.load(shard, after.as_deref(), IDS_MAX).await?;
            Ok(Answer::Page(page.ids, page.more))
        }
    }
}
