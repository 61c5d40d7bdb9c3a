//! Proves: the example `flights` ends exact over a killed node, and refuses wrong input by name; others print
//! what the heads of their files say.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cluster::{example, flights, http};

const HEADER: &str = "dest,distance,year,month,day,sched_dep_time,dep_delay,arr_delay,carrier,flight,tailnum,origin\n";

/// A small file with everything that the real one has: cancelled, diverted, without a tail number.
fn small_file(folder: &Path) -> std::path::PathBuf {
    let mut text = HEADER.to_owned();
    for n in 0..600 {
        let (dep, arr) = match n % 10 {
            0 => ("NA", "NA"),
            1 => ("5", ""),
            _ => ("5", "-3"),
        };
        let tail = if n % 50 == 7 {
            "NA".to_owned()
        } else {
            format!("N{}", n % 37)
        };
        writeln!(
            text,
            "IAH,100,2013,1,{},1200,{dep},{arr},UA,{n},{tail},JFK",
            n % 28 + 1
        )
        .unwrap();
    }
    let file = folder.join("small.csv");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_small_file_ends_exact_although_the_coordinator_is_killed() {
    let folder = TempDir::new().unwrap();
    let (file, report) = (small_file(folder.path()), folder.path().join("report.csv"));
    let output = flights()
        .args(["--kill", "COORDINATOR", "--input"])
        .arg(&file)
        .arg("--report")
        .arg(&report)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("exact: 37 aircraft as in the file"), "{text}");
    assert!(
        text.contains("12 rows without a tail number left out"),
        "{text}"
    );
    let report = std::fs::read_to_string(report).unwrap();
    let mut lines = report.lines();
    assert_eq!(
        lines.next(),
        Some("tailnum,flights,cancelled,miles,arr_delay_sum")
    );
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.is_sorted_by_key(|row| row[0]) && rows.len() == 37);
    let sum = |column: usize| {
        rows.iter()
            .map(|row| row[column].parse::<i64>().unwrap())
            .sum::<i64>()
    };
    // 588 rows with a tail number; every tenth of all 600 is cancelled, every tenth diverted.
    assert_eq!((sum(1), sum(2)), (528, 60));
    assert_eq!((sum(3), sum(4)), (528 * 100, -3 * (528 - 60)));
}

/// The first program of the README: run twice, it finds its balance again.
#[test]
fn the_account_of_the_readme_remembers() {
    let folder = TempDir::new().unwrap();
    for balance in ["alice has 5", "alice has 10"] {
        let output = example("account")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), balance);
    }
}

/// `--serve` keeps the nodes up, each answering HTTP, until Ctrl-C; then all leave, status 0.
#[cfg(unix)]
#[test]
fn serve_ends_in_order_with_ctrl_c() {
    let folder = TempDir::new().unwrap();
    let file = small_file(folder.path());
    let mut child = flights()
        .args(["--serve", "--kill", "NONE", "--nodes", "2", "--input"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = |text: &str| {
        let line = lines.find(|line| line.as_ref().unwrap().contains(text));
        line.unwrap_or_else(|| panic!("it never said {text:?}"))
            .unwrap()
    };
    let line = said("answers at http://");
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    said("Ctrl-C ends this");
    let (status, body) = http(address.parse().unwrap(), "GET", "/aircraft/N5", None).unwrap();
    assert_eq!(status, 200, "{body}");
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    said("node-1 has left");
    assert!(child.wait().unwrap().success());
}

#[test]
fn wrong_input_is_named_with_its_line_before_anything_is_started() {
    let folder = TempDir::new().unwrap();
    let good = "IAH,100,2013,1,1,1200,5,-3,UA,1,N1,JFK\n";
    let bad = "IAH,100,2013,13,1,1200,5,-3,UA,2,N1,JFK\n";
    for (text, expected) in [
        (format!("{HEADER}{good}{bad}"), "line 3"),
        (
            HEADER.replace("tailnum,", "") + good,
            "lacks the column tailnum",
        ),
    ] {
        let file = folder.path().join("wrong.csv");
        std::fs::write(&file, text).unwrap();
        let output = flights().arg("--input").arg(&file).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(expected), "{errors}");
        assert!(output.stdout.is_empty());
    }
    let output = flights()
        .args(["--input", "/nowhere/flights.csv"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/flights.csv"));
}

/// What the first block of text in the head of `source` says, below the command.
fn promised(source: &str) -> Vec<&str> {
    let block = source.lines().skip_while(|line| *line != "//! ```text");
    let lines = block.skip(1).map(|line| line.strip_prefix("//! "));
    let lines = lines.map(Option::unwrap_or_default);
    let lines: Vec<_> = lines.take_while(|line| *line != "```").collect();
    assert!(
        lines[0].starts_with("$ cargo run"),
        "no command in the head"
    );
    lines[1..].to_vec()
}

/// Runs the example and compares what it prints with the head of its file.
fn check(name: &str, source: &str) {
    let output = example(name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, promised(source));
}

#[test]
fn chat_does_what_its_head_says() {
    check("chat", include_str!("../../examples/chat.rs"));
}

/// Two of three processes are killed, one after the other: money is neither made nor lost.
#[test]
fn the_bank_does_what_its_head_says() {
    check("bank", include_str!("../../examples/bank/main.rs"));
}

/// The report that follows the events of carts is exact; run twice, with the events of both runs in one
/// journal. With PostgreSQL when `OTAVA_POSTGRES_URL` says where one is.
#[test]
fn the_report_of_the_shop_is_exact() {
    let folder = TempDir::new().unwrap();
    for _ in 0..2 {
        let output = example("shopping")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}\n{errors}");
        assert!(text.contains("300 carts checked out"), "{text}");
        assert!(
            text.contains("exact: the report has what was acknowledged"),
            "{text}"
        );
    }
}
