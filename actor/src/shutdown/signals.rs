//! Signals: SIGTERM and SIGINT (Ctrl-C on Windows) begin a coordinated shutdown.

use super::coordinated::CoordinatedShutdown;
use super::report::ShutdownReason;
use std::io;

impl CoordinatedShutdown {
    /// Lets SIGTERM and SIGINT begin the shutdown; on Windows, Ctrl-C. From now on these signals no
    /// longer end the process by themselves: the program ends when its `main` returns, so `main`
    /// should wait for [`CoordinatedShutdown::finished`]. Further signals change nothing.
    ///
    /// The listener holds a handle on the system until the system has ended.
    ///
    /// # Errors
    /// The operating system refused the registration.
    ///
    /// # Panics
    /// If the runtime of the system was built without `enable_io` or `enable_all`.
    pub fn on_signals(&self) -> io::Result<()> {
        let _inside = self.system().handle().enter();
        let mut signals = Signals::register()?;
        let shutdown = self.clone();
        drop(self.system().handle().spawn(async move {
            loop {
                let name = tokio::select! {
                    biased;
                    () = shutdown.system().ended() => return,
                    name = signals.next() => name,
                };
                if !shutdown.start(ShutdownReason::Signal(name)) {
                    tracing::info!(
                        signal = name,
                        "the coordinated shutdown is under way already"
                    );
                }
            }
        }));
        Ok(())
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn register() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            else => std::future::pending().await,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn register() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(()) => "Ctrl-C",
            None => std::future::pending().await,
        }
    }
}
