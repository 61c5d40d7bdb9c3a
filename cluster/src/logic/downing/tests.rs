//! Proves: both sides of a split come to answers that fit together, case by case.
//!
//! Members are letters: `a` is up, `a1` joining, `a2` weakly up, `a3` leaving, `a4` exiting; `a*` has the
//! role `r`. The lowest letter has the lowest address. `"ace|bd"` is a clean split, `"a>b b>a"` says who cannot reach whom besides. Each
//! side is asked on its own: its first member observes everybody on the other sides, and all on it
//! have seen the same. Cases and their answers follow Pekko's SplitBrainResolverSpec.

use super::*;
use crate::logic::profile::Profile;
use proptest::prelude::{Strategy as Any, any, prop_assert, proptest};

fn node(letter: char) -> NodeId {
    let name = letter.to_string();
    NodeId::new(name, ([10, 0, 0, 1], letter as u16).into(), 1)
}

fn letters(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| &*node.name).collect()
}

/// The members of one side and their entries; ages go against the alphabet: `g` is the oldest.
fn side(text: &str) -> Vec<(char, Entry)> {
    let mut members: Vec<(char, Entry)> = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        let status = match rest.next_if(char::is_ascii_digit) {
            Some('1') => Status::Joining,
            Some('2') => Status::WeaklyUp,
            Some('3') => Status::Leaving,
            Some('4') => Status::Exiting,
            _ => Status::Up,
        };
        let has_role = rest.next_if_eq(&'*').is_some();
        members.push((letter, entry(letter, status, has_role)));
    }
    members
}

fn entry(letter: char, status: Status, has_role: bool) -> Entry {
    let roles = has_role.then(|| "r".to_owned()).into_iter().collect();
    let profile = Profile {
        roles,
        ..Profile::default()
    };
    Entry {
        status,
        age: (!status.is_entering()).then_some(1_000 - u64::from(u32::from(letter))),
        ..Entry::joining(0).with_profile(profile.shared())
    }
}

/// Whom `asked` puts down and how it decides.
fn ask(rule: impl Into<Rule>, asked: &str, others: &str, indirect: &str) -> (Decision, String) {
    let rule = rule.into();
    situated(asked, others, indirect, |situation| {
        let decision = rule.decide(situation);
        (decision, letters(&rule.nodes_to_down(situation)))
    })
}

/// Calls `ask` with what the first member of `asked` knows.
fn situated<T>(
    asked: &str,
    others: &str,
    indirect: &str,
    ask: impl FnOnce(&Situation<'_>) -> T,
) -> T {
    let (mine, theirs) = (side(asked), side(others));
    let members = mine.iter().chain(&theirs);
    let view: View = members
        .map(|(letter, entry)| (node(*letter), entry.clone()))
        .collect();
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
    ask(&situation)
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

/// C3: `a` missed `e`, then it was lost itself, and all others have lost both. Its words are no bridge, unless
/// somebody still reaches it, or has not seen what the others have.
#[test]
fn what_was_said_by_a_member_that_is_lost_is_left_out() {
    let down = |asked, others, indirect| {
        let rule = Rule::from(MAJORITY);
        situated(asked, others, indirect, |situation| {
            let all: BTreeSet<NodeId> = situation.view.live().map(|(n, _)| n.clone()).collect();
            let situation = situation.clone();
            let situation = situation.without_words_of_the_lost(&rule, |_| all.clone());
            letters(&rule.nodes_to_down(&situation))
        })
    };
    let words = "a>e c>a c>e d>a d>e";
    assert_eq!(down("bcd", "ae", words), "ae");
    // As it was before they were left out.
    check(MAJORITY, "bcd|ae", words, "abcde");
    assert_eq!(down("bcd", "ae", "a>e c>a c>e d>e"), "abcde");
    assert_eq!(down("bcd", "aef", "a>e c>a c>e d>a d>e"), "abcdef");
    // What it said of those who remain is left out only where these are not needed: `a` and `e` may have
    // put them down.
    assert_eq!(down("bcd", "ae", "a>e a>c c>a c>e d>a d>e"), "abcde");
    let six = "a>f a>c c>a c>f d>a d>f e>a e>f";
    assert_eq!(down("bcde", "af", six), "af");
    // A smaller side stops.
    assert_eq!(down("bc", "ade", "a>e c>a c>d c>e"), "abcde");
    // A bridge between those who have seen the same is one still.
    assert_eq!(down("bcd", "ae", "a>e c>a c>e d>a d>e c>d d>c"), "acde");
}

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
    // The step makes two equal sides. b leads, so a cannot have been moved without its knowing.
    check(MAJORITY, "bc|da1", "", "ad");
    check(MAJORITY, "a1cd|be1", "", "abcde");
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
    // Not as in Pekko, where `d` and `g` go on: `e` may be out on the other side, and then that is not smaller.
    check(MAJORITY, "defg|abc", "b>e e>f f>b", "dg");
    check(MAJORITY, "abc|defg", "", "abc");
    check(MAJORITY, "defg|abc", "d>e g>f", "abcdefg");
}

/// Seeds 261 and 377 of the soak: after a clean cut a second one in another place, before the first is decided.
#[test]
fn two_cuts_in_a_row_are_no_bridge() {
    // `a` was cut off from all, then `e` went over to it: the other four go on without both.
    let before = "a>b a>c a>d a>f b>a c>a d>a f>a";
    check(MAJORITY, "ea|bcdf", before, "e");
    check(MAJORITY, "bcdf|e", "", "e");
    // First `ad` were cut off, then `bf`, which have put `ad` down by then and have the lowest address.
    let before = "b>a b>d f>a f>d a>b a>f d>b d>f e>b e>f";
    check(MAJORITY, "cade|bf", before, "ce");
    check(MAJORITY, "bf|ce", "", "ce");
    // With `g` they are more than those.
    check(MAJORITY, "cadeg|bf", &format!("{before} g>b g>f"), "abdf");
    check(MAJORITY, "bf|ceg", "", "bf");
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
    check(three, "ade|bc2", "", "bc");
}

/// A cluster that outgrew its quorum stops as a whole; by how many it is too large is told before.
#[test]
fn a_quorum_that_the_cluster_outgrew() {
    let two = Strategy::StaticQuorum(2);
    check_both(two, "abc", "d", "abcd");
    let too_many = |members: &str, rule: &Rule| {
        situated(members, "", "", |situation| rule.too_many(situation.view))
    };
    assert_eq!(too_many("abc", &two.into()), 0);
    assert_eq!(
        too_many("abcd3e1", &two.into()),
        1,
        "joining ones do not count"
    );
    assert_eq!(too_many("a*bcde*", &of_role(two)), 0);
    assert_eq!(too_many("abcdefg", &MAJORITY.into()), 0);
}

fn of_role(strategy: Strategy) -> Rule {
    Rule {
        role: Some("r".into()),
        ..strategy.into()
    }
}

#[test]
fn only_members_with_the_role_count() {
    let majority = of_role(MAJORITY);
    check_both(majority.clone(), "a*b*c", "d*efg", "defg");
    check_both(majority.clone(), "a*bcd", "e*", "e");
    check_both(majority.clone(), "b*", "ac*", "ac");
    check_both(majority.clone(), "ab", "c", "abc");
    check(majority.clone(), "c*d*e*|a*b*f1*", "", "abcdef");
    // The leader may have no role itself, and may have moved up one with the lowest address of it.
    check(majority.clone(), "c*|ab1*", "", "abc");
    check(majority, "ab*|c*", "", "c");
    let oldest = of_role(Strategy::KeepOldest);
    check_both(oldest.clone(), "ac*d*", "b*efg", "befg");
    check_both(oldest.clone(), "a*cd*", "b*efg", "befg");
    check_both(oldest, "d*efg", "a*b*", "defg");
    let quorum = of_role(Strategy::StaticQuorum(2));
    check_both(quorum.clone(), "a*b*", "c*defg", "cdefg");
    check(quorum.clone(), "a*bcd|e*fg", "", "abcd");
    check(quorum, "e*fg|a*bcd", "", "efg");
}

#[test]
fn the_oldest_goes_on_even_alone_by_choice() {
    let oldest = Rule {
        down_if_alone: false,
        ..Strategy::KeepOldest.into()
    };
    check_both(oldest.clone(), "e", "abcd", "abcd");
    check_both(oldest.clone(), "ae", "bcd", "bcd");
    assert_eq!(oldest.to_string(), "keep-oldest, even alone");
    assert_eq!(of_role(MAJORITY).to_string(), "keep-majority of r");
}

/// Whom the side puts down if it gets the lease, and whom if not; and whether it waits before.
fn check_lease(sides: &str, indirect: &str, waits: bool, granted: &str, denied: &str) {
    let rule = Rule::from(Strategy::LeaseMajority);
    let (asked, others) = sides.split_once('|').unwrap_or((sides, ""));
    situated(asked, others, indirect, |situation| {
        let decision = rule.decide(situation);
        assert!(decision.needs_lease(), "{sides}");
        let minority = decision == Decision::LeaseThenDownUnreachable { minority: true };
        assert_eq!(minority, waits, "{sides}");
        let down = |got| letters(&situation.nodes_of(&rule, decision.with_lease(got)));
        assert_eq!(down(true), granted, "{sides} with {indirect:?}, granted");
        assert_eq!(down(false), denied, "{sides} with {indirect:?}, denied");
    });
}

#[test]
fn the_lease_decides() {
    check_lease("abc|de", "", false, "de", "abc");
    check_lease("de|abc", "", true, "abc", "de");
    check_lease("ab|cd", "", false, "cd", "ab");
    check_lease("ab|cd1e1", "", false, "cde", "ab");
    check_lease("abcde", "a>b b>a", false, "ab", "abcde");
    check_lease("abc|de", "b>c c>b", false, "bcde", "abc");
}

/// A step that was taken on one side only, or the wish of a member of that side.
#[derive(Clone, Copy, Debug)]
struct Random {
    status: Status,
    has_role: bool,
    on_first: bool,
    /// The leader of the second side moved it on.
    moved: bool,
    /// It wished so, and only its own side knows.
    wish: u8,
}

fn randoms() -> impl Any<Value = Vec<Random>> {
    let statuses = [
        Status::Joining,
        Status::WeaklyUp,
        Status::Up,
        Status::Up,
        Status::Leaving,
        Status::Exiting,
    ];
    let one =
        (0..statuses.len(), any::<[bool; 3]>(), 0u8..6).prop_map(move |(index, flags, wish)| {
            let [has_role, on_first, moved] = flags;
            Random {
                status: statuses[index],
                has_role,
                on_first,
                moved,
                wish,
            }
        });
    proptest::collection::vec(one, 2..9)
}

/// What remains of one side of a clean split, as that side decides.
fn survivors(rule: &Rule, members: &[Random], first: bool) -> BTreeSet<NodeId> {
    let named = members.iter().zip('a'..);
    // Whoever moves members is the first that has a say, and its side knows of it.
    let leader = members.iter().find(|member| member.status.is_voting());
    let leads = leader.is_none_or(|member| !member.on_first);
    let ahead = leads && !first;
    let view: View = named
        .clone()
        .filter_map(|(member, letter)| {
            let own = member.on_first == first;
            let status = match member.status {
                entering if entering.is_entering() && member.moved && ahead => Status::Up,
                Status::Exiting if member.moved && ahead => return None,
                status => status,
            };
            let status = match member.wish {
                1 if own => status.max(Status::Leaving),
                2 if own => status.max(Status::Exiting),
                _ => status,
            };
            let mut entry = entry(letter, status, member.has_role);
            // Who was moved up just now is the youngest.
            if member.status.is_entering() {
                entry.age = (member.moved && ahead).then_some(2_000);
            }
            Some((node(letter), entry))
        })
        .collect();
    let side = |mine: bool| -> BTreeSet<NodeId> {
        let nodes = named
            .clone()
            .filter(move |(m, _)| (m.on_first == first) == mine);
        let nodes = nodes.map(|(_, letter)| node(letter));
        nodes.filter(|node| view.is_live(node)).collect()
    };
    let (seen, unreachable) = (side(true), side(false));
    let mut reachability = Reachability::default();
    if let Some(observer) = seen.first() {
        reachability.set(observer, &unreachable);
    }
    let going = |node: &NodeId| view.status(node) == Some(Status::Exiting);
    let down = if unreachable.iter().all(going) {
        BTreeSet::new()
    } else {
        rule.nodes_to_down(&Situation {
            view: &view,
            reachability,
            unreachable,
            seen: seen.clone(),
        })
    };
    let votes = |node: &NodeId| view.status(node).is_some_and(Status::is_voting);
    seen.into_iter()
        .filter(|node| votes(node) && !down.contains(node))
        .collect()
}

fn rules() -> impl Any<Value = Rule> {
    let strategies = [
        Strategy::DownAll,
        Strategy::KeepMajority,
        Strategy::KeepOldest,
        Strategy::StaticQuorum(1),
        Strategy::StaticQuorum(2),
        Strategy::StaticQuorum(3),
    ];
    (0..strategies.len(), any::<bool>(), any::<bool>()).prop_map(move |(index, role, alone)| Rule {
        strategy: strategies[index],
        role: role.then(|| "r".to_owned()),
        down_if_alone: alone,
    })
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4_000))]

    /// C12: of two sides one goes on at most, also where one is a step ahead of the other.
    #[test]
    fn never_do_both_sides_go_on(rule in rules(), members in randoms()) {
        let one = survivors(&rule, &members, true);
        let other = survivors(&rule, &members, false);
        prop_assert!(one.is_empty() || other.is_empty(), "{}: {} and {}", rule, letters(&one), letters(&other));
    }
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
