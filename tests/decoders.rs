//! Proves: every decoder of bytes from outside takes what it wrote, and no damage to it does harm.
//!
//! The cheap half of `scripts/fuzz.sh`, over the same functions: seeds and seeded mutations of them,
//! with every allocation counted. `SEED=7 cargo test --test decoders` repeats a run that failed,
//! `ROUNDS=1000000` makes a longer one.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

use otava::actor::Rng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// Counts what each thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // A thread that ends has no count any more, and nobody looks at it.
    let _ = HELD.try_with(|held| {
        // What another thread made may be freed here.
        held.set(held.get().saturating_add(more).saturating_sub(less));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]
// SAFETY: every call goes to `System` with the same arguments, so its promises are kept. Counting
// allocates nothing: the counts are plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as for this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as for this function.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as for this function.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `run` held at once beyond what was held before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, PEAK.get() - before)
}

/// A decoder, its seeds, and how it is tried.
struct Target {
    name: &'static str,
    seeds: Vec<(String, Vec<u8>)>,
    mutations: u64,
    /// The most memory for this many bytes.
    memory: fn(usize) -> usize,
}

/// Frames are views of what came; lists of them, and what is written again, take a few times that.
fn few_times(bytes: usize) -> usize {
    16 * bytes + (256 << 10)
}

/// The elements of a payload may take 64 times its bytes and a mebibyte, and collections as much in
/// reserve.
fn a_payload(bytes: usize) -> usize {
    2 * (64 * bytes + (1 << 20))
}

impl Target {
    fn new(name: &'static str, seeds: Vec<(String, Vec<u8>)>) -> Self {
        Self {
            name,
            seeds,
            mutations: 20_000,
            memory: few_times,
        }
    }

    fn payload(self) -> Self {
        Self {
            memory: a_payload,
            ..self
        }
    }

    /// The seeds that lie in the repository are these. `UPDATE=1` writes them.
    fn check_seeds(&self) {
        let folder = root().join("fuzz/seeds").join(self.name);
        if std::env::var_os("UPDATE").is_some() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &self.seeds {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        for (name, bytes) in &self.seeds {
            let kept = fs::read(folder.join(name)).unwrap_or_default();
            let why = "is not what the golden bytes are; UPDATE=1 cargo test --test decoders";
            assert!(kept == *bytes, "fuzz/seeds/{}/{name} {why}", self.name);
        }
        assert_eq!(
            fs::read_dir(folder).unwrap().count(),
            self.seeds.len(),
            "{}",
            self.name
        );
    }

    /// Every seed is accepted; whatever is made of them is refused or accepted in its bounds.
    fn check(&self, decode: impl Fn(&[u8]) -> bool) {
        self.check_seeds();
        let seed = number("SEED").unwrap_or(1);
        let rounds = number("ROUNDS").unwrap_or(self.mutations);
        let mut rng = Rng::seeded(seed);
        // What is made once, such as the queues of a node, is not the bytes'.
        for (name, bytes) in &self.seeds {
            assert!(decode(bytes), "{} refuses its seed {name}", self.name);
        }
        let mut accepted = 0;
        for round in 0..rounds {
            let bytes = self.mutated(&mut rng);
            let (taken, peak) = peak_of(|| decode(&bytes));
            accepted += u64::from(taken);
            let most = (self.memory)(bytes.len());
            let len = bytes.len();
            assert!(
                peak <= most,
                "{}: {peak} bytes of memory for {len} bytes, where {most} are allowed; \
                 SEED={seed}, round {round}: {bytes:02x?}",
                self.name
            );
        }
        // Damage that is always noticed, or never, would not be damage of the right kind.
        assert!(accepted > 0 && accepted < rounds, "{accepted}");
    }

    fn pick<'a>(&'a self, rng: &mut Rng) -> &'a [u8] {
        &self.seeds[rng.below(self.seeds.len() as u64) as usize].1
    }

    fn mutated(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.pick(rng).to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64 + 1) as usize;
            match rng.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, rng.next_u64() as u8),
                2 => {
                    // A length as the codec writes it, small or huge.
                    let huge = [1_u64 << 60, u64::MAX, 1 << 32, 10_000, 300];
                    let number = huge[rng.below(5) as usize];
                    let length = [&[253][..], &number.to_le_bytes()].concat();
                    bytes.splice(at..at, length);
                }
                3 => {
                    // The end of another one.
                    let other = self.pick(rng);
                    bytes.truncate(at);
                    let from = rng.below(other.len() as u64 + 1) as usize;
                    bytes.extend_from_slice(&other[from..]);
                }
                4 => {
                    // The same again, many times: depth and number.
                    let part = bytes[at..].to_vec();
                    let part = &part[..part.len().min(8)];
                    let times = 1 << rng.below(10);
                    bytes.splice(at..at, part.repeat(times));
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = match rng.below(3) {
                            0 => *byte ^ 1 << rng.below(8),
                            1 => [0, 1, 127, 251, 252, 253, 254, 255][rng.below(8) as usize],
                            _ => rng.next_u64() as u8,
                        };
                    }
                }
            }
        }
        bytes
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The golden bytes whose names begin so, in a folder if there is one before that.
fn golden(krate: &str, begin: &str) -> Vec<(String, Vec<u8>)> {
    let (inside, begin) = begin.rsplit_once('/').unwrap_or(("", begin));
    let folder: &Path = &root().join(krate).join("fixtures/v1").join(inside);
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".bin")?.to_owned();
            name.starts_with(begin)
                .then(|| (name, fs::read(&path).unwrap()))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no fixtures {krate}/{begin}");
    found
}

fn named(seeds: Vec<(&'static str, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let named = seeds
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes));
    named.collect()
}

/// Frames without their lengths.
fn frames(begin: &str) -> Vec<(String, Vec<u8>)> {
    let frames = golden("remote", begin).into_iter();
    frames
        .map(|(name, bytes)| (name, bytes[4..].to_vec()))
        .collect()
}

/// R5
#[test]
fn preambles() {
    use otava_remote::fuzzing::preamble;
    Target::new("preamble", golden("remote", "preamble")).check(preamble);
}

/// The frame that version 3 added.
fn credit() -> (String, Vec<u8>) {
    let golden = fs::read(root().join("remote/fixtures/v3/frame_credit.bin"));
    ("frame_credit".to_owned(), golden.unwrap())
}

/// R5
#[test]
fn single_frames() {
    let mut seeds = frames("frame_");
    let (name, bytes) = credit();
    seeds.push((name, bytes[4..].to_vec()));
    Target::new("frame", seeds).check(otava_remote::fuzzing::frame);
}

/// R5
#[test]
fn lanes_of_frames() {
    let mut all = golden("remote", "frame_");
    all.push(credit());
    let every: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let mut seeds = vec![("all".to_owned(), [&[255], &every[..]].concat())];
    let single = all.into_iter();
    seeds.extend(single.map(|(name, bytes)| (name, [&[2], &bytes[..]].concat())));
    let target = Target {
        mutations: 4_000,
        ..Target::new("lane", seeds)
    };
    target.check(otava_remote::fuzzing::lane);
}

/// Packed frames may hold 255 times their bytes; they are unpacked here, packed and unpacked again.
fn a_packed_frame(bytes: usize) -> usize {
    4 * 255 * bytes + (2 << 20)
}

/// R5: a frame inside a frame, compressed.
#[test]
fn packed_frames() {
    let golden = fs::read(root().join("remote/fixtures/v2/frame_packed.bin")).unwrap();
    let target = Target {
        memory: a_packed_frame,
        ..Target::new("packed", vec![("text".to_owned(), golden[4..].to_vec())])
    };
    target.check(otava_remote::fuzzing::packed);
}

/// X4
#[test]
fn introductions() {
    let mut seeds = frames("frame_hello");
    seeds.extend(frames("frame_welcome"));
    Target::new("handshake", seeds).check(otava_remote::fuzzing::handshake);
}

/// R5, X7: messages that lie in themselves.
#[test]
fn payloads() {
    let seeds = named(otava_remote::fuzzing::payloads());
    let target = Target::new("payload", seeds).payload();
    target.check(otava_remote::fuzzing::payload);
}

/// X7
#[test]
fn payloads_of_maps() {
    let seeds = named(otava_remote::fuzzing::unordered_payloads());
    let target = Target::new("unordered", seeds).payload();
    target.check(otava_remote::fuzzing::unordered);
}

/// R5, X7: frames to a node, with references and reply ports in them.
#[test]
fn frames_to_a_node() {
    let mut seeds = named(otava_remote::fuzzing::orders());
    let control = [
        "frame_watch",
        "frame_unwatch",
        "frame_control",
        "frame_system_ack",
    ];
    for name in control {
        let lane = |(name, bytes): (String, Vec<u8>)| (name, [&[1], &bytes[..]].concat());
        seeds.extend(frames(name).into_iter().map(lane));
    }
    let node = otava_remote::fuzzing::Receiver::new();
    let target = Target {
        mutations: 4_000,
        ..Target::new("node", seeds).payload()
    };
    target.check(|bytes| node.take(bytes));
}

#[test]
fn messages_of_members() {
    let mut seeds = golden("cluster", "");
    seeds.retain(|(name, _)| !["delta", "digest"].contains(&&**name));
    let target = Target::new("cluster_message", seeds).payload();
    target.check(otava_cluster::fuzzing::message);
}

#[test]
fn gossip() {
    let seeds = golden("cluster", "d").into_iter();
    let seeds = seeds.filter(|(name, _)| ["delta", "digest"].contains(&&**name));
    let target = Target::new("cluster_gossip", seeds.collect()).payload();
    target.check(otava_cluster::fuzzing::gossip);
}

/// R5: what chitchat of one version said to itself, taken from ten nodes that formed a cluster.
#[test]
fn messages_of_chitchat() {
    let target = Target::new("cluster_chitchat", golden("cluster", "chitchat/")).payload();
    target.check(otava_cluster::fuzzing::chitchat);
}

#[test]
fn deliveries() {
    let seeds = named(otava_cluster::fuzzing::deliveries());
    let target = Target::new("cluster_delivery", seeds).payload();
    target.check(otava_cluster::fuzzing::delivery);
}

/// R5: what replicators say, and what is stored of their data.
#[test]
fn replicated_data() {
    let golden = golden("cluster", "replicated/");
    let seeds = golden.into_iter().map(|(name, bytes)| {
        let stored = name.starts_with("stored");
        let kind: &[u8] = if stored { &[0] } else { &[] };
        (name, [kind, &bytes].concat())
    });
    let target = Target::new("replicated", seeds.collect()).payload();
    target.check(otava_cluster::fuzzing::replicated);
}

/// What is stored is bounded by the largest payload, not by its own length: a text is made room for before it is
/// read.
fn a_stored_payload(bytes: usize) -> usize {
    a_payload(bytes) + 2 * otava_persistence::Snapshot::PAYLOAD_BYTES_MAX
}

/// P8: what is stored of events and states.
#[test]
fn stored_events_and_states() {
    let target = Target {
        memory: a_stored_payload,
        ..Target::new("stored", named(otava_persistence::fuzzing::seeds()))
    };
    target.check(otava_persistence::fuzzing::stored);
}

#[test]
fn facts() {
    let lines = "h\t3 1f 2e node-1\n\
                 m0000000000000007@10.0.0.1:7000\t2 1 1700000000000 node-1\n\
                 m0000000000000008@[2001:db8::17]:7001\t1 - 1700000000001 node-2\n\
                 u0000000000000008@[2001:db8::17]:7001\tnode-2\n";
    let seeds = vec![("statement".to_owned(), lines.as_bytes().to_vec())];
    Target::new("cluster_facts", seeds).check(otava_cluster::fuzzing::facts);
}

/// R5
#[test]
fn messages_of_regions() {
    let mut seeds = golden("sharding", "");
    // Answers are of types of their own, and a question has a reply port in it.
    let of_regions = ["barrier", "gather", "legacy", "status", "table", "wake"];
    seeds.retain(|(name, _)| of_regions.contains(&&**name));
    let target = Target::new("sharding", seeds).payload();
    target.check(otava_sharding::fuzzing::region_message);
}
