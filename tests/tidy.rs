//! Proves: the tree keeps the house rules, each with a message that names what to do instead.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and its warnings are printed"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A rule that was broken, and where.
type Complaints = Vec<String>;

/// Lines of a file without its tests, above which the rule warns and fails.
const LINES_WARN: usize = 600;
const LINES_MAX: usize = 900;

/// The crates of the house: folder, what it may depend on inside the house, what it must not name.
const CRATES: [(&str, &[&str], &[&str]); 8] = [
    (
        "actor",
        &["otava-actor-macros"],
        &[
            "serde",
            "serde_json",
            "quinn",
            "rustls",
            "chitchat",
            "bincode",
        ],
    ),
    ("actor/macros", &[], &["serde", "tokio"]),
    ("remote", &["otava-actor"], &["chitchat", "rusqlite"]),
    (
        "cluster",
        &["otava-actor", "otava-remote"],
        &["quinn", "rustls", "bincode", "rusqlite"],
    ),
    (
        "sharding",
        &["otava-actor", "otava-remote", "otava-cluster"],
        &["quinn", "rustls", "chitchat", "bincode", "rusqlite"],
    ),
    (
        "persistence",
        &["otava-actor"],
        &["quinn", "rustls", "chitchat"],
    ),
    (
        "postgres",
        &["otava-cluster", "otava-persistence"],
        &["quinn", "rustls", "chitchat", "bincode", "rusqlite"],
    ),
    (
        ".",
        &[
            "otava-actor",
            "otava-remote",
            "otava-cluster",
            "otava-sharding",
            "otava-persistence",
        ],
        &["quinn", "rustls", "chitchat", "bincode", "rusqlite"],
    ),
];

/// Crate names that may stand in code only below the given paths.
const HOMES: [(&str, &[&str]); 8] = [
    (
        "bincode",
        &["remote/src/wire_format", "persistence/src/format"],
    ),
    ("quinn", &["remote/"]),
    ("rustls", &["remote/"]),
    ("chitchat", &["cluster/"]),
    ("rusqlite", &["persistence/"]),
    ("tokio_postgres", &["postgres/", "examples/"]),
    ("deadpool_postgres", &["postgres/"]),
    ("axum", &["examples/", "src/manage/"]),
];

/// What must not occur below a `logic/` folder, and what to use instead.
const IMPURE: [(&str, &str); 9] = [
    ("tokio", "return outputs and a timeout, and let `io/` act"),
    ("std::time::Instant", "take `now: Time`"),
    ("SystemTime", "take the wall clock as an argument"),
    ("HashMap", "its order is random, use BTreeMap"),
    ("HashSet", "its order is random, use BTreeSet"),
    ("std::fs", "return an output, and let `io/` act"),
    ("std::thread", "logic has no threads"),
    ("TcpStream", "return an output, and let `io/` act"),
    ("UdpSocket", "return an output, and let `io/` act"),
];

/// Test files that may sleep on the real clock, with the reason.
const MAY_SLEEP: [(&str, &str); 3] = [
    (
        "actor/tests/it/support.rs",
        "its actors sleep when a test orders them to: that is what is tested",
    ),
    (
        "actor/tests/it/supervision_support.rs",
        "its actors sleep when a test orders them to, and tests pause the clock",
    ),
    (
        "tests/it/cluster.rs",
        "other processes can only be looked at again and again",
    ),
];

/// Versions below which a crate has a known hole (docs/libraries.md). Older lines are checked too.
const FLOORS: [(&str, &str); 16] = [
    ("quinn-proto", "0.11.18"),
    ("rustls", "0.23.18"),
    ("rustls-webpki", "0.103.13"),
    ("ring", "0.17.12"),
    ("tokio", "1.44.2"),
    ("bytes", "1.11.1"),
    ("anyhow", "1.0.103"),
    ("crossbeam-epoch", "0.9.20"),
    ("slab", "0.4.11"),
    ("time", "0.3.47"),
    ("tracing-subscriber", "0.3.20"),
    ("scc", "3.8.4"),
    ("rkyv", "0.8.17"),
    ("tokio-postgres", "0.7.18"),
    ("sqlx", "0.8.1"),
    ("object_store", "0.10.2"),
];

/// As [`FLOORS`], for crates whose older lines do not have the hole.
const FLOORS_OF_LINE: [(&str, &str); 2] = [("hashbrown", "0.15.1"), ("rand", "0.10.1")];

struct Source {
    /// Relative to the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Numbered lines that are no comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The line at which the unit tests begin; 1 for a file of tests.
    fn tests_from(&self) -> Option<usize> {
        let of_tests = self.path.contains("tests/") || self.path.ends_with("tests.rs");
        let marker = |line: &str| line.trim() == "#[cfg(test)]";
        let begin = || self.text.lines().position(marker).map(|index| index + 1);
        if of_tests { Some(1) } else { begin() }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for top in [
        "actor",
        "remote",
        "cluster",
        "sharding",
        "persistence",
        "postgres",
        "src",
        "tests",
        "examples",
    ] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for path in children(folder) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source::new(
                relative(&path),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| !path.ends_with("target"));
    paths.sort();
    paths
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .replace('\\', "/")
}

fn check(rule: impl Fn(&Source, &mut Complaints)) {
    let mut complaints = Complaints::new();
    for source in sources() {
        rule(&source, &mut complaints);
    }
    settle(&complaints);
}

fn settle(complaints: &Complaints) {
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

/// Whether `word` stands in `line`, not as a part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_name) && !line[at + word.len()..].starts_with(part_of_name)
    })
}

// --- rules about one file ---

fn first_line(source: &Source, complaints: &mut Complaints) {
    let line = source.text.lines().next().unwrap_or_default();
    let noun = line
        .strip_prefix("//! ")
        .and_then(|rest| rest.split_once(": "));
    if !noun.is_some_and(|(noun, says)| noun.len() <= 40 && says.len() > 10) {
        let path = &source.path;
        complaints.push(format!(
            "{path}:1: begin with `//! <Noun>: <what it decides or owns>.`"
        ));
    }
}

fn length(source: &Source, complaints: &mut Complaints) {
    let tests_from = source.tests_from().filter(|&line| line > 1);
    let lines = tests_from.map_or_else(|| source.text.lines().count(), |line| line - 1);
    let path = &source.path;
    if lines > LINES_MAX {
        complaints.push(format!(
            "{path}: {lines} lines, the limit is {LINES_MAX}: two concepts?"
        ));
    } else if lines > LINES_WARN {
        println!("warning: {path}: {lines} lines, aim below {LINES_WARN}");
    }
}

fn purity(source: &Source, complaints: &mut Complaints) {
    if !source.path.contains("/logic/") {
        return;
    }
    for (number, line) in source.code() {
        for (word, instead) in IMPURE {
            if names(line, word) {
                let path = &source.path;
                complaints.push(format!(
                    "{path}:{number}: `{word}` is banned here: {instead}"
                ));
            }
        }
    }
    let deny = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    if source.path.ends_with("/logic/mod.rs") && !source.text.contains(deny) {
        complaints.push(format!("{}: begin it with `{deny}`", source.path));
    }
}

fn crate_homes(source: &Source, complaints: &mut Complaints) {
    if source.path == "tests/tidy.rs" {
        return;
    }
    for (number, line) in source.code() {
        for (name, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            let used =
                line.contains(&format!("{name}::")) || line.contains(&format!("use {name};"));
            if used && names(line, name) && !at_home {
                let homes = homes.join(", ");
                complaints.push(format!(
                    "{}:{number}: `{name}` belongs to {homes}",
                    source.path
                ));
            }
        }
    }
}

fn unfinished(source: &Source, complaints: &mut Complaints) {
    if source.path == "tests/tidy.rs" {
        return;
    }
    for (index, line) in source.text.lines().enumerate() {
        for mark in ["todo!(", "unimplemented!(", "FIXME", "XXX", "//! wip"] {
            if line.contains(mark) {
                let path = &source.path;
                let number = index + 1;
                complaints.push(format!(
                    "{path}:{number}: `{mark}`: finish it or leave it out"
                ));
            }
        }
    }
}

fn sleeping_tests(source: &Source, complaints: &mut Complaints) {
    let Some(tests_from) = source.tests_from() else {
        return;
    };
    let allowed = MAY_SLEEP.iter().any(|(path, _)| *path == source.path);
    // Every simulation runs on virtual time; its files are parts of one program.
    let virtual_time =
        source.text.contains("start_paused = true") || source.path.starts_with("tests/sim/");
    if allowed || source.path == "tests/tidy.rs" {
        return;
    }
    for (number, line) in source.code().filter(|(number, _)| *number >= tests_from) {
        let sleeps = line.contains("thread::sleep(") || (names(line, "sleep") && !virtual_time);
        if sleeps && line.contains("sleep(") {
            complaints.push(format!(
                "{}:{number}: a sleep hides a race: wait for what must happen, or use virtual time \
                 (`start_paused = true`), or add the file with its reason to MAY_SLEEP",
                source.path
            ));
        }
    }
}

fn biased_select(source: &Source, complaints: &mut Complaints) {
    let code: Vec<_> = source.code().collect();
    for (index, (number, line)) in code.iter().enumerate() {
        let opens = names(line, "select!") || line.contains("::select! {");
        let next = code.get(index + 1).map_or("", |(_, line)| line.trim());
        if opens && line.trim_end().ends_with('{') && next != "biased;" {
            let path = &source.path;
            complaints.push(format!(
                "{path}:{number}: begin `select!` with `biased;`: no random"
            ));
        }
    }
}

#[test]
fn every_file_says_in_its_first_line_what_it_owns() {
    check(first_line);
}

#[test]
fn no_file_grows_past_one_concept() {
    check(length);
}

#[test]
fn logic_is_pure() {
    check(purity);
}

#[test]
fn every_library_is_named_at_its_home_only() {
    check(crate_homes);
}

#[test]
fn nothing_is_left_unfinished() {
    check(unfinished);
}

#[test]
fn no_test_sleeps_on_the_real_clock() {
    check(sleeping_tests);
}

#[test]
fn select_takes_its_branches_in_order() {
    check(biased_select);
}

// --- rules about manifests, the lock file and the map ---

/// The names in `[dependencies]` of a manifest, with `name.workspace = true` or `name = ..`.
fn dependencies(manifest: &str) -> Vec<&str> {
    let section = manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1);
    let entries = section.take_while(|line| !line.starts_with('['));
    let name = |line: &'_ str| line.find(['.', ' ', '=']).filter(|&end| end > 0);
    entries
        .filter_map(|line| name(line).map(|end| &line[..end]))
        .collect()
}

fn arrows(folder: &str, manifest: &str, complaints: &mut Complaints) {
    let (_, inside, banned) = CRATES.iter().find(|(name, ..)| *name == folder).unwrap();
    for name in dependencies(manifest) {
        if name.starts_with("otava-") && !inside.contains(&name) {
            complaints.push(format!(
                "{folder}/Cargo.toml: no arrow to {name}, see docs/architecture.md"
            ));
        }
        if banned.contains(&name) {
            complaints.push(format!(
                "{folder}/Cargo.toml: {name} has another home, see tests/tidy.rs"
            ));
        }
    }
}

#[test]
fn arrows_between_crates_point_one_way() {
    let mut complaints = Complaints::new();
    for (folder, ..) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(
            !dependencies(&manifest).is_empty(),
            "{folder}/Cargo.toml was not understood"
        );
        arrows(folder, &manifest, &mut complaints);
    }
    settle(&complaints);
}

fn version(text: &str) -> [u64; 3] {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// The part of a version within which Cargo takes the newest: `1`, or `0.11`.
fn line_of([major, minor, _]: [u64; 3]) -> (u64, u64) {
    if major == 0 { (0, minor) } else { (major, 0) }
}

/// `(name, version)` of every package in a lock file.
fn locked(lock: &str) -> Vec<(&str, &str)> {
    let value = |line: &'_ str, key: &str| {
        line.strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(" = \""))
            .map(|rest| rest.len())
    };
    let mut packages = Vec::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(length) = value(line, "name") {
            name = line[line.len() - length..].trim_end_matches('"');
        } else if let Some(length) = value(line, "version")
            && !name.is_empty()
        {
            packages.push((name, line[line.len() - length..].trim_end_matches('"')));
            name = "";
        }
    }
    packages
}

fn floors(lock: &str, complaints: &mut Complaints) {
    for (name, found) in locked(lock) {
        let same_line = |floor: &str| line_of(version(floor)) == line_of(version(found));
        let whole = FLOORS.iter();
        let of_line = FLOORS_OF_LINE.iter().filter(|(_, floor)| same_line(floor));
        for (_, floor) in whole.chain(of_line).filter(|(floored, _)| *floored == name) {
            if version(found) < version(floor) {
                complaints.push(format!(
                    "{name} {found} has a known hole: take {floor} or newer"
                ));
            }
        }
        let banned = match name {
            "rustls-pemfile" => Some("unmaintained: use rustls-pki-types"),
            "bincode" if version(found)[0] >= 3 => Some("is only a compile error: stay on 2.0.1"),
            "dashmap" if found.contains("rc") => Some("is a pre-release"),
            _ => None,
        };
        if let Some(why) = banned {
            complaints.push(format!("{name} {found} is not allowed: {why}"));
        }
    }
}

/// X12: the lock file against the list of lowest versions. Those that secure the wire are there to be held.
#[test]
fn no_locked_version_has_a_known_hole() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let names: Vec<_> = locked(&lock).into_iter().map(|(name, _)| name).collect();
    for name in ["quinn-proto", "ring", "rustls", "rustls-webpki", "tokio"] {
        assert!(
            names.contains(&name),
            "Cargo.lock was not understood: no {name}"
        );
    }
    let mut complaints = Complaints::new();
    floors(&lock, &mut complaints);
    settle(&complaints);
}

/// Every folder below `folder` that holds more than tests.
fn source_folders(folder: &Path, found: &mut Vec<String>) {
    let inside = children(folder);
    let only_tests = inside.iter().all(|path| path.ends_with("tests.rs"));
    if !only_tests {
        found.push(relative(folder));
    }
    for path in inside.iter().filter(|path| path.is_dir()) {
        source_folders(path, found);
    }
}

/// `logic` and `io` are explained once for all crates; any other folder is named with its path.
fn missing_in_map(map: &str, folders: &[String]) -> Complaints {
    let explained = |folder: &&String| {
        let last = folder.rsplit('/').next().unwrap_or_default();
        let known_kind = ["logic", "io"].contains(&last) && map.contains(&format!("`{last}/`"));
        !known_kind && !map.contains(&format!("{folder}/"))
    };
    let mut complaints = Complaints::new();
    for folder in folders.iter().filter(explained) {
        complaints.push(format!(
            "docs/architecture.md: its code map does not name `{folder}/`"
        ));
    }
    complaints
}

#[test]
fn the_map_names_every_source_folder() {
    let mut folders = Vec::new();
    for (folder, ..) in CRATES {
        source_folders(&root().join(folder).join("src"), &mut folders);
    }
    let map = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    settle(&missing_in_map(
        &map,
        &folders
            .iter()
            .map(|f| f.replace("./", ""))
            .collect::<Vec<_>>(),
    ));
}

#[test]
fn the_program_in_the_readme_is_the_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = fs::read_to_string(root().join("examples/account.rs")).unwrap();
    let program = &example[example.find("use otava::prelude::*;").unwrap()..];
    assert!(
        readme.contains(program.trim_end()),
        "README.md: its program is not examples/account.rs, which is tested"
    );
}

/// What a line of `docs/semantics.md` says that no test proves; `text_of` reads a file. A test is named
/// as `file::name`: the file in `actor/tests/it`, or a path.
fn unproved(page: &str, text_of: impl Fn(&str) -> Option<String>) -> Complaints {
    let mut complaints = Complaints::new();
    let mut head = "";
    for (index, line) in page.lines().enumerate() {
        let is_row = line.starts_with('|') && head.starts_with('|') && !line.starts_with("| ---");
        head = line;
        let last_cell = line.trim_end_matches('|').rsplit('|').next();
        let Some(proofs) = last_cell.filter(|_| is_row) else {
            continue;
        };
        let number = index + 1;
        let named: Vec<_> = proofs.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            complaints.push(format!("docs/semantics.md:{number}: no test proves this"));
        }
        for proof in named {
            let (file, test) = proof.split_once("::").unwrap_or((proof, ""));
            let path = if file.contains('/') {
                file.to_owned()
            } else {
                format!("actor/tests/it/{file}.rs")
            };
            if !text_of(&path).is_some_and(|text| has_test(&text, test)) {
                complaints.push(format!(
                    "docs/semantics.md:{number}: {path} has no test `{test}`: name the one that proves this"
                ));
            }
        }
    }
    complaints
}

/// Whether a function `name` with an attribute `test` stands in `source`.
fn has_test(source: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_test = |at: usize| {
        let above = lines[..at].iter().rev();
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    let mut found = lines.iter().enumerate();
    found.any(|(at, line)| {
        let rest = line.strip_prefix("async ").unwrap_or(line);
        rest.starts_with(&declared) && is_test(at)
    })
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|')).count();
    assert!(rows > 50, "docs/semantics.md was not understood");
    settle(&unproved(&page, |path| {
        fs::read_to_string(root().join(path)).ok()
    }));
}

// --- the rules themselves must be able to fail ---

fn complaints_of(rule: impl Fn(&Source, &mut Complaints), path: &str, text: &str) -> usize {
    let mut complaints = Complaints::new();
    rule(&Source::new(path, text), &mut complaints);
    complaints.len()
}

#[test]
fn each_rule_about_a_file_finds_what_breaks_it() {
    let logic = "cluster/src/logic/view.rs";
    assert_eq!(
        complaints_of(first_line, logic, "//! View: who is a member.\n"),
        0
    );
    assert_eq!(complaints_of(first_line, logic, "use std::fmt;\n"), 1);
    assert_eq!(
        complaints_of(
            purity,
            logic,
            "use tokio::spawn;\nlet m: HashMap<u8, u8>;\n"
        ),
        2
    );
    assert_eq!(
        complaints_of(
            purity,
            logic,
            "// tokio drives it\nlet my_tokio_name = 1;\n"
        ),
        0
    );
    assert_eq!(
        complaints_of(purity, "cluster/src/io/a.rs", "use tokio::spawn;\n"),
        0
    );
    assert_eq!(
        complaints_of(purity, "cluster/src/logic/mod.rs", "mod view;\n"),
        1
    );
    assert_eq!(
        complaints_of(crate_homes, "cluster/src/a.rs", "use quinn::Endpoint;\n"),
        1
    );
    assert_eq!(
        complaints_of(
            crate_homes,
            "remote/src/wire_format.rs",
            "bincode::encode();\n"
        ),
        0
    );
    assert_eq!(complaints_of(unfinished, logic, "fn f() { todo!() }\n"), 1);
    let sleep = "async fn t() { sleep(SECOND).await }\n";
    assert_eq!(
        complaints_of(sleeping_tests, "actor/tests/it/a.rs", sleep),
        1
    );
    assert_eq!(complaints_of(sleeping_tests, "actor/src/a.rs", sleep), 0);
    let paused = format!("#[tokio::test(start_paused = true)]\n{sleep}");
    assert_eq!(
        complaints_of(sleeping_tests, "actor/tests/it/a.rs", &paused),
        0
    );
    let select = "tokio::select! {\n    x = y => {}\n}\n";
    assert_eq!(complaints_of(biased_select, "actor/src/a.rs", select), 1);
    assert_eq!(
        complaints_of(length, "actor/src/a.rs", &"\n".repeat(901)),
        1
    );
    let tested = format!("{}#[cfg(test)]\n{}", "\n".repeat(300), "\n".repeat(900));
    assert_eq!(complaints_of(length, "actor/src/a.rs", &tested), 0);
}

#[test]
fn each_rule_about_manifests_finds_what_breaks_it() {
    let mut complaints = Complaints::new();
    arrows(
        "actor",
        "[dependencies]\notava-remote.workspace = true\nserde = \"1\"\n",
        &mut complaints,
    );
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let mut lock = String::new();
    for (name, version) in [
        ("tokio", "1.44.1"),
        ("rand", "0.9.2"),
        ("rand", "0.10.0"),
        ("rustls-pemfile", "2.0.0"),
    ] {
        writeln!(
            lock,
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n"
        )
        .unwrap();
    }
    complaints.clear();
    floors(&lock, &mut complaints);
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    let map = "| `actor/src/` | each has `logic/` |";
    let folders = ["actor/src", "actor/src/logic", "actor/src/lanes"].map(str::to_owned);
    assert_eq!(missing_in_map(map, &folders).len(), 1);
}

#[test]
fn the_rule_about_promises_finds_what_breaks_it() {
    let files = |path: &str| {
        let text =
            "#[tokio::test(start_paused = true)]\n#[ignore]\nasync fn proves() {}\nfn helps() {}\n";
        (path == "actor/tests/it/watch.rs").then(|| text.to_owned())
    };
    let table =
        |proof: &str| format!("| promise | proved by |\n| --- | --- |\n| it holds | {proof} |\n");
    let complaints = |proof: &str| unproved(&table(proof), files).len();
    assert_eq!(complaints("`watch::proves`"), 0);
    assert_eq!(complaints("`actor/tests/it/watch.rs::proves`"), 0);
    assert_eq!(complaints("`watch::proves`, `watch::helps`"), 1);
    assert_eq!(complaints("`watch::prove`"), 1);
    assert_eq!(complaints("`links::proves`"), 1);
    assert_eq!(complaints("`watch`"), 1);
    assert_eq!(complaints("somebody"), 1);
}
