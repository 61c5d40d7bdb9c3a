//! Drive: a seeded load over HTTP, and the comparison of the report with what was acknowledged, now and
//! in earlier runs.

use super::cart::{Cart, Event, Line};
use super::report::{Sold, add};
use super::{Failure, Shop};
use futures_util::TryStreamExt as _;
use otava::PersistentEntity as _;
use otava::actor::Rng;
use otava_persistence::{EventQuery, EventReader, current_events};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CARTS: u64 = 300;
/// A journal that has said nothing by then is empty.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
const ITEMS: [&str; 8] = ["tea", "bread", "salt", "oil", "rice", "soap", "jam", "milk"];

/// Fills carts and checks them out; whether the report has just what was acknowledged.
pub(crate) async fn drive(shop: &Shop, address: SocketAddr) -> Result<bool, Failure> {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => u64::from(std::process::id()),
    };
    println!("SEED={seed}");
    let mut rng = Rng::seeded(seed);
    let mut expected = scan(shop).await?;
    // Carts of earlier runs are in the journal too.
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let (mut pieces, mut cents) = (0, 0);
    for n in 0..CARTS {
        let cart = format!("/carts/{run}-{n}");
        for _ in 0..=rng.below(4) {
            let item = ITEMS[rng.below(ITEMS.len() as u64) as usize];
            let line =
                json!({ "item": item, "pieces": 1 + rng.below(5), "cents": 100 + item.len() * 7 });
            call(address, &format!("{cart}/lines"), &line.to_string()).await?;
        }
        let bought = call(address, &format!("{cart}/checkout"), "").await?;
        let bought: Vec<Line> = serde_json::from_str(&bought)?;
        add(&mut expected, &bought);
        for line in bought {
            pieces += u64::from(line.pieces);
            cents += u64::from(line.pieces) * u64::from(line.cents);
        }
    }
    let (whole, rest) = (cents / 100, cents % 100);
    println!("{CARTS} carts checked out, {pieces} pieces for {whole}.{rest:02}");
    let found = caught_up(shop).await?;
    if found == expected {
        println!("exact: the report has what was acknowledged");
        return Ok(true);
    }
    println!("expected {expected:?}\nfound    {found:?}");
    Ok(false)
}

/// What was sold by carts of earlier runs, by a plain scan of their events.
async fn scan(shop: &Shop) -> Result<Sold, Failure> {
    let queries = shop.journal.queries().ok_or("the journal has no queries")?;
    let mut events = current_events(queries, EventQuery::all().kind(Cart::KIND), 0);
    let (reader, mut sold) = (EventReader::<Cart>::new(), Sold::new());
    while let Some(found) = events.try_next().await? {
        for event in reader.read(&found.event)? {
            if let Event::CheckedOut(lines) = event {
                add(&mut sold, &lines);
            }
        }
    }
    Ok(sold)
}

/// The report, once everything that is in the journal now is in it.
async fn caught_up(shop: &Shop) -> Result<Sold, Failure> {
    let queries = shop.journal.queries().ok_or("the journal has no queries")?;
    // A journal without an event has no newest one, and would wait for it.
    if let Ok(newest) = timeout(EMPTY_AFTER, queries.changed(0)).await {
        shop.projection.caught_up_with(newest?).await?;
    }
    shop.report.read().await
}

/// One request over HTTP: the body of an answer that is 200.
async fn call(address: SocketAddr, path: &str, body: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(format!("{path}: {answer}").into()),
    }
}
