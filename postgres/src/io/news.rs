//! News: how readers learn of new events without asking again and again.
//!
//! Readers of this process are told by the committer. Other processes are told by `NOTIFY`, which
//! stands beside the appends and not in them: a transaction that notifies takes a lock of the whole
//! server when it commits. One notice in [`NOTIFY_PAUSE`] is enough, it says how far the journal has
//! come. Nothing rests on it: whoever hears nothing looks for itself after a while.

use crate::config::PostgresConfig;
use crate::io::connect::connect;
use crate::io::fault::describe;
use crate::io::server::Server;
use otava_persistence::JournalError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What is known of the newest event.
pub(crate) struct News {
    /// By whomever it was written.
    newest: Arc<watch::Sender<Newest>>,
    /// By this process.
    own: watch::Sender<u64>,
    listening: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Newest {
    position: u64,
    closed: bool,
}

/// Between two notices of one process.
const NOTIFY_PAUSE: Duration = Duration::from_millis(10);

/// Between two attempts to listen.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Notices that may wait. One that does not fit is not missed: those that wait wake the readers too.
const NOTICES_MAX: usize = 64;

impl News {
    pub(crate) fn new() -> Self {
        Self {
            newest: Arc::new(watch::Sender::new(Newest::default())),
            own: watch::Sender::new(0),
            listening: AtomicBool::new(false),
        }
    }

    /// This process has written an event at `position`.
    pub(crate) fn committed(&self, position: u64) {
        raise(&self.newest, position);
        self.own.send_if_modified(|own| {
            let newer = position > *own;
            *own = position.max(*own);
            newer
        });
    }

    pub(crate) fn close(&self) {
        self.newest.send_modify(|newest| newest.closed = true);
    }

    /// Waits until there may be an event behind `after`.
    pub(crate) async fn changed(&self, server: &Server, after: u64) -> Result<u64, JournalError> {
        if !self.listening.swap(true, Ordering::AcqRel) {
            let newest = Arc::downgrade(&self.newest);
            tokio::spawn(listen(
                server.config.clone(),
                newest,
                self.newest.subscribe(),
            ));
        }
        let mut newest = self.newest.subscribe();
        let told = async {
            let reached = newest.wait_for(|newest| newest.closed || newest.position > after);
            reached.await.ok().map(|newest| *newest)
        };
        match tokio::time::timeout(server.config.poll_interval, told).await {
            Ok(Some(Newest {
                closed: false,
                position,
            })) => Ok(position),
            Ok(_) => Err(JournalError::Closed),
            Err(_) => {
                let position = crate::io::queries::newest(server).await?;
                raise(&self.newest, position);
                Ok(position.max(after))
            }
        }
    }
}

fn raise(newest: &watch::Sender<Newest>, position: u64) {
    newest.send_if_modified(|newest| {
        let newer = position > newest.position;
        newest.position = position.max(newest.position);
        newer
    });
}

fn channel(config: &PostgresConfig) -> String {
    format!("otava_{}", config.schema)
}

/// Tells other processes what this one has written, until the server is gone.
pub(crate) fn start_notifier(server: &Arc<Server>) {
    let mut own = server.news.own.subscribe();
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        while own.changed().await.is_ok() {
            let position = *own.borrow_and_update();
            let Some(server) = server.upgrade().filter(|server| !server.is_closed()) else {
                return;
            };
            notify(&server, position).await;
            drop(server);
            tokio::time::sleep(NOTIFY_PAUSE).await;
        }
    });
}

async fn notify(server: &Server, position: u64) {
    let Ok(client) = server.client().await else {
        return;
    };
    // Without waiting for the disk: it is lost only together with the connections that it is for.
    let text = format!(
        "BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {}, '{position}'; COMMIT",
        channel(&server.config)
    );
    if let Err(error) = client.batch_execute(&text).await {
        tracing::debug!(error = describe(&error), "cannot notify of new events");
    }
}

/// Listens to what other processes tell, until the store is closed or gone.
async fn listen(
    config: PostgresConfig,
    newest: Weak<watch::Sender<Newest>>,
    mut closed: watch::Receiver<Newest>,
) {
    let listening = async {
        loop {
            if let Err(error) = listen_once(&config, &newest).await {
                tracing::debug!(error, "cannot listen for new events");
            }
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        _ = closed.wait_for(|newest| newest.closed) => {}
        () = listening => {}
    }
}

/// Listens for as long as the connection lives.
async fn listen_once(
    config: &PostgresConfig,
    newest: &Weak<watch::Sender<Newest>>,
) -> Result<(), String> {
    let (sender, mut notices) = mpsc::channel(NOTICES_MAX);
    let client = connect(config, Some(sender)).await?;
    let text = format!("LISTEN {}", channel(config));
    let listening = client.batch_execute(&text).await;
    listening.map_err(|error| describe(&error))?;
    // What was written before it listened.
    let sql = format!("SELECT max(position) FROM \"{}\".events", config.schema);
    let row = client.query_one(&sql, &[]).await;
    let first: Option<i64> = row.map_err(|error| describe(&error))?.get(0);
    let mut position = first.unwrap_or_default().cast_unsigned();
    loop {
        match newest.upgrade() {
            Some(newest) => raise(&newest, position),
            None => return Ok(()),
        }
        let Some(notice) = notices.recv().await else {
            return Err("the connection ended".to_owned());
        };
        position = notice.payload().parse().unwrap_or(position);
    }
}
