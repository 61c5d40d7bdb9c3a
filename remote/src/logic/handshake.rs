//! Handshake: whether two nodes talk to each other, decided by each of them for itself.
//!
//! ```text
//! caller                        called
//!   | -- connection, TLS ---------> |
//!   | -- hello: who I am ---------> |  judge: cluster, version, name, run, and whether both call
//!   | <--- welcome: who I am ------ |
//!   |  judge: the same, without the last
//! ```
//!
//! When both call each other at the same time, both would be called too. The call of the smaller
//! address wins: the node that has the smaller address refuses the other's call as a duplicate, the
//! other accepts and gives its own up.

use crate::node_id::NodeId;

/// What one node says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Introduction {
    /// The cluster that it belongs to.
    pub(crate) cluster: String,
    /// Who it is.
    pub(crate) node: NodeId,
    /// The lowest protocol version that it speaks.
    pub(crate) version_min: u16,
    /// The highest protocol version that it speaks.
    pub(crate) version_max: u16,
}

/// What this node knows of the one that introduced itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Its certificate is for the name that it says.
    pub(crate) name_proven: bool,
    /// Its certificate lets it listen at the address that it says.
    pub(crate) address_proven: bool,
    /// This node broke with this run of it.
    pub(crate) quarantined: bool,
    /// This run of it was followed by another one.
    pub(crate) over: bool,
    /// Another node, by name, is connected under the same address, or has the better right to it.
    pub(crate) address_held: bool,
    /// This node is calling it right now.
    pub(crate) calling: bool,
}

/// Why two nodes do not talk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// They do.
    Accept,
    /// Another node is connected under this address, or has the better right to it.
    AddressHeld,
    /// The certificate is for other addresses.
    AddressNotProven,
    /// They belong to different clusters.
    ClusterDiffers,
    /// This node's own call goes on instead.
    Duplicate,
    /// The certificate is for another name.
    NameNotProven,
    /// This node broke with that run.
    Quarantined,
    /// That run was followed by another one.
    RunOver,
    /// There is no protocol version that both speak.
    VersionDiffers,
}

/// Judges who called.
pub(crate) fn judge_caller(us: &Introduction, caller: &Introduction, known: Known) -> Verdict {
    match judge(us, caller, known) {
        Verdict::Accept if known.calling && us.node.addr < caller.node.addr => Verdict::Duplicate,
        verdict => verdict,
    }
}

/// Judges who answered a call.
pub(crate) fn judge(us: &Introduction, them: &Introduction, known: Known) -> Verdict {
    let common = us.version_min.max(them.version_min)..=us.version_max.min(them.version_max);
    if !known.name_proven {
        Verdict::NameNotProven
    } else if !known.address_proven {
        Verdict::AddressNotProven
    } else if us.cluster != them.cluster {
        Verdict::ClusterDiffers
    } else if common.is_empty() {
        Verdict::VersionDiffers
    } else if known.quarantined {
        Verdict::Quarantined
    } else if known.over {
        Verdict::RunOver
    } else if known.address_held {
        Verdict::AddressHeld
    } else {
        Verdict::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn introduction(port: u16) -> Introduction {
        Introduction {
            cluster: "c".into(),
            node: NodeId::new("n", SocketAddr::from(([127, 0, 0, 1], port)), 1),
            version_min: 1,
            version_max: 2,
        }
    }

    const PROVEN: Known = Known {
        name_proven: true,
        address_proven: true,
        quarantined: false,
        over: false,
        address_held: false,
        calling: false,
    };

    #[test]
    fn of_two_calls_that_cross_exactly_one_is_accepted() {
        let (low, high) = (introduction(1), introduction(2));
        let calling = Known {
            calling: true,
            ..PROVEN
        };
        assert_eq!(judge_caller(&low, &high, calling), Verdict::Duplicate);
        assert_eq!(judge_caller(&high, &low, calling), Verdict::Accept);
        assert_eq!(judge_caller(&low, &high, PROVEN), Verdict::Accept);
    }

    /// X4, R10: another cluster, another name, an older run, no common version.
    #[test]
    fn each_reason_to_refuse_is_named() {
        let (us, them) = (introduction(1), introduction(2));
        let other_cluster = Introduction {
            cluster: "d".into(),
            ..introduction(2)
        };
        let newer = Introduction {
            version_min: 3,
            version_max: 4,
            ..introduction(2)
        };
        let overlapping = Introduction {
            version_min: 2,
            version_max: 9,
            ..introduction(2)
        };
        let quarantined = Known {
            quarantined: true,
            over: true,
            ..PROVEN
        };
        let over = Known {
            over: true,
            ..PROVEN
        };
        let held = Known {
            address_held: true,
            ..PROVEN
        };
        let elsewhere = Known {
            address_proven: false,
            ..PROVEN
        };
        for (them, known, verdict) in [
            (&them, Known::default(), Verdict::NameNotProven),
            (&them, elsewhere, Verdict::AddressNotProven),
            (&other_cluster, PROVEN, Verdict::ClusterDiffers),
            (&newer, PROVEN, Verdict::VersionDiffers),
            (&overlapping, PROVEN, Verdict::Accept),
            (&them, quarantined, Verdict::Quarantined),
            (&them, over, Verdict::RunOver),
            (&them, held, Verdict::AddressHeld),
        ] {
            assert_eq!(judge_caller(&us, them, known), verdict);
        }
    }
}
