//! Report: how many pieces of each item were sold, and for how much; stored with the offset.

use super::Failure;
use super::cart::{Event, Line};
use otava_persistence::{
    Envelope, ProjectionCommit, ProjectionRun, RunFenced, SliceOffset, SliceOffsets,
    TransactionError, TransactionalHandler,
};
use otava_postgres::tokio_postgres::{Error, Transaction};
use otava_postgres::{PostgresHandler, PostgresOffsets};
use std::collections::BTreeMap;
use std::convert::Infallible;
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

/// The report in memory, as a projection writes it.
pub(crate) struct InMemory(pub(crate) Arc<Mutex<(SliceOffsets, Sold)>>);

fn fenced(RunFenced { current }: RunFenced) -> TransactionError<Infallible> {
    TransactionError::Fenced { current }
}

impl TransactionalHandler<Event> for InMemory {
    type Error = Infallible;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<Infallible>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.claim(run).map_err(fenced)
    }

    async fn handle(
        &mut self,
        events: &[Envelope<Event>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<Infallible>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.advance(commit).map_err(fenced)?;
        for lines in checked_out(events) {
            add(&mut table.1, lines);
        }
        Ok(())
    }
}

/// The report in PostgreSQL, as a projection writes it.
pub(crate) struct InPostgres;

impl PostgresHandler<Event> for InPostgres {
    type Error = Error;

    async fn handle(
        &mut self,
        events: &[Envelope<Event>],
        transaction: &Transaction<'_>,
    ) -> Result<(), Error> {
        let mut new = Sold::new();
        for lines in checked_out(events) {
            add(&mut new, lines);
        }
        // In the order of the items, so that no two instances wait for each other.
        for (item, (pieces, cents)) in new {
            transaction.execute(ADD, &[&item, &pieces, &cents]).await?;
        }
        Ok(())
    }

    fn passes(error: &Error) -> bool {
        // The server said nothing about the statement: it went away.
        error.as_db_error().is_none()
    }
}

fn checked_out(events: &[Envelope<Event>]) -> impl Iterator<Item = &[Line]> {
    events.iter().filter_map(|event| match &event.event {
        Event::CheckedOut(lines) => Some(lines.as_slice()),
        _ => None,
    })
}
