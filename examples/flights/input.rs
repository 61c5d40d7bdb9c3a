//! Input: reads departures from csv or csv.gz, whole, before anything is started.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;

use super::flight::{Flight, FlightError, FlightFields, FlightKey, check_tail_number};

/// The columns that are used; a file may have more, in any order.
const COLUMNS: [&str; 12] = [
    "year",
    "month",
    "day",
    "sched_dep_time",
    "dep_delay",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "distance",
];

/// A departure of an aircraft.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    /// Index into [`Input::tails`].
    pub(crate) tail: u32,
    pub(crate) flight: Flight,
}

/// A file that was read and found right.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Every tail number once, sorted.
    pub(crate) tails: Vec<Arc<str>>,
    /// In the order of the file.
    pub(crate) departures: Vec<Departure>,
    /// Rows that name no aircraft; they are left out.
    pub(crate) without_tail: u64,
    /// Rows that say again, word for word, what an earlier row said; they are left out.
    pub(crate) repeated: u64,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InputError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {}, after line {line}: {source}", path.display())]
    Read {
        path: PathBuf,
        line: u64,
        source: io::Error,
    },
    #[error("{}, line {line}: the header lacks the column {}", path.display(), missing.join(", "))]
    MissingColumns {
        path: PathBuf,
        line: u64,
        missing: Vec<&'static str>,
    },
    #[error("{}, line {line}: {reason}", path.display())]
    Row {
        path: PathBuf,
        line: u64,
        reason: RowError,
    },
    #[error("{}: no row names an aircraft, there is nothing to replay", path.display())]
    Empty { path: PathBuf },
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RowError {
    #[error(transparent)]
    Field(#[from] FlightError),
    #[error("{0}")]
    Csv(String),
    #[error("aircraft {tail} has this flight already on line {line}, with other facts")]
    Contradiction { tail: Arc<str>, line: u64 },
}

/// Reads the file at `path`.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(crate) fn read(path: &Path) -> Result<Input, InputError> {
    let open = |source| InputError::Open {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(open)?;
    let mut bytes = BufReader::with_capacity(1 << 16, file);
    let start = bytes.fill_buf().map_err(open)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        parse(path, MultiGzDecoder::new(bytes))
    } else {
        parse(path, bytes)
    }
}

fn parse(path: &Path, bytes: impl Read) -> Result<Input, InputError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let header = reader
        .headers()
        .map_err(|error| csv_error(path, 0, error))?;
    let columns = Columns::find(header).map_err(|missing| InputError::MissingColumns {
        path: path.into(),
        line: 1,
        missing,
    })?;

    let mut rows = Rows::default();
    let mut record = StringRecord::new();
    let mut line = 1;
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(csv_error(path, line, error)),
        }
        line = record.position().map_or(line + 1, csv::Position::line);
        rows.add(&columns, &record, line)
            .map_err(|reason| InputError::Row {
                path: path.into(),
                line,
                reason,
            })?;
    }
    let input = rows.finish();
    if input.departures.is_empty() {
        return Err(InputError::Empty { path: path.into() });
    }
    Ok(input)
}

fn csv_error(path: &Path, after_line: u64, error: csv::Error) -> InputError {
    let line = error.position().map_or(after_line + 1, csv::Position::line);
    let path = path.to_path_buf();
    let reason = match error.into_kind() {
        csv::ErrorKind::Io(source) => {
            return InputError::Read {
                path,
                line: after_line,
                source,
            };
        }
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("{len} fields, but the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("not UTF-8: {err}"),
        other => format!("not csv: {other:?}"),
    };
    InputError::Row {
        path,
        line,
        reason: RowError::Csv(reason),
    }
}

/// Where each used column stands in the file's own order, in the order of [`COLUMNS`].
struct Columns([usize; COLUMNS.len()]);

impl Columns {
    fn find(header: &StringRecord) -> Result<Self, Vec<&'static str>> {
        let place = |name: &str| header.iter().position(|column| column == name);
        let missing: Vec<_> = COLUMNS
            .into_iter()
            .filter(|name| place(name).is_none())
            .collect();
        if missing.is_empty() {
            Ok(Self(
                COLUMNS.map(|name| place(name).expect("none is missing")),
            ))
        } else {
            Err(missing)
        }
    }

    /// A row's fields; `None` for a row without a tail number.
    fn fields<'r>(&self, row: &'r StringRecord) -> Result<Option<Fields<'r>>, FlightError> {
        let [
            year,
            month,
            day,
            sched,
            dep,
            arr,
            carrier,
            flight,
            tail,
            origin,
            _dest,
            distance,
        ] = self.0;
        let text = |column: usize| row.get(column).unwrap_or_default();
        let tail = text(tail);
        let flight = FlightFields {
            year: whole("year", text(year))?,
            month: whole("month", text(month))?,
            day: whole("day", text(day))?,
            sched_dep_time: whole("sched_dep_time", text(sched))?,
            dep_delay: maybe_whole("dep_delay", text(dep))?,
            arr_delay: maybe_whole("arr_delay", text(arr))?,
            carrier: text(carrier),
            flight: whole("flight", text(flight))?,
            origin: text(origin),
            distance: whole("distance", text(distance))?,
        };
        let known = !is_unknown(tail);
        Ok(known.then_some(Fields { tail, flight }))
    }
}

struct Fields<'r> {
    tail: &'r str,
    flight: FlightFields<'r>,
}

/// What was read so far.
#[derive(Default)]
struct Rows {
    tails: BTreeMap<Arc<str>, u32>,
    departures: Vec<Departure>,
    lines: Vec<u32>,
    first_seen: HashMap<(u32, FlightKey), u32>,
    without_tail: u64,
    repeated: u64,
}

impl Rows {
    fn add(&mut self, columns: &Columns, row: &StringRecord, line: u64) -> Result<(), RowError> {
        let Some(Fields { tail, flight }) = columns.fields(row)? else {
            self.without_tail += 1;
            return Ok(());
        };
        let flight = Flight::try_from(flight)?;
        let tail = self.intern(check_tail_number(tail)?);
        let next = u32::try_from(self.departures.len()).expect("fewer rows than 2^32");
        match self.first_seen.entry((tail, flight.key)) {
            Entry::Vacant(free) => {
                free.insert(next);
                self.departures.push(Departure { tail, flight });
                self.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
                Ok(())
            }
            Entry::Occupied(first) => {
                let first = *first.get() as usize;
                if self.departures[first].flight == flight {
                    self.repeated += 1;
                    return Ok(());
                }
                let line = u64::from(self.lines[first]);
                let named = |(name, _): (&Arc<str>, _)| Arc::clone(name);
                let tail = self
                    .tails
                    .iter()
                    .find(|(_, index)| **index == tail)
                    .map(named);
                let tail = tail.expect("an interned tail number");
                Err(RowError::Contradiction { tail, line })
            }
        }
    }

    fn intern(&mut self, tail: &str) -> u32 {
        if let Some(&index) = self.tails.get(tail) {
            return index;
        }
        let index = u32::try_from(self.tails.len()).expect("fewer aircraft than 2^32");
        self.tails.insert(tail.into(), index);
        index
    }

    /// Renumbers the aircraft by name.
    fn finish(self) -> Input {
        let mut new_index = vec![0; self.tails.len()];
        for (place, &index) in self.tails.values().enumerate() {
            new_index[index as usize] = u32::try_from(place).expect("fewer aircraft than 2^32");
        }
        let mut departures = self.departures;
        for departure in &mut departures {
            departure.tail = new_index[departure.tail as usize];
        }
        Input {
            tails: self.tails.into_keys().collect(),
            departures,
            without_tail: self.without_tail,
            repeated: self.repeated,
        }
    }
}

fn is_unknown(text: &str) -> bool {
    text.is_empty() || text == "NA"
}

fn maybe_whole(column: &'static str, text: &str) -> Result<Option<i64>, FlightError> {
    if is_unknown(text) {
        Ok(None)
    } else {
        whole(column, text).map(Some)
    }
}

/// A whole number; `17.0`, as some tools write it, is one.
fn whole(column: &'static str, text: &str) -> Result<i64, FlightError> {
    let digits = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole,
        _ => text,
    };
    digits
        .parse()
        .map_err(|_| FlightError::new(column, text, "a whole number"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::tally::{Tally, scan};
    use super::*;

    const HEADER: &str = "distance,extra,year,month,day,sched_dep_time,dep_delay,arr_delay,\
                          carrier,flight,tailnum,origin,dest";

    fn read_text(rows: &str) -> Result<Input, String> {
        let text = format!("{HEADER}\n{rows}");
        parse(Path::new("f.csv"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_found_by_name_and_sums_follow_the_rules() {
        let input = read_text(
            "1400,x,2013,1,1,515,2,11,UA,1545,N14228,EWR,IAH\n\
             200,x,2013,1,1,530,,,UA,9,N14228,EWR,IAH\n\
             300,x,2013,1,2,600,-1,NA,UA,9,N14228,EWR,IAH\n\
             50,x,2013,1,2,600.0,4.0,-20.0,B6,9,N00001,JFK,BQN\n\
             50,x,2013,1,2,600,4,-20,B6,9,NA,JFK,BQN\n\
             50,x,2013,1,2,700,4,-20,B6,9,,JFK,BQN\n",
        )
        .unwrap();
        assert_eq!(input.tails, ["N00001".into(), "N14228".into()]);
        assert_eq!((input.without_tail, input.repeated), (2, 0));
        let other = Tally {
            flights: 1,
            cancelled: 0,
            miles: 50,
            arr_delay_sum: -20,
        };
        let first = Tally {
            flights: 2,
            cancelled: 1,
            miles: 1700,
            arr_delay_sum: 11,
        };
        assert_eq!(scan(&input), [other, first]);
    }

    #[test]
    fn a_bad_row_is_named_by_line_and_column() {
        let good = "1,x,2013,1,1,515,2,11,UA,1545,N1,EWR,IAH\n";
        for (row, message) in [
            (
                "1,x,2013,1,1,5h,2,11,UA,1,N1,EWR,IAH",
                "f.csv, line 3: sched_dep_time is `5h`, expected a whole number",
            ),
            (
                "1,x,2013,1,1,515,2,11,UA,1,N1,EWR",
                "f.csv, line 3: 12 fields, but the header has 13",
            ),
            (
                "NA,x,2013,1,1,515,2,11,UA,1,N1,EWR,IAH",
                "f.csv, line 3: distance is `NA`, expected a whole number",
            ),
            (
                "1,x,2013,1,1,515,2,12,UA,1545,N1,EWR,IAH",
                "f.csv, line 3: aircraft N1 has this flight already on line 2, with other facts",
            ),
            (
                "1,x,2013,1,1,515,2,11,UA,1,N/1,EWR,IAH",
                "f.csv, line 3: tailnum is `N/1`, expected 1 to 32 printable ASCII characters \
                 without `/`",
            ),
        ] {
            assert_eq!(read_text(&format!("{good}{row}\n")).unwrap_err(), message);
        }
        assert_eq!(read_text(&format!("{good}{good}")).unwrap().repeated, 1);
    }

    #[test]
    fn missing_columns_and_empty_files_are_refused() {
        let error = parse(Path::new("f.csv"), "year,month,flight\n1,2,3\n".as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "f.csv, line 1: the header lacks the column day, sched_dep_time, dep_delay, \
             arr_delay, carrier, tailnum, origin, dest, distance"
        );
        assert!(read_text("").unwrap_err().contains("nothing to replay"));
        let missing = read(Path::new("no-such-file.csv")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("cannot open no-such-file.csv: ")
        );
    }

    #[test]
    fn gzip_is_told_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flights.csv");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        writeln!(gzip, "{HEADER}\n1,x,2013,1,1,515,2,11,UA,1545,N1,EWR,IAH").unwrap();
        let bytes = gzip.finish().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().departures.len(), 1);

        std::fs::write(&path, &bytes[..bytes.len() - 12]).unwrap();
        let cut = read(&path).unwrap_err().to_string();
        assert!(cut.contains("cannot read"), "{cut}");
    }

    #[test]
    fn the_shipped_file_has_its_known_numbers() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights-2013-01.csv.gz");
        let input = read(&path).unwrap();
        assert_eq!(input.departures.len(), 26_849);
        assert_eq!(
            (input.tails.len(), input.without_tail, input.repeated),
            (3_148, 155, 0)
        );
        let tallies = scan(&input);
        assert_eq!(tallies.iter().map(Tally::total).sum::<u32>(), 26_849);
    }
}
