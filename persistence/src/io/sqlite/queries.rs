//! Queries: gives events of many ids in the order of their positions.
//!
//! Positions are given under the write lock, so they grow in commit order: when a reader sees one,
//! every lower one that will ever be there is there. Nothing has to be waited for.
//!
//! | query | what is read |
//! | --- | --- |
//! | all | the events by position |
//! | by id | the places of the id, from the first event behind the position, found by bisection |
//! | by tag | the index of tags, then each event |
//! | by kind, by slices, also with a tag | as above within a window of positions, with the id of each |
//!
//! The window bounds what one page costs when little matches: then the page is empty, and says how
//! far it has looked.

use crate::error::{Damage, JournalError};
use crate::id::PersistenceId;
use crate::io::sqlite::batch::{Batches, EVENTS_OF_ONE, RawEvent, TAKE};
use crate::io::sqlite::halves::{Half, first_half};
use crate::io::sqlite::places::{first_from, highest_seq};
use crate::io::sqlite::reader::{Ids, ReadFault, Reader};
use crate::io::sqlite::rows::{self, CAPACITY_MAX, Names, PAGE_BYTES_MAX, as_i64, corrupt, limit};
use crate::io::sqlite::sweep::unswept;
use crate::io::sqlite::transaction::stream_of;
use crate::io::sqlite::{SqliteJournal, schema};
use crate::journal::StoredEvent;
use crate::logic::sequence::Sequence;
use crate::query::{EventQueries, EventQuery, FoundEvent, QueryPage};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use std::collections::HashMap;
use std::ops::Range;

/// Positions, or events, that one page looks at when not all of them are wanted.
const WINDOW: u64 = 50_000;

/// One page of a query, from one state of the file.
pub(super) fn page(
    reader: &mut Reader,
    query: &EventQuery,
    after: u64,
    max: usize,
) -> Result<QueryPage, ReadFault> {
    let transaction = reader.db.unchecked_transaction()?;
    let head = schema::head(&reader.db)?;
    let newest = head.position;
    if after >= newest || max == 0 {
        return Ok(QueryPage::new(Vec::new(), after, after < newest));
    }
    let other = second_half(reader, query, (after, newest), max);
    let (batches, ids) = (&mut reader.batches, &mut reader.ids);
    let mut page = Page::new(&reader.db, ids, query, after, max)?;
    if let Some((middle, other)) = other {
        page.read(batches, middle)?;
        if page.through == middle
            && let Some((commit, rest)) = other.join()?
            && commit == head.commit
        {
            page.append(rest);
        }
    }
    if !page.full() && page.through < newest {
        page.read(batches, newest)?;
    }
    let (events, bytes, through) = (page.events, page.bytes, page.through);
    transaction.finish()?;
    reader.payload_bytes = bytes / events.len().max(1);
    Ok(QueryPage::new(events, through, through < newest))
}

/// What stands behind the first half of a page.
struct Rest {
    events: Vec<FoundEvent>,
    looked: u64,
    through: u64,
}

/// Asks another thread for the second half of a page behind `after`: the position behind which it begins,
/// and where its events and their commit come from. Only if all events are wanted: then there is one at
/// most positions.
fn second_half(
    reader: &Reader,
    query: &EventQuery,
    (after, newest): (u64, u64),
    max: usize,
) -> Option<(u64, Half<(u64, Rest)>)> {
    if *query != EventQuery::all() {
        return None;
    }
    let there = usize::try_from(newest - after).unwrap_or(max);
    let half = first_half(reader, there.min(max))?;
    let middle = after + half as u64;
    let query = query.clone();
    let other = Half::ask(reader, move |reader| {
        let Reader {
            db, batches, ids, ..
        } = reader;
        let transaction = db.unchecked_transaction()?;
        let head = schema::head(db)?;
        let mut page = Page::new(db, ids, &query, middle, max - half)?;
        page.read(batches, head.position)?;
        let rest = Rest {
            events: page.events,
            looked: page.looked,
            through: page.through,
        };
        transaction.finish()?;
        Ok((head.commit, rest))
    });
    Some((middle, other?))
}

/// A page that is being read.
struct Page<'a> {
    query: &'a EventQuery,
    ids: &'a mut Ids,
    db: &'a Connection,
    max: usize,
    /// Up to where the events of a stream are deleted, though their rows are there.
    hidden: HashMap<i64, u64>,
    names: Names,
    events: Vec<FoundEvent>,
    bytes: usize,
    looked: u64,
    through: u64,
}

impl<'a> Page<'a> {
    fn new(
        db: &'a Connection,
        ids: &'a mut Ids,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            ids,
            db,
            max,
            hidden: unswept(db)?,
            names: Names::default(),
            events: Vec::with_capacity(max.min(CAPACITY_MAX)),
            bytes: 0,
            looked: 0,
            through: after,
        })
    }

    /// Reads on behind `through` up to a position, until the page is full.
    fn read(&mut self, batches: &mut Batches, newest: u64) -> Result<(), ReadFault> {
        let query = self.query;
        let end = match &query.id {
            Some(id) => self.of_one(batches, id, self.through)?.then_some(newest),
            None => self.of_many(batches, self.through, newest)?,
        };
        self.through = end.unwrap_or(self.through);
        Ok(())
    }

    /// Adds what is read already, until the page is full.
    fn append(&mut self, rest: Rest) {
        self.looked += rest.looked;
        for FoundEvent { id, event } in rest.events {
            if self.events.len() >= self.max || self.bytes >= PAGE_BYTES_MAX {
                return;
            }
            self.through = event.position;
            self.push(id, event);
        }
        self.through = rest.through;
    }

    /// Returns how far everything was looked at; `None` when the page was full before.
    fn of_many(
        &mut self,
        batches: &mut Batches,
        after: u64,
        newest: u64,
    ) -> Result<Option<u64>, ReadFault> {
        let (select, bounds, end) = self.select(after, newest);
        let mut statement = self.db.prepare_cached(&select)?;
        let mut batches = batches.of(statement.query(params_from_iter(bounds))?);
        while !self.full()
            && let Some(batch) = batches.next(self.limits())?
        {
            for raw in &batch.events {
                if !self.look_at(raw) {
                    continue;
                }
                let id = self.ids.id(self.db, raw.stream)?;
                let event = rows::event(raw, &batch.bytes, &id, &mut self.names)?;
                let has = |tag| event.record.tags.contains(tag);
                if !self.query.tag.as_ref().is_none_or(has) {
                    // The index of tags says so, the event does not.
                    let (row, what) = (event.position, "tag");
                    return Err(corrupt(&id, event.seq, Damage::Malformed { row, what }));
                }
                self.push(id, event);
            }
        }
        Ok((!self.full()).then_some(end))
    }

    /// The statement, its values, and up to which position it looks.
    fn select(&self, after: u64, newest: u64) -> (String, Vec<Value>, u64) {
        let query = self.query;
        let filtered = query.kind.is_some() || !query.is_all_slices();
        let end = if filtered {
            newest.min(after.saturating_add(WINDOW))
        } else {
            newest
        };
        let mut bounds: Vec<Value> = vec![as_i64(after).into(), as_i64(end).into()];
        let (from, by) = if query.tag.is_some() {
            let from = "event_tags AS t CROSS JOIN events AS e ON e.position = t.position";
            (from, "t")
        } else {
            ("events AS e NOT INDEXED", "e")
        };
        let mut select = format!("SELECT 1 FROM {from}");
        if filtered {
            select += " CROSS JOIN streams AS s ON s.stream = e.stream";
        }
        select += &format!(" WHERE {by}.position > ?1 AND {by}.position <= ?2");
        let mut bind = |value: Value| {
            bounds.push(value);
            format!("?{}", bounds.len())
        };
        if let Some(tag) = &query.tag {
            select += &format!(" AND t.tag = {}", bind(tag.to_string().into()));
        }
        let mut filters = Vec::new();
        if !query.is_all_slices() {
            let slices = query.slice_range();
            let first = bind(i64::from(*slices.start()).into());
            let last = bind(i64::from(*slices.end()).into());
            filters.push(format!("s.slice BETWEEN {first} AND {last}"));
        }
        if let Some(kind) = &query.kind {
            // All texts that begin with the kind and `|`: the next character is `}`.
            let first = bind(format!("{kind}|").into());
            let end = bind(format!("{kind}}}").into());
            filters.push(format!("s.id >= {first} AND s.id < {end}"));
        }
        select += &match filters.join(" AND ") {
            none if none.is_empty() => format!(" AND {TAKE}"),
            // Otherwise rows would be taken before they are looked at.
            filters => format!(" AND CASE WHEN {filters} THEN {TAKE} END"),
        };
        select += &format!(" ORDER BY {by}.position");
        (select, bounds, end)
    }

    /// Returns whether everything was looked at.
    fn of_one(
        &mut self,
        batches: &mut Batches,
        id: &PersistenceId,
        after: u64,
    ) -> Result<bool, ReadFault> {
        let mut other_tag = self.query.clone();
        other_tag.tag = None;
        let Some(stream) = stream_of(self.db, id)?.filter(|_| other_tag.matches(id, &[])) else {
            return Ok(true);
        };
        let deleted = rows::deleted_seq(self.db, stream, id)?;
        let highest = highest_seq(self.db, stream)?.unwrap_or(deleted);
        let first = first_behind(self.db, stream, deleted + 1..highest + 1, after)?;
        let mut statement = self.db.prepare_cached(EVENTS_OF_ONE)?;
        let mut batches = batches.of(statement.query(params![stream, as_i64(first)])?);
        let mut sequence = Sequence::from(first);
        while !self.full()
            && let Some(batch) = batches.next(self.limits())?
        {
            for raw in &batch.events {
                self.look_at(raw);
                rows::in_sequence(raw, id, &mut sequence)?;
                let event = rows::event(raw, &batch.bytes, id, &mut self.names)?;
                if self.query.matches(id, &event.record.tags) {
                    self.push(id.clone(), event);
                }
            }
        }
        Ok(!self.full())
    }

    fn full(&self) -> bool {
        self.events.len() >= self.max || self.bytes >= PAGE_BYTES_MAX || self.looked >= WINDOW
    }

    /// Of the next batch, so that the page is full with its last row or later.
    fn limits(&self) -> (usize, usize) {
        let looks = usize::try_from(WINDOW - self.looked).unwrap_or(usize::MAX);
        let events = (self.max - self.events.len()).min(looks);
        (events, PAGE_BYTES_MAX - self.bytes)
    }

    /// Takes note of a row; whether it is to be read: the events of some rows are deleted.
    fn look_at(&mut self, raw: &RawEvent) -> bool {
        self.looked += 1;
        self.through = raw.position;
        self.hidden
            .get(&raw.stream)
            .is_none_or(|deleted| raw.seq > *deleted)
    }

    fn push(&mut self, id: PersistenceId, event: StoredEvent) {
        self.bytes += event.record.payload.len();
        self.events.push(FoundEvent::new(id, event));
    }
}

/// The first number of a stream, in a range, whose event lies behind a position: by bisection, for
/// positions grow with the numbers.
fn first_behind(
    db: &Connection,
    stream: i64,
    range: Range<u64>,
    after: u64,
) -> rusqlite::Result<u64> {
    let (mut low, mut high) = (range.start, range.end.max(range.start));
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(db, stream, as_i64(middle))? {
            Some((seq, position)) if position <= after => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The ids behind `after` that have events.
fn ids(
    db: &Connection,
    after: Option<&PersistenceId>,
    max: usize,
) -> Result<Vec<PersistenceId>, ReadFault> {
    let mut select = db.prepare_cached(
        "SELECT s.id FROM streams AS s LEFT JOIN deleted AS d ON d.stream = s.stream
         WHERE s.id > ?1 AND (
             EXISTS (SELECT 1 FROM places AS p
                 WHERE p.stream = s.stream AND p.seq > coalesce(d.seq, 0))
             OR EXISTS (SELECT 1 FROM places_new AS p
                 WHERE p.stream = s.stream AND p.seq > coalesce(d.seq, 0)))
         ORDER BY s.id LIMIT ?2",
    )?;
    let after = after.map_or("", PersistenceId::as_str);
    let rows = select.query_map(params![after, limit(max)], |row| row.get::<_, String>(0))?;
    let mut ids = Vec::new();
    for text in rows {
        let text = text?;
        let Some(id) = PersistenceId::parse(&text) else {
            let reason = format!("{text:?} is no persistence id");
            return Err(ReadFault::Journal(JournalError::Refused { reason }));
        };
        ids.push(id);
    }
    Ok(ids)
}

impl EventQueries for SqliteJournal {
    fn events<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<QueryPage, JournalError>> {
        let query = query.clone();
        self.read_on(move |reader| page(reader, &query, after, max))
            .boxed()
    }

    fn changed(&self, after: u64) -> BoxFuture<'_, Result<u64, JournalError>> {
        self.wait_behind(after).boxed()
    }

    fn ids<'a>(
        &'a self,
        after: Option<&'a PersistenceId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<PersistenceId>, JournalError>> {
        let after = after.cloned();
        self.read_on(move |reader| ids(&reader.db, after.as_ref(), max))
            .boxed()
    }
}
