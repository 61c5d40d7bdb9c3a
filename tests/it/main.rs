//! Proves: the whole stack holds with real processes on loopback.

mod flights_parts;
