//! Proxy: what stands in for entities and their store on a node that only sends to them.

use crate::store::{AllocationStore, ClaimError, StoreError};
use futures_util::future::BoxFuture;
use otava_actor::{Actor, Context, Refusal};
use std::convert::Infallible;
use std::marker::PhantomData;

/// An entity on a node that is to have none.
pub(crate) struct NoEntity<M>(PhantomData<fn() -> M>);

impl<M> NoEntity<M> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M: Send + 'static> Actor for NoEntity<M> {
    type Msg = M;
    type Err = Infallible;

    async fn handle(&mut self, message: M, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        tracing::error!(
            entity = %ctx.path(),
            "this node has all roles of the kind's hosts, but the kind was started as a proxy here"
        );
        Refusal::NotStarted.refuse(message);
        Ok(())
    }
}

/// The store of a node that never coordinates and never hosts.
pub(crate) struct NoStore;

impl NoStore {
    fn error() -> StoreError {
        StoreError::new("this node was started as a proxy, but it has all roles of a host")
    }
}

impl AllocationStore for NoStore {
    fn next_term<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async { Err(Self::error()) })
    }

    fn claim<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        Box::pin(async { Err(Self::error().into()) })
    }
}
