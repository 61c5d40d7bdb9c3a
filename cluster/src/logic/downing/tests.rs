//! Proves: both sides of a split come to answers that fit together, case by case.
//!
//! Members are letters: `a` is up, `a1` joining, `a3` leaving, `a4` exiting; the lowest letter has the
//! lowest address. `"ace|bd"` is a clean split, `"a>b b>a"` says who cannot reach whom besides. Each
//! side is asked on its own: its first member observes everybody on the other sides, and all on it
//! have seen the same. Cases and their answers follow Pekko's SplitBrainResolverSpec.

use super::*;

fn node(letter: char) -> NodeId {
    let name = letter.to_string();
    NodeId::new(name, ([10, 0, 0, 1], letter as u16).into(), 1)
}

fn letters(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| &*node.name).collect()
}

/// The members of one side and their states.
fn side(text: &str) -> Vec<(char, Status)> {
    let mut members: Vec<(char, Status)> = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        let status = match rest.peek() {
            Some('1') => Status::Joining,
            Some('3') => Status::Leaving,
            Some('4') => Status::Exiting,
            _ => Status::Up,
        };
        rest.next_if(char::is_ascii_digit);
        members.push((letter, status));
    }
    members
}

/// Whom `asked` puts down and how it decides; ages go against the alphabet: `g` is the oldest.
fn ask(rule: impl Into<Rule>, asked: &str, others: &str, indirect: &str) -> (Decision, String) {
    let rule = rule.into();
    let (mine, theirs) = (side(asked), side(others));
    let entry = |(letter, status): &(char, Status)| {
        let mut entry = Entry::joining(0);
        entry.status = *status;
        entry.age = (*status != Status::Joining).then_some(1_000 - u64::from(u32::from(*letter)));
        (node(*letter), entry)
    };
    let view: View = mine.iter().chain(&theirs).map(entry).collect();
    let mut pairs: Vec<(char, char)> = indirect
        .split_whitespace()
        .map(|pair| (pair.chars().next().unwrap(), pair.chars().last().unwrap()))
        .collect();
    pairs.extend(theirs.iter().map(|(other, _)| (mine[0].0, *other)));
    let mut reachability = Reachability::default();
    for (observer, _) in &pairs {
        let said = pairs.iter().filter(|(other, _)| other == observer);
        let said = said.map(|(_, subject)| node(*subject)).collect();
        reachability.set(&node(*observer), &said);
    }
    let situation = Situation {
        view: &view,
        unreachable: reachability.unreachable(),
        reachability,
        seen: mine.iter().map(|(letter, _)| node(*letter)).collect(),
    };
    let decision = rule.decide(&situation);
    (decision, letters(&rule.nodes_to_down(&situation)))
}

/// `sides` as seen by the side before the first bar: it puts `down` down.
fn check(rule: impl Into<Rule>, sides: &str, indirect: &str, down: &str) {
    let (asked, others) = sides.split_once('|').unwrap_or((sides, ""));
    let rule = rule.into();
    let (_, found) = ask(rule.clone(), asked, &others.replace('|', ""), indirect);
    assert_eq!(found, down, "{rule}: {sides} with {indirect:?}");
}

/// The same answer on both sides.
fn check_both(rule: impl Into<Rule>, one: &str, other: &str, down: &str) {
    let rule = rule.into();
    check(rule.clone(), &format!("{one}|{other}"), "", down);
    check(rule, &format!("{other}|{one}"), "", down);
}

const MAJORITY: Strategy = Strategy::KeepMajority;

#[test]
fn the_larger_side_goes_on() {
    check_both(MAJORITY, "ace", "bd", "bd");
    check_both(MAJORITY, "ab", "cde", "ab");
    check_both(MAJORITY, "b", "ac", "b");
    check_both(MAJORITY, "ab", "cd", "cd");
    check_both(MAJORITY, "a", "b", "b");
}

#[test]
fn three_parts_without_a_majority_all_stop() {
    check(MAJORITY, "ab|cd|e", "", "ab");
    check(MAJORITY, "cd|ab|e", "", "cd");
    check(MAJORITY, "e|ab|cd", "", "e");
}

/// Joining members do not count, but go with their side.
#[test]
fn joining_members_do_not_count() {
    check_both(MAJORITY, "bd", "a1c", "ac");
    check_both(MAJORITY, "ab1", "cde", "ab");
}

/// The other side may have moved members on just before the split.
#[test]
fn a_step_that_the_other_side_may_have_made_is_counted() {
    check(MAJORITY, "abfg|cde", "", "cde");
    check(MAJORITY, "cde|abf1g1", "", "abcdefg");
    check(MAJORITY, "abf|cde", "", "cde");
    check(MAJORITY, "cde|abf1", "", "abcdef");
    check(MAJORITY, "ab|cdef1", "", "ab");
    check(MAJORITY, "cdef|ab", "", "ab");
    check(MAJORITY, "a3be1|cd", "", "abcde");
    check(MAJORITY, "cd|a4b", "", "b");
}

#[test]
fn the_indirectly_connected_go() {
    check(MAJORITY, "ab", "a>b b>a", "ab");
    check(MAJORITY, "abc", "a>b b>a", "ab");
    check(MAJORITY, "abc", "a>b b>c c>a", "abc");
    check(MAJORITY, "abcd", "a>d d>a b>c c>b", "abcd");
    check(MAJORITY, "abcde", "a>b b>c c>a", "abc");
    check(MAJORITY, "abcdefg", "b>c c>b e>f f>e", "bcef");
}

/// C4: a one-way cut: the one who is not reached knows of it.
#[test]
fn who_knows_that_it_is_called_unreachable_is_not_cut_off() {
    check(MAJORITY, "abc", "a>b a>c", "abc");
    check(MAJORITY, "abcde", "b>c c>b a>d", "abcd");
}

#[test]
fn the_indirectly_connected_go_and_the_rule_holds_for_the_rest() {
    check(MAJORITY, "abde|c", "a>b b>a", "abc");
    check(MAJORITY, "abc|de", "b>c c>b", "bcde");
    check(MAJORITY, "de|abc", "", "de");
    check(MAJORITY, "de|abc", "b>c c>b", "bcde");
    check(MAJORITY, "abc|defg", "b>c c>b", "abc");
    check(MAJORITY, "defg|abc", "", "abc");
    check(MAJORITY, "defg|abc", "b>c c>b", "abc");
    check(MAJORITY, "abc|defg", "d>e e>d", "abcde");
    check(MAJORITY, "defg|abc", "d>e e>d", "abcde");
    check(MAJORITY, "abc|defg", "b>e e>f f>b", "abcef");
    check(MAJORITY, "defg|abc", "b>e e>f f>b", "abcef");
    check(MAJORITY, "abc|defg", "", "abc");
    check(MAJORITY, "defg|abc", "d>e g>f", "abcdefg");
}

/// Where even the rest holds indirectly connected members, nobody can be sure.
#[test]
fn a_double_case_stops_all() {
    check(MAJORITY, "abc|defg", "d>e g>f", "abcdefg");
}

#[test]
fn the_side_of_the_oldest_goes_on() {
    let oldest = Strategy::KeepOldest;
    check_both(oldest, "ae", "bcd", "bcd");
    check_both(oldest, "abcd", "e", "e");
    check_both(oldest, "a", "b", "a");
    check(oldest, "abd|ce4", "", "c");
    check(oldest, "e|abc3", "", "e");
    check(oldest, "abc3|e", "", "e");
    check(oldest, "ae3|bcd", "", "abcde");
    check(oldest, "bcd|a1e", "", "abcde");
    check(oldest, "abc", "a>b b>a", "ab");
}

#[test]
fn a_quorum_goes_on() {
    let three = Strategy::StaticQuorum(3);
    check_both(three, "ace", "bd", "bd");
    check(three, "ab|cd", "", "ab");
    check(three, "cd|ab", "", "cd");
    check_both(three, "abc", "def", "abcdef");
    check(three, "abc1|de", "", "abc");
    check(three, "abc3|de", "", "de");
    check(three, "abc4|de", "", "ab");
}

#[test]
fn down_all_downs_all() {
    check_both(Strategy::DownAll, "abc", "de", "abcde");
    check(Strategy::DownAll, "abc", "a>b b>a", "abc");
}

#[test]
fn decisions_have_names() {
    let (decision, _) = ask(MAJORITY, "cde", "abf1g1", "");
    assert_eq!(decision, Decision::DownAll);
    let (decision, _) = ask(MAJORITY, "abc", "", "a>b b>a");
    assert_eq!(decision, Decision::DownIndirectlyConnected);
}
