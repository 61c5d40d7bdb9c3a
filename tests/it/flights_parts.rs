//! Parts: the modules of the example `flights`; Cargo runs no tests of an example, so they run here.
#![allow(dead_code, reason = "what the example uses, its tests need not")]

#[path = "../../examples/flights/compare.rs"]
mod compare;
#[path = "../../examples/flights/flight.rs"]
mod flight;
#[path = "../../examples/flights/input.rs"]
mod input;
#[path = "../../examples/flights/latency.rs"]
mod latency;
#[path = "../../examples/flights/options.rs"]
mod options;
#[path = "../../examples/flights/processes.rs"]
mod processes;
#[path = "../../examples/flights/replay.rs"]
mod replay;
#[path = "../../examples/flights/report.rs"]
mod report;
#[path = "../../examples/flights/show.rs"]
mod show;
#[path = "../../examples/flights/table.rs"]
mod table;
#[path = "../../examples/flights/tally.rs"]
mod tally;
#[path = "../../examples/flights/view.rs"]
mod view;
#[path = "../../examples/flights/window.rs"]
mod window;
