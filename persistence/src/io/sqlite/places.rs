//! Places: the index by which the events of an id are found, new entries apart from old ones.
//!
//! An entry says at which position an event of a stream lies. Kept in one table in the order of
//! streams, each writer has a page of its own in it: a commit of 1,000 writers changed 800 pages of 4 KiB
//! for 16 kB of entries, and all of them went to the log, through its checksums, and back into the main
//! file. So new entries go to a small table, `places_new`, where those of a commit share pages. Once it
//! holds `new_places_max` of the configuration, each commit moves as many entries to `places` as it added:
//! those of neighbouring streams, so that they share pages there, too. The next commit goes on behind
//! them, and round again. (The idea is that of a log-structured merge tree, O'Neil et al. 1996, whose small
//! component is merged into the large one a little at a time.)
//!
//! **Invariant:** each row of `events` has one entry, in one of the two tables. The entries of a stream
//! in `places` have lower numbers than those in `places_new`, for each move takes the first ones of a
//! stream. So who reads a stream reads `places`, then `places_new`.
//!
//! What could be lost is only the way to an event: the tables can be made anew from `events`, which
//! has stream and number of each. [`super::verify`] compares them.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

/// A merge moves at least this part of what may be new, so that commits of one event seldom have one.
const MERGE_PART: i64 = 32;

/// The entries of a transaction, and how far the merge is. Both numbers are kept in `head`.
pub(super) struct Places<'a> {
    db: &'a Connection,
    new_max: i64,
    /// Entries in `places_new`.
    new: i64,
    /// The stream from which on the next merge takes.
    merge_from: i64,
    /// It is not looked for again for each event.
    insert: Option<CachedStatement<'a>>,
}

impl<'a> Places<'a> {
    pub(super) fn begin(db: &'a Connection, new_max: u32) -> rusqlite::Result<Self> {
        let (new, merge_from) = db
            .prepare_cached("SELECT places_new, merge_from FROM head")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self {
            db,
            new_max: new_max.into(),
            new,
            merge_from,
            insert: None,
        })
    }

    /// Takes note of a new event.
    pub(super) fn insert(&mut self, stream: i64, seq: u64, position: u64) -> rusqlite::Result<()> {
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => none.insert(
                self.db
                    .prepare_cached("INSERT INTO places_new VALUES (?1, ?2, ?3)")?,
            ),
        };
        insert.execute([stream, seq.cast_signed(), position.cast_signed()])?;
        self.new = self.new.saturating_add(1);
        Ok(())
    }

    /// Forgets the events of a stream up to a number.
    pub(super) fn remove(&mut self, stream: i64, seq_max: u64) -> rusqlite::Result<()> {
        let seq_max = seq_max.cast_signed();
        self.db
            .prepare_cached("DELETE FROM places WHERE stream = ?1 AND seq <= ?2")?
            .execute([stream, seq_max])?;
        let removed = self
            .db
            .prepare_cached("DELETE FROM places_new WHERE stream = ?1 AND seq <= ?2")?
            .execute([stream, seq_max])?;
        self.new = self.new.saturating_sub(removed as i64);
        Ok(())
    }

    /// Moves entries if there are too many new ones. Returns what `head` is to keep: how many are
    /// left, and the stream from which on the next merge takes.
    pub(super) fn merge(&mut self) -> rusqlite::Result<(i64, i64)> {
        let too_many = self.new.saturating_sub(self.new_max);
        if too_many > 0 {
            self.merge_some(too_many.max(self.new_max / MERGE_PART))?;
        }
        Ok((self.new, self.merge_from))
    }

    fn merge_some(&mut self, wanted: i64) -> rusqlite::Result<()> {
        let last: Option<(i64, i64)> = self
            .db
            .prepare_cached(
                "SELECT stream, seq FROM places_new WHERE stream >= ?1
                 ORDER BY stream, seq LIMIT 1 OFFSET ?2",
            )?
            .query_row([self.merge_from, wanted - 1], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (stream, seq) = last.unwrap_or((i64::MAX, i64::MAX));
        let moved = self
            .db
            .prepare_cached(MERGE)?
            .execute([self.merge_from, stream, seq])?;
        self.db
            .prepare_cached(MERGED)?
            .execute([self.merge_from, stream, seq])?;
        self.new = self.new.saturating_sub(moved as i64);
        match last {
            Some((stream, _)) => self.merge_from = stream,
            // All are moved, whatever a damaged count said.
            None if self.merge_from == 0 => self.new = 0,
            None => self.merge_from = 0,
        }
        Ok(())
    }
}

const MERGE: &str = "INSERT INTO places SELECT stream, seq, position FROM places_new
    WHERE stream >= ?1 AND (stream, seq) <= (?2, ?3) ORDER BY stream, seq";
const MERGED: &str = "DELETE FROM places_new WHERE stream >= ?1 AND (stream, seq) <= (?2, ?3)";

/// The newest sequence number of a stream that is there.
pub(super) fn highest_seq(db: &Connection, stream: i64) -> rusqlite::Result<Option<u64>> {
    let highest: Option<i64> = db
        .prepare_cached(
            "SELECT coalesce(
                 (SELECT seq FROM places_new WHERE stream = ?1 ORDER BY seq DESC LIMIT 1),
                 (SELECT seq FROM places WHERE stream = ?1 ORDER BY seq DESC LIMIT 1))",
        )?
        .query_row([stream], |row| row.get(0))?;
    Ok(highest.map(i64::cast_unsigned))
}

/// Number and position of the first event of a stream from a number on.
pub(super) fn first_from(
    db: &Connection,
    stream: i64,
    from_seq: i64,
) -> rusqlite::Result<Option<(u64, u64)>> {
    db.prepare_cached(
        "SELECT seq, position FROM places WHERE stream = ?1 AND seq >= ?2
         UNION ALL SELECT seq, position FROM places_new WHERE stream = ?1 AND seq >= ?2
         ORDER BY seq LIMIT 1",
    )?
    .query_row([stream, from_seq], |row| {
        let (seq, position): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok((seq.cast_unsigned(), position.cast_unsigned()))
    })
    .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sqlite::schema;
    use std::collections::BTreeMap;

    /// What there should be: the position of each event, by stream and number.
    type Model = BTreeMap<(i64, u64), u64>;

    const NEW_MAX: u32 = 8192;

    struct Run {
        db: Connection,
        /// A number that is like a random one, from a seed.
        state: u64,
        model: Model,
        newest: BTreeMap<i64, u64>,
        position: u64,
    }

    impl Run {
        fn new(seed: u64) -> Self {
            let db = Connection::open_in_memory().unwrap();
            schema::create(&db).unwrap();
            Self {
                db,
                state: seed,
                model: Model::new(),
                newest: BTreeMap::new(),
                position: 0,
            }
        }

        fn below(&mut self, end: u64) -> u64 {
            // splitmix64, Steele et al. 2014.
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % end
        }

        /// One commit: some events of some streams, perhaps a stream that is cut short.
        fn commit(&mut self, streams: u64, events: u64) {
            let additions: Vec<_> = (0..events)
                .map(|_| self.below(streams).cast_signed() + 1)
                .collect();
            let cut = (self.below(4) == 0).then(|| self.below(streams).cast_signed() + 1);
            let mut places = Places::begin(&self.db, NEW_MAX).unwrap();
            for stream in additions {
                let seq = self.newest.entry(stream).or_default();
                *seq += 1;
                self.position += 1;
                places.insert(stream, *seq, self.position).unwrap();
                self.model.insert((stream, *seq), self.position);
            }
            if let Some(stream) = cut {
                let seq_max = self.newest.get(&stream).copied().unwrap_or_default() / 2;
                places.remove(stream, seq_max).unwrap();
                self.model
                    .retain(|(of, seq), _| *of != stream || *seq > seq_max);
            }
            let head = places.merge().unwrap();
            drop(places);
            self.db
                .execute("UPDATE head SET places_new = ?1, merge_from = ?2", head)
                .unwrap();
        }

        fn table(&self, name: &str) -> Model {
            let mut select = self.db.prepare(&format!("SELECT * FROM {name}")).unwrap();
            let rows = select.query_map([], |row| {
                let (seq, position): (i64, i64) = (row.get(1)?, row.get(2)?);
                let place = (row.get(0)?, seq.cast_unsigned());
                Ok((place, position.cast_unsigned()))
            });
            rows.unwrap().map(Result::unwrap).collect()
        }

        /// Returns how many places are new.
        fn check(&self, seed: u64) -> i64 {
            let (merged, new) = (self.table("places"), self.table("places_new"));
            for (stream, seq) in new.keys() {
                let behind = merged.range((*stream, *seq)..=(*stream, u64::MAX)).next();
                assert_eq!(behind, None, "seed {seed}: {stream}, {seq}");
            }
            let count: i64 = self
                .db
                .query_row("SELECT places_new FROM head", [], |row| row.get(0))
                .unwrap();
            assert_eq!(count, new.len() as i64, "seed {seed}");
            let all: Model = merged.into_iter().chain(new).collect();
            assert!(all == self.model, "seed {seed}");
            count
        }

        /// What readers ask for.
        fn check_reads(&self, seed: u64, stream: i64) {
            let of_stream = self.model.range((stream, 0)..=(stream, u64::MAX));
            let highest = of_stream.clone().next_back().map(|((_, seq), _)| *seq);
            assert_eq!(
                highest_seq(&self.db, stream).unwrap(),
                highest,
                "seed {seed}"
            );
            let from = highest.unwrap_or_default() * 2 / 3;
            let first = of_stream
                .map(|((_, seq), position)| (*seq, *position))
                .find(|(seq, _)| *seq >= from);
            let found = first_from(&self.db, stream, from.cast_signed()).unwrap();
            assert_eq!(found, first, "seed {seed}");
        }
    }

    /// Over random commits: each event has one place, the new ones lie behind the merged ones, and they
    /// do not become many.
    #[test]
    fn every_event_has_one_place_in_order() {
        for (seed, streams, events) in [
            (1, 1, 2500),
            (2, 3, 2500),
            (3, 700, 1000),
            (4, 50_000, 3000),
        ] {
            let mut run = Run::new(seed);
            for _ in 0..30 {
                let events = run.below(events) + 1;
                run.commit(streams, events);
                let new = run.check(seed);
                assert!(new <= i64::from(NEW_MAX) + 3000, "seed {seed}: {new}");
            }
            assert!(!run.table("places").is_empty(), "seed {seed}");
            for stream in 0..=streams.min(1000).cast_signed() {
                run.check_reads(seed, stream);
            }
        }
    }

    /// A commit of one event costs what it did, but for one of many.
    #[test]
    fn small_commits_seldom_merge() {
        let mut run = Run::new(5);
        run.commit(10, NEW_MAX.into());
        let mut merges = 0;
        for _ in 0..1000 {
            let before = run.table("places").len();
            run.commit(10, 1);
            merges += u32::from(run.table("places").len() > before);
        }
        run.check(5);
        assert!((1..=4).contains(&merges), "{merges}");
    }

    #[test]
    fn a_damaged_count_heals_when_all_is_merged() {
        let mut run = Run::new(6);
        run.commit(10, 100);
        run.db
            .execute_batch("UPDATE head SET places_new = 0x7FFFFFFFFFFFFFFF, merge_from = 5")
            .unwrap();
        run.commit(10, 1);
        run.commit(10, 1);
        run.check(6);
    }

    #[test]
    fn a_merge_looks_at_what_it_moves() {
        let db = Connection::open_in_memory().unwrap();
        schema::create(&db).unwrap();
        for statement in [MERGE, MERGED] {
            let plan = db.query_row(
                &format!("EXPLAIN QUERY PLAN {statement}"),
                [1, 2, 3],
                |row| row.get::<_, String>(3),
            );
            let step = "SEARCH places_new USING PRIMARY KEY (stream>? AND (stream,seq)<(?,?))";
            assert_eq!(plan.unwrap(), step);
        }
    }
}
