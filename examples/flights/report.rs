//! Report: writes the state of every aircraft as csv, sorted by tail number.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::tally::Tally;

/// Writes `tails` (sorted) with their `states`.
///
/// # Errors
/// When the file cannot be made or written.
pub(crate) fn write(path: &Path, tails: &[Arc<str>], states: &[Tally]) -> io::Result<()> {
    let mut out = csv::Writer::from_path(path)?;
    out.write_record(["tailnum", "flights", "cancelled", "miles", "arr_delay_sum"])?;
    for (tail, tally) in tails.iter().zip(states) {
        out.serialize((
            &**tail,
            tally.flights,
            tally.cancelled,
            tally.miles,
            tally.arr_delay_sum,
        ))?;
    }
    out.into_inner()
        .map_err(csv::IntoInnerError::into_error)?
        .sync_all()
}
