//! Writes: the statements of the two committers, one for events and one for states.

use crate::io::committer::{Answer, Link, Request, Work};
use crate::io::fault::Fault;
use crate::io::server::{Params, Server, malformed};
use crate::io::wall_clock_ms;
use crate::logic::columns::{AppendColumns, Refusals, StateColumns, Verdicts};
use crate::logic::migrations::lock_object;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{AppendRequest, Appended, PersistenceId, SaveState, SavedState};
use std::collections::HashMap;
use std::time::Instant;
use tokio_postgres::Row;

impl Work for AppendRequest {
    type Done = Appended;
    type Memory = Reached;

    const SQL: &'static str = "SELECT refused, status, number, base FROM @.append_2(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "events")
    }

    fn run<'a>(
        link: &'a mut Link<Self::Memory>,
        batch: &'a [Request<Self>],
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>> {
        async move {
            match append(link, batch, false).await {
                // Another process has written for one of the ids. Which one is found by looking.
                Err(Fault::Duplicate(_)) => append(link, batch, true).await,
                done => done,
            }
        }
        .boxed()
    }

    fn committed(server: &Server, answers: &[Answer<Self>]) {
        let done = answers.iter().filter_map(|answer| answer.as_ref().ok());
        if let Some(newest) = done.map(|appended| appended.position).max() {
            server.news.committed(newest);
        }
    }
}

impl Work for SaveState {
    type Done = SavedState;
    type Memory = ();

    const SQL: &'static str = "SELECT status, number, base FROM @.save_states_1(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "states")
    }

    fn run<'a>(
        link: &'a mut Link<Self::Memory>,
        batch: &'a [Request<Self>],
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>> {
        async move {
            let columns = StateColumns::new(batch.iter().map(|request| &request.work));
            let (heads, records) = (&columns.heads, &columns.records);
            let params: Params<'_> = &[
                &heads.fence_scopes,
                &heads.fence_epochs,
                &heads.ids,
                &heads.expected,
                &heads.fences,
                &wall_clock_ms(),
                &records.slices,
                &records.kinds,
                &records.versions,
                &records.names,
                &records.tags,
                &records.payloads,
            ];
            let verdicts = answer(link, params, |row| {
                Ok(Verdicts {
                    status: row.try_get(0)?,
                    number: row.try_get(1)?,
                    base: row.try_get(2)?,
                })
            });
            let verdicts = verdicts.await?;
            let answers = verdicts.saved(batch.iter().map(|request| &request.work));
            answers.ok_or_else(|| malformed("there are too few answers"))
        }
        .boxed()
    }

    fn committed(_: &Server, _: &[Answer<Self>]) {}
}

async fn append(
    link: &mut Link<Reached>,
    batch: &[Request<AppendRequest>],
    look_up: bool,
) -> Result<Vec<Answer<AppendRequest>>, Fault> {
    let requests = || batch.iter().map(|request| &request.work);
    let columns = AppendColumns::new(requests(), |id| link.memory.of(id));
    let (heads, records) = (&columns.heads, &columns.records);
    let params: Params<'_> = &[
        &heads.fence_scopes,
        &heads.fence_epochs,
        &heads.ids,
        &heads.expected,
        &heads.fences,
        &columns.known,
        &wall_clock_ms(),
        &columns.event_requests,
        &columns.event_ids,
        &columns.event_seqs,
        &records.slices,
        &records.kinds,
        &records.versions,
        &records.names,
        &records.tags,
        &records.payloads,
        &records.any_tags,
        &(columns.sure && !look_up),
    ];
    let refusals = answer(link, params, |row| {
        Ok(Refusals {
            refused: row.try_get(0)?,
            status: row.try_get(1)?,
            number: row.try_get(2)?,
            base: row.try_get(3)?,
        })
    });
    let answers = refusals.await?.appended(requests());
    let answers = answers.ok_or_else(|| malformed("there are too few answers"))?;
    for (request, answer) in requests().zip(&answers) {
        if let Ok(appended) = answer {
            link.memory.note(&request.id, appended.seq);
        }
    }
    Ok(answers)
}

/// Up to which number the events of an id were seen to be there. That stays true: deleting them does
/// not take the numbers back. It is forgotten with the connection, behind which the server may have
/// been replaced by one that lacks them.
#[derive(Default)]
pub(crate) struct Reached(HashMap<PersistenceId, u64>);

impl Reached {
    /// Ids that are remembered; some 100 bytes each.
    const IDS_MAX: usize = 65_536;

    fn of(&self, id: &PersistenceId) -> u64 {
        self.0.get(id).copied().unwrap_or(0)
    }

    fn note(&mut self, id: &PersistenceId, seq: u64) {
        if self.0.len() >= Self::IDS_MAX && !self.0.contains_key(id) {
            self.0.clear();
        }
        self.0.insert(id.clone(), seq);
    }
}

/// Runs the statement of `link`, and reads the one row that it returns.
async fn answer<M, T>(
    link: &Link<M>,
    params: Params<'_>,
    read: impl FnOnce(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Fault> {
    let begin = Instant::now();
    let row = link.client.query_one(&link.statement, params).await;
    let row = row.map_err(|error| Fault::new(&error, begin.elapsed()))?;
    read(&row).map_err(|error| malformed(&error.to_string()))
}
