//! Proves: SRV records and their addresses are found, over UDP, and bad answers are errors.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

const SRV: u16 = 33;
const A: u16 = 1;
const NAME_ERROR: u8 = 3;
const SERVER_FAILED: u8 = 2;

/// What the server answers to a question for a name and a type.
#[derive(Clone)]
enum Answer {
    Records(Vec<Vec<u8>>),
    Code(u8),
    /// In place of a whole message; the number of the question goes in front.
    Bytes(Vec<u8>),
    Silence,
}

type Zone = BTreeMap<(&'static str, u16), Answer>;

/// A name server of a few records.
struct Server {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Server {
    async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(zone));
        let answers = zone.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 2_000];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let reply = answer(&bytes[..length], &answers.lock().unwrap());
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Self { addr, zone }
    }

    fn set(&self, name: &'static str, kind: u16, answer: Answer) {
        self.zone.lock().unwrap().insert((name, kind), answer);
    }

    /// A discovery that remembers nothing of an earlier one.
    fn discovery(&self) -> SrvDiscovery {
        SrvDiscovery::from_server("_otava._udp.shop.test.", self.addr).unwrap()
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A record of the name that was asked for.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn srv(port: u16, target: &str) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 1];
    data.extend_from_slice(&port.to_be_bytes());
    data.extend(labels(target));
    record(SRV, &data)
}

fn a(last: u8) -> Vec<u8> {
    record(A, &[10, 0, 0, last])
}

/// The question is repeated as it came: a resolver may look at the case of its letters.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] != 0 {
        let length = usize::from(question[at]);
        name.push_str(&String::from_utf8_lossy(&question[at + 1..at + 1 + length]).to_lowercase());
        name.push('.');
        at += length + 1;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let found = zone.iter().find(|((n, k), _)| *n == name && *k == kind);
    let none = Answer::Records(Vec::new());
    let (code, records) = match found.map_or(&none, |(_, answer)| answer) {
        Answer::Silence => return None,
        Answer::Bytes(bytes) => return Some([&question[..2], bytes].concat()),
        Answer::Code(code) => (*code, Vec::new()),
        Answer::Records(records) => (0, records.clone()),
    };
    let mut reply = question[..2].to_vec();
    reply.extend_from_slice(&[0x81, 0x80 | code, 0, 1]);
    reply.extend_from_slice(&(records.len() as u16).to_be_bytes());
    reply.extend_from_slice(&[0, 0, 0, 0]);
    reply.extend_from_slice(&question[12..at + 5]);
    reply.extend(records.concat());
    Some(reply)
}

fn shop() -> Zone {
    let nodes = vec![
        srv(7_001, "a.shop.test"),
        srv(7_002, "b.shop.test"),
        srv(7_003, "gone.shop.test"),
        srv(0, "a.shop.test"),
        srv(7_004, ""),
    ];
    Zone::from([
        (("_otava._udp.shop.test.", SRV), Answer::Records(nodes)),
        (("a.shop.test.", A), Answer::Records(vec![a(1)])),
        (("b.shop.test.", A), Answer::Records(vec![a(2), a(3)])),
        (("gone.shop.test.", A), Answer::Code(NAME_ERROR)),
    ])
}

/// C1: each target has its own port and all of its addresses; a target without any is left out.
#[tokio::test]
async fn services_are_found_with_their_ports() {
    let server = Server::start(shop()).await;
    let mut found = server.discovery().lookup().await.unwrap();
    found.sort();
    let expected = [
        ([10, 0, 0, 1], 7_001),
        ([10, 0, 0, 2], 7_002),
        ([10, 0, 0, 3], 7_002),
    ];
    assert_eq!(found, expected.map(SocketAddr::from));
}

#[tokio::test]
async fn half_a_list_is_an_error() {
    let server = Server::start(shop()).await;
    server.set("b.shop.test.", A, Answer::Code(SERVER_FAILED));
    let error = server.discovery().lookup().await.unwrap_err().to_string();
    assert!(error.contains("_otava._udp.shop.test."), "{error}");
}

#[tokio::test]
async fn bad_answers_are_errors() {
    let server = Server::start(shop()).await;
    let name = "_otava._udp.shop.test.";
    let header = |answers: u8| vec![0x81, 0x80, 0, 0, 0, answers, 0, 0, 0, 0];
    let mut endless = header(1);
    // A name that points at itself.
    endless.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 0]);
    let mut short = header(1);
    // Data that is shorter than it says.
    short.extend_from_slice(&[0, 0, 33, 0, 1, 0, 0, 0, 60, 255, 255, 1, 2]);
    for (what, answer) in [
        ("nothing there", Answer::Code(NAME_ERROR)),
        ("no records", Answer::Records(Vec::new())),
        ("a server that fails", Answer::Code(SERVER_FAILED)),
        ("noise", Answer::Bytes(vec![0xFF; 40])),
        ("too short", Answer::Bytes(vec![0x81])),
        ("a name in a circle", Answer::Bytes(endless)),
        ("short data", Answer::Bytes(short)),
        (
            "a record cut short",
            Answer::Records(vec![record(SRV, &[0, 1, 0])]),
        ),
        ("no answer", Answer::Silence),
    ] {
        server.set(name, SRV, answer);
        let found =
            tokio::time::timeout(Duration::from_secs(10), server.discovery().lookup()).await;
        assert!(matches!(found, Ok(Err(_))), "{what}: {found:?}");
    }
    server.set(name, SRV, Answer::Records(vec![srv(7_001, "a.shop.test")]));
    assert_eq!(server.discovery().lookup().await.unwrap().len(), 1);
}

/// The settings of the system are read, whatever they are.
#[tokio::test]
async fn the_servers_of_the_system_are_used() {
    match SrvDiscovery::new("_otava._udp.shop.test.") {
        Ok(discovery) => assert!(format!("{discovery:?}").contains("shop.test")),
        Err(error) => assert!(error.to_string().contains("system"), "{error}"),
    }
}
