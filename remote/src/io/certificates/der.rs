//! Der: reads the few fields of a certificate that TLS does not hand out: dates, names, its kind.
//!
//! What is read here is shown to people, and decides nothing: rustls-webpki checks certificates.

use std::time::{Duration, SystemTime};

const BOOLEAN: u8 = 0x01;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// The fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fields {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) is_authority: bool,
}

/// Reads them; `None` if this is no certificate.
pub(crate) fn fields(certificate: &[u8]) -> Option<Fields> {
    let mut whole = Reader(certificate);
    let mut outer = Reader(whole.take(SEQUENCE)?);
    let mut tbs = Reader(outer.take(SEQUENCE)?);
    tbs.skip_if(VERSION);
    tbs.next()?; // serial number
    tbs.take(SEQUENCE)?; // algorithm
    let issuer = common_name(tbs.take(SEQUENCE)?);
    let mut validity = Reader(tbs.take(SEQUENCE)?);
    let not_before = time(validity.next()?)?;
    let not_after = time(validity.next()?)?;
    let subject = common_name(tbs.take(SEQUENCE)?);
    Some(Fields {
        issuer,
        subject,
        not_before,
        not_after,
        is_authority: is_authority(tbs).unwrap_or(false),
    })
}

/// Tag by tag, without recursion; lengths are held against what is there.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = digits.iter().fold(0, |n, &d| n << 8 | usize::from(d));
                (length, rest)
            }
            _ => return None,
        };
        let (body, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, body))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, body)| body)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

/// The common name in a distinguished name; empty without one.
fn common_name(name: &[u8]) -> String {
    let mut sets = Reader(name);
    while let Some((_, set)) = sets.next() {
        let mut set = Reader(set);
        while let Some((_, pair)) = set.next() {
            let mut pair = Reader(pair);
            if pair.take(OID) == Some(COMMON_NAME)
                && let Some((_, text)) = pair.next()
            {
                return String::from_utf8_lossy(text).into_owned();
            }
        }
    }
    String::new()
}

/// Whether basic constraints, in what follows the subject, say that this is an authority.
fn is_authority(mut rest: Reader<'_>) -> Option<bool> {
    let extensions = loop {
        let (tag, body) = rest.next()?;
        if tag == EXTENSIONS {
            break body;
        }
    };
    let mut all = Reader(Reader(extensions).take(SEQUENCE)?);
    while let Some((_, extension)) = all.next() {
        let mut extension = Reader(extension);
        if extension.take(OID)? != BASIC_CONSTRAINTS {
            continue;
        }
        extension.skip_if(BOOLEAN);
        let (_, value) = extension.next()?;
        let mut constraints = Reader(Reader(value).take(SEQUENCE)?);
        return Some(constraints.take(BOOLEAN).is_some_and(|flag| flag != [0]));
    }
    Some(false)
}

fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = digits.get(from..to)?;
        Some(digits.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, at + 2)?, number(at + 2, at + 4)?);
    let seconds =
        number(at + 4, at + 6)? * 3600 + number(at + 6, at + 8)? * 60 + number(at + 8, at + 10)?;
    let days = days_since_epoch(year, month, day)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` for one before it. The year is
/// counted from March, so that the leap day is its last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(EPOCH)
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Year, month and day of a number of days since 1970-01-01.
pub(crate) fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    (year, (month + 2) % 12 + 1, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (2000, 2, 29, 11_016),
            (2000, 3, 1, 11_017),
            (2026, 11, 29, 20_786),
            (2100, 3, 1, 47_541),
            (4096, 1, 1, 776_506),
        ] {
            assert_eq!(days_since_epoch(year, month, day), Some(days), "{year}");
            assert_eq!(date_of(days), (year, month, day));
        }
        assert_eq!(days_since_epoch(1969, 12, 31), None);
        assert_eq!(days_since_epoch(2000, 13, 1), None);
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let read = time((UTC_TIME, b"700102000001Z")).unwrap();
        assert_eq!(seconds(read), Duration::from_secs(86_401));
        assert_eq!(time((UTC_TIME, b"7001020000Z")), None);
        assert_eq!(time((GENERALIZED_TIME, b"20000102000001")), None);
    }

    #[test]
    fn the_fields_of_a_certificate_that_another_tool_made() {
        let read = fields(include_bytes!("../../../fixtures/v1/certificate.der")).unwrap();
        assert_eq!(
            (&*read.subject, &*read.issuer),
            ("An authority", "An authority")
        );
        assert!(read.is_authority);
        let shown = [read.not_before, read.not_after].map(super::super::show_time);
        assert_eq!(
            shown,
            ["2026-11-29 23:39:29 UTC", "2036-11-26 23:39:29 UTC"]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = fields(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0_usize..1_000, byte in any::<u8>()) {
            let mut certificate = include_bytes!("../../../fixtures/v1/certificate.der").to_vec();
            let length = certificate.len();
            certificate[at % length] = byte;
            let _ = fields(&certificate);
            certificate.truncate(at % length);
            prop_assert_eq!(fields(&certificate), None);
        }

        #[test]
        fn every_day_has_its_date(days in 0_u64..1_000_000) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_since_epoch(year, month, day), Some(days));
        }
    }
}
