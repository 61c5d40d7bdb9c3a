//! Members: the cluster's state, as sharding needs to see it.

use crate::logic::view::{Host, View};
use otava_cluster::{Cluster, ClusterEvent, ClusterState, Member, Status};
use otava_remote::NodeId;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Follows the members of `cluster`, until it ends or nobody looks any more. Those that lack one of
/// `roles` host nothing. Holds no handle of the cluster, so that a node whose last handle is dropped
/// falls silent.
pub(crate) fn follow(cluster: &Cluster, roles: &BTreeSet<String>) -> watch::Receiver<View> {
    let mut members = Members {
        roles: roles.clone(),
        view: View::empty(cluster.me().clone()),
        is_out: false,
        gone_order: VecDeque::new(),
    };
    let states = cluster.subscribe();
    members.look(&states.borrow());
    let (views, reader) = watch::channel(members.view.clone());
    let handle = cluster.remote().system().handle();
    handle.spawn(run(members, states, cluster.events(), views));
    reader
}

async fn run(
    mut members: Members,
    mut states: watch::Receiver<Arc<ClusterState>>,
    mut events: broadcast::Receiver<ClusterEvent>,
    views: watch::Sender<View>,
) {
    let mut ended = false;
    while !ended {
        tokio::select! {
            biased;
            () = views.closed() => return,
            event = events.recv() => match event {
                Ok(ClusterEvent::SelfDowned) => members.is_out = true,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => ended = true,
            },
            changed = states.changed() => ended = changed.is_err(),
        }
        // Who is no member, or no longer, has no right to host anything.
        members.is_out |= ended;
        members.look(&states.borrow_and_update());
        views.send_if_modified(|view| {
            let changed = *view != members.view;
            view.clone_from(&members.view);
            changed
        });
    }
}

/// What was seen last.
struct Members {
    /// Those that a host has.
    roles: BTreeSet<String>,
    view: View,
    is_out: bool,
    /// Who is gone, in the order of their going.
    gone_order: VecDeque<NodeId>,
}

/// How many that are gone are remembered. Tables that name one are replaced within seconds.
const GONE_MAX: usize = 1_024;

impl Members {
    fn look(&mut self, state: &ClusterState) {
        let roles = self.roles.clone();
        let hosts_kind = |member: &Member| roles.iter().all(|role| member.has_role(role));
        let hosts = state.members.iter().filter_map(|(node, member)| {
            let host = match member.status {
                Status::Up | Status::Leaving | Status::Exiting if !hosts_kind(member) => {
                    Host::Proxy
                }
                Status::Up => Host::Up,
                Status::Leaving | Status::Exiting => Host::Leaving,
                _ => return None,
            };
            Some((node.clone(), host))
        });
        let hosts = hosts.collect();
        let before = std::mem::replace(&mut self.view.hosts, hosts);
        // Those who were removed are not listed any more: whoever was a host and is none is gone.
        let hosts = &self.view.hosts;
        let left = before.into_keys().filter(|node| !hosts.contains_key(node));
        let down = state.members.values();
        let down = down.filter(|member| !member.status.is_live());
        let down = down.map(|member| member.id.clone());
        let gone: BTreeSet<NodeId> = left.chain(down).collect();
        for node in gone {
            self.bury(node);
        }
        if self.is_out {
            self.view.gone.insert(self.view.me.clone());
        }
        let unreachable = state.unreachable.iter();
        self.view.unreachable = unreachable
            .filter(|node| self.view.hosts.contains_key(node))
            .cloned()
            .collect();
        let mut possible = state.members.values().filter(|member| hosts_kind(member));
        let is_joining = |status| matches!(status, Status::Joining | Status::WeaklyUp);
        self.view.joining = possible.any(|member| is_joining(member.status));
        let version = |node: &NodeId| state.members.get(node).map(Member::app_version);
        let newest = self.view.hosts.keys().filter_map(version).max();
        self.view.outdated = self.view.hosts.keys().cloned().collect();
        self.view.outdated.retain(|node| version(node) < newest);
        let oldest = state.up().filter(|member| hosts_kind(member));
        let oldest = oldest.min_by_key(|member| member.seniority());
        self.view.oldest = oldest.map(|member| member.id.clone());
    }

    /// Remembers who is gone, and forgets the oldest of too many.
    fn bury(&mut self, node: NodeId) {
        if !self.view.gone.insert(node.clone()) {
            return;
        }
        self.gone_order.push_back(node);
        if self.gone_order.len() > GONE_MAX
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.view.gone.remove(&oldest);
        }
    }
}
