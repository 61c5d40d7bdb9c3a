//! Proves: members on hosts of their own form one cluster over a real network, and bear what happens to cables.
//!
//! Each host is a network namespace with one cable to a bridge in one more namespace, so nothing of it is seen
//! from outside. That needs root and the command `ip`; without them each test says that it is skipped.
#![allow(clippy::print_stdout, reason = "a skipped test must say so")]

use crate::cluster::{eventually, example};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

const PORT: u16 = 7_000;

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("no command ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let done = output.status.success().then_some(());
    done.ok_or_else(|| format!("ip {arguments}: {}", said.trim()))
}

/// Hosts from 1 on, with addresses 10.77.0.1 and so on.
struct Lab {
    name: String,
    hosts: usize,
    folder: TempDir,
    /// One for each host; `None` where nothing has been started.
    members: Vec<Option<Member>>,
}

struct Member {
    child: Child,
    out: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// `None`, and a word of it, where there can be none.
    fn new(hosts: usize, mtu: u16) -> Option<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            name: format!("ot{}-{number}", std::process::id()),
            hosts,
            folder: TempDir::new().unwrap(),
            members: (0..hosts).map(|_| None).collect(),
        };
        match lab.connect(mtu) {
            Ok(()) => Some(lab),
            Err(reason) => {
                println!("skipped: {reason}");
                None
            }
        }
    }

    fn connect(&self, mtu: u16) -> Result<(), String> {
        let lab = &self.name;
        ip(&format!("netns add {lab}-s"))?;
        ip(&format!("-n {lab}-s link add br0 type bridge"))?;
        ip(&format!("-n {lab}-s link set br0 up"))?;
        for host in 1..=self.hosts {
            ip(&format!("netns add {lab}-{host}"))?;
            ip(&format!(
                "link add p{host} netns {lab}-s type veth peer name e0 netns {lab}-{host}"
            ))?;
            ip(&format!(
                "-n {lab}-s link set p{host} master br0 mtu {mtu} up"
            ))?;
            ip(&format!("-n {lab}-{host} link set e0 mtu {mtu} up"))?;
            ip(&format!("-n {lab}-{host} link set lo up"))?;
            ip(&format!(
                "-n {lab}-{host} address add 10.77.0.{host}/24 dev e0"
            ))?;
        }
        Ok(())
    }

    /// A host's cable is pulled, or put back.
    fn cable(&self, host: usize, state: &str) {
        let lab = &self.name;
        ip(&format!("-n {lab}-s link set p{host} {state}")).unwrap();
    }

    /// From now on what one host sends to the other one goes to nobody, and it is told nothing of that.
    fn cut(&self, from: usize, to: usize) {
        let lab = &self.name;
        let nobody = "02:00:00:00:00:fe";
        ip(&format!(
            "-n {lab}-{from} neighbour replace 10.77.0.{to} lladdr {nobody} dev e0 nud permanent"
        ))
        .unwrap();
    }

    /// Starts a member on a host; the first three are the seeds.
    fn start(&mut self, host: usize) {
        let listen = |host: usize| format!("10.77.0.{host}:{PORT}");
        let out = self.folder.path().join(format!("member-{host}"));
        let program = example("member");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.name)]);
        command.arg(program.get_program());
        command.args([format!("node-{host}"), listen(host)]);
        command.arg(self.folder.path().join("data"));
        command.args((1..=3).map(listen)).stdin(Stdio::null());
        let err = File::create(out.with_extension("err")).unwrap();
        command.stdout(File::create(&out).unwrap()).stderr(err);
        // `ip` becomes the member itself.
        let child = command.spawn().unwrap();
        self.members[host - 1] = Some(Member { child, out });
    }

    /// Starts one on each host, until all see all up.
    fn form(&mut self) {
        (1..=self.hosts).for_each(|host| self.start(host));
        let all: Vec<usize> = (1..=self.hosts).collect();
        for host in 1..=self.hosts {
            self.sees(host, "up", &all);
        }
    }

    fn told(&self, host: usize) -> String {
        let member = self.members[host - 1].as_ref().unwrap();
        std::fs::read_to_string(&member.out).unwrap()
    }

    /// What has happened, in the words of a member, to whom: each once, in order.
    fn whom(&self, host: usize, what: &str) -> Vec<usize> {
        let told = self.told(host);
        let lines = told.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next() == Some(what)).then(|| words.next())?
        });
        let mut whom: Vec<usize> = lines
            .filter_map(|name| name.strip_prefix("node-")?.parse().ok())
            .collect();
        whom.sort_unstable();
        whom.dedup();
        whom
    }

    fn sees(&self, host: usize, what: &str, whom: &[usize]) {
        let seen = || (self.whom(host, what) == whom).then_some(());
        eventually(&format!("node-{host} sees {what} {whom:?}"), seen);
    }

    /// Waits until a member has stopped itself because it is out.
    fn is_out(&mut self, host: usize) {
        let member = self.members[host - 1].as_mut().unwrap();
        let child = &mut member.child;
        let status = eventually(&format!("node-{host} stops"), || child.try_wait().unwrap());
        let told = self.told(host);
        assert!(!status.success(), "{told}");
        assert!(told.contains(" ended Downed"), "{told}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.members.clear();
        for host in (1..=self.hosts).map(|host| host.to_string()) {
            let _ = ip(&format!("netns del {}-{host}", self.name));
        }
        let _ = ip(&format!("netns del {}-s", self.name));
    }
}

/// C3, R7: a cable that is pulled parts one host from four: it stops, the others go on without it, and it comes
/// back as a new member when the cable is there again.
#[test]
fn a_host_whose_cable_is_pulled_is_out_and_comes_back() {
    let Some(mut lab) = Lab::new(5, 1_500) else {
        return;
    };
    lab.form();
    lab.cable(5, "down");
    for host in 1..=4 {
        lab.sees(host, "removed", &[5]);
    }
    lab.is_out(5);
    lab.cable(5, "up");
    lab.start(5);
    lab.sees(5, "up", &[1, 2, 3, 4, 5]);
    for host in 1..=4 {
        assert_eq!(lab.whom(host, "removed"), [5], "{}", lab.told(host));
    }
}

/// C4: one host no longer reaches one other, which still reaches it by all it sends itself. Both ends of the
/// link are indirectly connected, so both stop and three of five go on.
#[test]
fn a_link_that_is_cut_in_one_direction_costs_its_ends() {
    let Some(mut lab) = Lab::new(5, 1_500) else {
        return;
    };
    lab.form();
    lab.cut(4, 5);
    for host in 1..=3 {
        lab.sees(host, "removed", &[4, 5]);
    }
    lab.is_out(4);
    lab.is_out(5);
}

/// R9: a path that carries no more than the least packets of IPv6.
#[test]
fn links_of_1280_bytes_are_enough() {
    let Some(mut lab) = Lab::new(3, 1_280) else {
        return;
    };
    lab.form();
    for host in 1..=3 {
        let lost = lab.whom(host, "unreachable");
        assert!(lost.is_empty(), "{}", lab.told(host));
    }
}
