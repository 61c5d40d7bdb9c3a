//! Writes: the statements of the two committers, one for events and one for states.

use crate::io::committer::{Answer, Request, Work};
use crate::io::fault::Fault;
use crate::io::server::{Params, Server, malformed};
use crate::io::wall_clock_ms;
use crate::logic::columns::{AppendColumns, StateColumns, Verdicts};
use crate::logic::migrations::lock_object;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{AppendRequest, Appended, SaveState, SavedState};
use std::time::Instant;
use tokio_postgres::{Client, Statement};

impl Work for AppendRequest {
    type Done = Appended;

    const SQL: &'static str = "SELECT status, number, base FROM @.append_1(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "events")
    }

    fn run<'a>(
        link: (&'a Client, &'a Statement),
        batch: &'a [Request<Self>],
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>> {
        async move {
            let columns = AppendColumns::new(batch.iter().map(|request| &request.work));
            let (heads, records) = (&columns.heads, &columns.records);
            let params: Params<'_> = &[
                &heads.fence_scopes,
                &heads.fence_epochs,
                &heads.ids,
                &heads.expected,
                &heads.fences,
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
            ];
            let verdicts = verdicts(link, params).await?;
            let requests = batch.iter().map(|request| &request.work);
            let answers = verdicts.appended(requests);
            answers.ok_or_else(|| malformed("there are too few answers"))
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

    const SQL: &'static str = "SELECT status, number, base FROM @.save_states_1(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "states")
    }

    fn run<'a>(
        link: (&'a Client, &'a Statement),
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
            let verdicts = verdicts(link, params).await?;
            let answers = verdicts.saved(batch.iter().map(|request| &request.work));
            answers.ok_or_else(|| malformed("there are too few answers"))
        }
        .boxed()
    }

    fn committed(_: &Server, _: &[Answer<Self>]) {}
}

async fn verdicts(
    (client, statement): (&Client, &Statement),
    params: Params<'_>,
) -> Result<Verdicts, Fault> {
    let begin = Instant::now();
    let answer = client.query_one(statement, params).await;
    let row = answer.map_err(|error| Fault::new(&error, begin.elapsed()))?;
    let read = || {
        Ok(Verdicts {
            status: row.try_get(0)?,
            number: row.try_get(1)?,
            base: row.try_get(2)?,
        })
    };
    read().map_err(|error: tokio_postgres::Error| malformed(&error.to_string()))
}
