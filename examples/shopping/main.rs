//! Shopping: event-sourced carts behind HTTP, and a report of what was sold that follows their events.
//!
//! ```text
//! cargo run --example shopping                 # drives itself, compares, ends
//! cargo run --example shopping -- --serve      # answers HTTP until Ctrl-C
//! OTAVA_POSTGRES_URL=postgres://.. cargo run --example shopping
//! ```
//!
//! Carts are entities; their events lie in a file below `target/shopping`, or in PostgreSQL. A projection
//! of four instances stores each checked-out cart in the report, exactly once: with PostgreSQL in a table
//! of the same database, else in memory, where it is built anew from the events at each start. The end
//! of the output, with other numbers:
//!
//! ```text
//! 300 carts checked out, 2245 pieces for 2892.26
//! exact: the report has what was acknowledged
//! ```
//!
//! The exit status is 0 only if the report is exact. `SEED=7` makes the same carts again.
#![allow(clippy::print_stdout, reason = "a program for people")]

mod cart;
mod drive;
mod http;
mod report;

use cart::Cart;
use otava::prelude::*;
use otava::{ClusterProjection, Entities, Journal, Projection, ShardingConfig};
use otava_persistence::EventQuery;
use otava_postgres::{PostgresConfig, PostgresJournal, PostgresResults};
use report::{InMemory, InPostgres, Report};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Whatever ends the program early, for people.
type Failure = Box<dyn std::error::Error>;

/// What the routes of HTTP and the driver need.
#[derive(Clone)]
struct Shop {
    carts: Entities<cart::Command>,
    report: Report,
    projection: ClusterProjection,
    journal: Arc<dyn Journal>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let builder = Node::builder("shop", "node-1").data("target/shopping");
    let (builder, report) = match std::env::var("OTAVA_POSTGRES_URL") {
        Ok(url) => {
            let config = PostgresConfig::parse(&url)?.schema("shopping");
            let journal = PostgresJournal::open(config).await?;
            let report = Report::in_postgres(journal.postgres_offsets()).await?;
            (builder.journal(Arc::new(journal)), report)
        }
        Err(_) => (builder, Report::in_memory()),
    };
    let node = builder.start().await?;
    let shop = open(&node, report)?;
    node.join().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("answers at http://{address}/report");
    let server = tokio::spawn(axum::serve(listener, http::routes(shop.clone())).into_future());
    let exact = if std::env::args().any(|argument| argument == "--serve") {
        tokio::signal::ctrl_c().await?;
        true
    } else {
        drive::drive(&shop, address).await?
    };
    server.abort();
    node.leave().await;
    if exact {
        Ok(())
    } else {
        Err("the report is wrong".into())
    }
}

/// Hosts carts and instances of the projection on a node.
fn open(node: &Node, report: Report) -> Result<Shop, Failure> {
    let carts = node.entities::<Cart>(EntityOptions::default())?;
    let sold = Projection::of::<Cart>("sold", node.journal().clone())
        .query(EventQuery::all().kind(Cart::KIND))
        .instances(4);
    let plan = match report.clone() {
        Report::Memory(table) => sold.exactly_once(move || InMemory(table.clone())),
        Report::Postgres(offsets) => {
            sold.exactly_once(move || PostgresResults::new(offsets.clone(), InPostgres))
        }
    };
    Ok(Shop {
        carts,
        report,
        projection: node.projection(plan, ShardingConfig::default())?,
        journal: node.journal().clone(),
    })
}
