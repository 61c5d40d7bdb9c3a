//! Proves: the page that compares our defaults with Pekko's says what they are.

use otava_cluster::ClusterConfig;
use std::time::Duration;

/// What the page says of ours, by setting.
pub(crate) fn said(setting: &str) -> String {
    let page = include_str!("../../../docs/pekko-defaults.md");
    let begin = format!("| `{setting}` |");
    let row = page.lines().find(|line| line.starts_with(&begin));
    let row = row.unwrap_or_else(|| panic!("docs/pekko-defaults.md does not name `{setting}`"));
    row.split('|').nth(2).unwrap().trim().to_owned()
}

pub(crate) fn shown(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1_000 == 0 => format!("{} s", millis / 1_000),
        millis => format!("{millis} ms"),
    }
}

#[test]
fn the_page_of_defaults_is_true() {
    let config = ClusterConfig::default();
    for (setting, time) in [
        ("lease_delay", config.lease_delay),
        ("lease_for", config.lease_for),
        ("heartbeat_interval", config.heartbeat_interval),
        ("acceptable_pause", config.acceptable_pause),
        ("gossip_interval", config.gossip_interval),
        ("weakly_up_after", config.weakly_up_after.unwrap()),
        ("form_after", config.form_after),
        ("join_retry", config.join_retry),
        ("join_within", config.join_within),
        ("leave_within", config.leave_within),
        ("contacts_stable_for", config.contacts_stable_for),
        ("lookup_interval", config.lookup_interval),
        ("tombstone_after", config.tombstone_after),
    ] {
        assert_eq!(said(setting), shown(time), "{setting}");
    }
    for (setting, number) in [
        ("neighbours", config.neighbours),
        ("members_min", config.members_min),
        ("contacts_min", config.contacts_min),
    ] {
        assert_eq!(said(setting), number.to_string(), "{setting}");
    }
    assert_eq!(said("phi_threshold"), config.phi_threshold.to_string());
    assert_eq!(
        said("downing").replace(' ', "-"),
        config.downing.to_string()
    );
    assert_eq!(said("down_if_alone"), config.down_if_alone.to_string());
    assert_eq!(
        said("down_all_when_unstable"),
        config.down_all_when_unstable.to_string()
    );
    assert!(config.seeds.is_empty() && config.downing_role.is_none());
    assert!(config.stable_after.is_none() && said("stable_after").starts_with("by size"));
}
