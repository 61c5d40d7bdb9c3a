//! Writes: the statements of the two committers, one for events and one for states.

use crate::io::committer::{Answer, Request, Session, Work};
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

/// Which statement takes any batch, and which one only a batch of appends that is sure.
const ANY: usize = 0;
const SURE: usize = 1;

impl Work for AppendRequest {
    type Done = Appended;
    type Memory = Reached;
    type Known = Vec<u64>;

    const SQL: &'static [&'static str] = &[
        "SELECT refused, status, number, base FROM @.append_2(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        "SELECT @.append_sure_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    ];

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "events")
    }

    fn look_up(memory: &Reached, batch: &[Request<Self>]) -> Vec<u64> {
        let of = |request: &Request<Self>| memory.of(&request.work.id);
        batch.iter().map(of).collect()
    }

    fn run<'a>(
        session: &'a Session,
        batch: &'a [Request<Self>],
        known: Vec<u64>,
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>> {
        async move {
            match append(session, batch, &known).await {
                // Another process has written for one of the ids. Which one is found by looking.
                Err(Fault::Duplicate(_)) => append(session, batch, &[]).await,
                done => done,
            }
        }
        .boxed()
    }

    fn note(memory: &mut Reached, batch: &[Request<Self>], answers: &[Answer<Self>]) {
        for (request, answer) in batch.iter().zip(answers) {
            if let Ok(appended) = answer {
                memory.note(&request.work.id, appended.seq);
            }
        }
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
    type Known = ();

    const SQL: &'static [&'static str] = &["SELECT status, number, base FROM @.save_states_1(\
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"];

    fn lock(server: &Server) -> u32 {
        lock_object(&server.config.schema, "states")
    }

    fn look_up(_: &(), _: &[Request<Self>]) {}

    fn run<'a>(
        session: &'a Session,
        batch: &'a [Request<Self>],
        _: (),
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
            let verdicts = answer(session, ANY, params, |row| {
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

    fn note(_: &mut (), _: &[Request<Self>], _: &[Answer<Self>]) {}

    fn committed(_: &Server, _: &[Answer<Self>]) {}
}

/// `reached` says up to which number the events of each id are known to be there.
async fn append(
    session: &Session,
    batch: &[Request<AppendRequest>],
    reached: &[u64],
) -> Result<Vec<Answer<AppendRequest>>, Fault> {
    let requests = || batch.iter().map(|request| &request.work);
    let columns = AppendColumns::new(requests(), reached);
    let now_ms = wall_clock_ms();
    let written = if columns.sure && !columns.records.any_tags {
        append_sure(session, &columns, now_ms).await?
    } else {
        None
    };
    let refusals = match written {
        Some(refusals) => refusals,
        None => append_any(session, &columns, now_ms).await?,
    };
    let answers = refusals.appended(requests());
    answers.ok_or_else(|| malformed("there are too few answers"))
}

/// Refuses none; or gives nothing if it was not written, since a request may have to be refused.
async fn append_sure(
    session: &Session,
    columns: &AppendColumns<'_>,
    now_ms: i64,
) -> Result<Option<Refusals>, Fault> {
    let (heads, records) = (&columns.heads, &columns.records);
    let params: Params<'_> = &[
        &heads.fence_scopes,
        &heads.fence_epochs,
        &now_ms,
        &columns.event_ids,
        &columns.event_seqs,
        &records.slices,
        &records.kinds,
        &records.versions,
        &records.names,
        &records.payloads,
    ];
    let base: Option<i64> = answer(session, SURE, params, |row| row.try_get(0)).await?;
    Ok(base.map(|base| Refusals {
        base,
        ..Refusals::default()
    }))
}

async fn append_any(
    session: &Session,
    columns: &AppendColumns<'_>,
    now_ms: i64,
) -> Result<Refusals, Fault> {
    let (heads, records) = (&columns.heads, &columns.records);
    let params: Params<'_> = &[
        &heads.fence_scopes,
        &heads.fence_epochs,
        &heads.ids,
        &heads.expected,
        &heads.fences,
        &columns.known,
        &now_ms,
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
        &columns.sure,
    ];
    let read = |row: &Row| {
        Ok(Refusals {
            refused: row.try_get(0)?,
            status: row.try_get(1)?,
            number: row.try_get(2)?,
            base: row.try_get(3)?,
        })
    };
    answer(session, ANY, params, read).await
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

/// Runs a statement of the connection, and reads the one row that it returns.
async fn answer<T>(
    session: &Session,
    statement: usize,
    params: Params<'_>,
    read: impl FnOnce(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Fault> {
    let begin = Instant::now();
    let row = session
        .client
        .query_one(&session.statements[statement], params)
        .await;
    let row = row.map_err(|error| Fault::new(&error, begin.elapsed()))?;
    read(&row).map_err(|error| malformed(&error.to_string()))
}
