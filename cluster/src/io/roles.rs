//! Roles: whether what a node claims to be stands in its certificate.
//!
//! The certificate of a node is known where it is connected. So its claim is looked at twice: at the
//! door, by the member that is asked, and again by every member with a connection to it, whenever
//! something has changed. Whoever lies is refused, or put down. That is an opinion which all members
//! come to share; if each left out what it does not believe, their views would never agree.

use crate::logic::door::{JoinAnswer, JoinRequest, Refusal};
use crate::logic::state::ClusterState;
use otava_remote::{NodeId, Remote};
use std::collections::BTreeSet;

/// The name under which a refusal speaks of it.
const SETTING: &str = "roles_in_certificates";

/// The answer to a node that asks to be let in with a role that its certificate lacks.
pub(crate) fn refused(remote: &Remote, from: &NodeId, request: &JoinRequest) -> Option<JoinAnswer> {
    let claimed = request.profile.iter().flat_map(|profile| &profile.roles);
    let claimed: BTreeSet<&str> = claimed.map(String::as_str).collect();
    let identity = remote.identity_of(from);
    let proven: BTreeSet<&str> = identity.iter().flat_map(|it| it.roles()).collect();
    if claimed.is_subset(&proven) {
        return None;
    }
    let ours: Vec<&str> = claimed.into_iter().collect();
    let proven: Vec<&str> = proven.into_iter().collect();
    let (ours, theirs) = (ours.join(","), proven.join(","));
    tracing::warn!(node = %from, claimed = ours, certificate = theirs, "refused for its roles");
    let setting = SETTING.to_owned();
    Some(JoinAnswer::Refused(Refusal::SettingDiffers {
        setting,
        ours,
        theirs,
    }))
}

/// The live members that are connected and claim a role that their certificate lacks.
pub(crate) fn liars(remote: &Remote, state: &ClusterState) -> Vec<NodeId> {
    let others = state.members.iter();
    let others = others.filter(|(id, member)| *id != remote.id() && member.status.is_live());
    let claims = others.filter(|(_, member)| member.roles().next().is_some());
    let lies = claims.filter(|(id, member)| {
        let identity = remote.identity_of(id);
        identity.is_some_and(|identity| member.roles().any(|role| !identity.has_role(role)))
    });
    lies.map(|(id, _)| id.clone()).collect()
}
