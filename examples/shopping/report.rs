//! Report: how many pieces of each item were sold, and for how much; stored with the offset.

use super::Failure;
use super::cart::{Event, Line};
use futures_util::FutureExt as _;
use otava_persistence::{
    Envelope, ProjectionCommit, ProjectionRun, RunFenced, SliceOffset, SliceOffsets,
    TransactionError, TransactionalHandler,
};
use otava_postgres::tokio_postgres::Error;
use otava_postgres::{OffsetError, PostgresOffsets};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const MAKE: &str = "CREATE TABLE IF NOT EXISTS shopping.sold \
    (item text PRIMARY KEY, pieces bigint NOT NULL, cents bigint NOT NULL)";
const ADD: &str = "INSERT INTO shopping.sold (item, pieces, cents) VALUES ($1, $2, $3) \
    ON CONFLICT (item) DO UPDATE SET pieces = sold.pieces + $2, cents = sold.cents + $3";
const READ: &str = "SELECT item, pieces, cents FROM shopping.sold";

/// Pieces and cents by item.
pub(crate) type Sold = BTreeMap<String, (i64, i64)>;

/// Adds what one cart had.
pub(crate) fn add(sold: &mut Sold, lines: &[Line]) {
    for line in lines {
        let (pieces, cents) = sold.entry(line.item.clone()).or_default();
        *pieces += i64::from(line.pieces);
        *cents += i64::from(line.pieces) * i64::from(line.cents);
    }
}

/// The table, in whichever place.
#[derive(Clone)]
pub(crate) enum Report {
    Memory(Arc<Mutex<(SliceOffsets, Sold)>>),
    Postgres(PostgresOffsets),
}

impl Report {
    pub(crate) fn in_memory() -> Self {
        Self::Memory(Arc::default())
    }

    pub(crate) async fn in_postgres(offsets: PostgresOffsets) -> Result<Self, Failure> {
        offsets.client().await?.batch_execute(MAKE).await?;
        Ok(Self::Postgres(offsets))
    }

    pub(crate) async fn read(&self) -> Result<Sold, Failure> {
        match self {
            Self::Memory(table) => Ok(table
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .1
                .clone()),
            Self::Postgres(offsets) => {
                let rows = offsets.client().await?.query(READ, &[]).await?;
                let sold = rows
                    .iter()
                    .map(|row| (row.get(0), (row.get(1), row.get(2))));
                Ok(sold.collect())
            }
        }
    }
}

fn fenced<X>(RunFenced { current }: RunFenced) -> TransactionError<X> {
    TransactionError::Fenced { current }
}

impl TransactionalHandler<Event> for Report {
    type Error = OffsetError<Error>;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<Self::Error>> {
        match self {
            Self::Memory(table) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.0.claim(run).map_err(fenced)
            }
            Self::Postgres(offsets) => offsets.claim_slices(run).await,
        }
    }

    async fn handle(
        &mut self,
        events: &[Envelope<Event>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<Self::Error>> {
        let mut new = Sold::new();
        for event in events {
            if let Event::CheckedOut(lines) = &event.event {
                add(&mut new, lines);
            }
        }
        let offsets = match self {
            Self::Memory(table) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.0.advance(commit).map_err(fenced)?;
                for (item, (pieces, cents)) in new {
                    let sold = table.1.entry(item).or_default();
                    *sold = (sold.0 + pieces, sold.1 + cents);
                }
                return Ok(());
            }
            Self::Postgres(offsets) => offsets,
        };
        let write = offsets.commit(commit, |transaction| {
            async move {
                // In the order of the items, so that no two instances wait for each other.
                for (item, (pieces, cents)) in new {
                    transaction.execute(ADD, &[&item, &pieces, &cents]).await?;
                }
                Ok(())
            }
            .boxed()
        });
        write.await
    }

    fn passes(error: &Self::Error) -> bool {
        matches!(error, OffsetError::Store(_))
    }
}
