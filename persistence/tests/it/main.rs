//! Proves: stores keep what they acknowledged, whatever ends the process.
