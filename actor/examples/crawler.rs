//! Crawler: a pool of workers over a little web in memory, driven by one actor that knows what was seen.
//!
//! ```text
//! $ cargo run -p otava-actor --example crawler
//! 13 pages read, each once
//! broken links: blog/draft, shop/sold-out
//! pages waited while all workers were busy: yes
//! ```
//!
//! The pool has two workers with room for two pages each. Whatever more the crawler finds, the pool gives
//! back (`Full`), and the crawler keeps it until an answer says that there is room: back pressure without
//! anybody waiting. When nothing is under way and nothing waits, the crawl is over.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, Pool, PoolHandle, Props, ReplyTo, Routing,
};
use otava_actor::{SpawnError, TellError};
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

type Page = &'static str;

/// A page, and the pages that it links to.
const WEB: &[(Page, &[Page])] = &[
    ("home", &["blog", "shop", "team", "news", "jobs", "help"]),
    ("blog", &["home", "blog/1", "blog/2", "blog/draft"]),
    ("blog/1", &["blog", "blog/2"]),
    ("blog/2", &["blog", "blog/1", "team"]),
    ("shop", &["shop/hat", "shop/coat", "shop/sold-out"]),
    ("shop/hat", &["shop", "shop/coat"]),
    ("shop/coat", &["shop", "shop/hat"]),
    ("team", &["team/ann", "team/bo", "home"]),
    ("team/ann", &["team"]),
    ("team/bo", &["team", "blog/2"]),
    ("news", &["blog", "home"]),
    ("jobs", &["team", "help"]),
    ("help", &[]),
];

/// Reads pages.
struct Worker;

struct Fetch {
    page: Page,
    to: ActorRef<CrawlMsg>,
}

impl Actor for Worker {
    type Msg = Fetch;
    type Err = TellError<CrawlMsg>;

    async fn handle(&mut self, job: Fetch, _: &mut Context<Self>) -> Result<(), Self::Err> {
        // The network takes its time.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let found = WEB.iter().find(|(page, _)| *page == job.page);
        let links = found.map(|(_, links)| *links);
        job.to.send(CrawlMsg::Fetched(job.page, links)).await
    }
}

struct Crawler {
    workers: PoolHandle<Fetch>,
    seen: BTreeSet<Page>,
    waiting: VecDeque<Page>,
    under_way: usize,
    report: Report,
    over: Option<ReplyTo<Report>>,
}

#[derive(Default)]
struct Report {
    read: Vec<Page>,
    broken: BTreeSet<Page>,
    had_to_wait: bool,
}

enum CrawlMsg {
    Begin(Page, ReplyTo<Report>),
    /// The links of a page; `None`: there is no such page.
    Fetched(Page, Option<&'static [Page]>),
}

impl Crawler {
    fn new(workers: PoolHandle<Fetch>) -> Self {
        Self {
            workers,
            seen: BTreeSet::new(),
            waiting: VecDeque::new(),
            under_way: 0,
            report: Report::default(),
            over: None,
        }
    }

    fn find(&mut self, page: Page) {
        if self.seen.insert(page) {
            self.waiting.push_back(page);
        }
    }

    /// Gives the workers as much as they take.
    fn hand_out(&mut self, ctx: &Context<Self>) {
        while let Some(page) = self.waiting.pop_front() {
            let to = ctx.me().clone();
            if self.workers.tell(Fetch { page, to }).is_err() {
                self.report.had_to_wait = true;
                return self.waiting.push_front(page);
            }
            self.under_way += 1;
        }
    }
}

impl Actor for Crawler {
    type Msg = CrawlMsg;
    type Err = Infallible;

    async fn handle(&mut self, msg: CrawlMsg, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            CrawlMsg::Begin(page, over) => {
                self.over = Some(over);
                self.find(page);
            }
            CrawlMsg::Fetched(page, links) => {
                self.under_way -= 1;
                match links {
                    Some(links) => {
                        self.report.read.push(page);
                        links.iter().for_each(|page| self.find(page));
                    }
                    None => drop(self.report.broken.insert(page)),
                }
            }
        }
        self.hand_out(ctx);
        if self.under_way == 0
            && let Some(over) = self.over.take()
        {
            let _ = over.send(std::mem::take(&mut self.report));
            ctx.stop_self();
        }
        Ok(())
    }
}

fn workers(system: &ActorSystem) -> Result<PoolHandle<Fetch>, SpawnError> {
    let room = NonZeroUsize::new(2).expect("it is not zero");
    let worker = move || Props::new(|| Worker).mailbox_capacity(room);
    system.spawn_pool(
        "workers",
        Pool::new(2, worker).routing(Routing::least_loaded()),
    )
}

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let system = ActorSystem::new("crawl");
    let crawler = system.spawn("crawler", Crawler::new(workers(&system)?))?;
    let report = crawler.ask(|over| CrawlMsg::Begin("home", over)).await?;
    let once: BTreeSet<_> = report.read.iter().collect();
    let each = if once.len() == report.read.len() {
        "each once"
    } else {
        "some twice"
    };
    let broken: Vec<_> = report.broken.into_iter().collect();
    let waited = if report.had_to_wait { "yes" } else { "no" };
    Ok(vec![
        format!("{} pages read, {each}", report.read.len()),
        format!("broken links: {}", broken.join(", ")),
        format!("pages waited while all workers were busy: {waited}"),
    ])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
