//! Show: what people see while it runs: a bar on a terminal, plain lines anywhere else.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::grouped;

/// Plain progress lines come at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// Where things are shown, with the time since the start before each line.
#[derive(Debug)]
pub(crate) struct Show {
    started: Instant,
    bar: Option<ProgressBar>,
    total: u64,
}

/// The state of the replay at one moment.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) acknowledged: u64,
    pub(crate) per_second: u64,
    /// Members and shards in words.
    pub(crate) cluster: String,
}

impl Show {
    /// A show of a replay of `total` commands.
    pub(crate) fn new(total: u64) -> Self {
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            let style = "{bar:32.cyan/blue} {pos}/{len} acknowledged  {msg}";
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self {
            started: Instant::now(),
            bar,
            total,
        }
    }

    /// How often [`Show::progress`] is worth calling.
    pub(crate) fn interval(&self) -> Duration {
        if self.bar.is_some() {
            Duration::from_millis(200)
        } else {
            PLAIN_EVERY
        }
    }

    /// Shows something that happened.
    pub(crate) fn event(&self, text: &str) {
        let line = format!("[{:6.2} s] {text}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => print(&line),
        }
    }

    /// Shows how far the replay is.
    pub(crate) fn progress(&self, progress: &Progress) {
        let Progress {
            acknowledged,
            per_second,
            cluster,
        } = progress;
        match &self.bar {
            Some(bar) => {
                bar.set_position(*acknowledged);
                bar.set_message(format!("{}/s  {cluster}", grouped(*per_second)));
            }
            None => self.event(&format!(
                "{} of {} acknowledged, {}/s; {cluster}",
                grouped(*acknowledged),
                grouped(self.total),
                grouped(*per_second),
            )),
        }
    }

    /// Shows text as it is, without a time.
    pub(crate) fn text(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(text)),
            None => print(text),
        }
    }

    /// Takes the bar away; lines may follow.
    pub(crate) fn end_progress(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line. A reader that went away (`flights | head`) is no reason to fail.
fn print(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
