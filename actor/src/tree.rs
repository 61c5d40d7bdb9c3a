//! Tree: a picture of the living actors of a system, for people and for monitoring.
//!
//! The picture is taken from outside, level by level, one short look at each actor: nothing stops,
//! and no lock is held from one actor to the next. What it shows of one actor is true of one moment;
//! the moments of two actors differ, and a parent may be gone before its children are looked at.

use crate::cell::Node;
use crate::path::ActorPath;
use std::fmt;
use std::sync::Arc;

/// How many actors [`crate::ActorSystem::tree`] shows at most.
pub const TREE_ACTORS_MAX: usize = 1_000;

/// What an actor does at one moment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ActorState {
    /// It has nothing to do.
    Idle,
    /// It has something to do and waits for its turn on a worker.
    Queued,
    /// A worker runs it.
    Running,
    /// It awaits something in a handler or hook, or the end of its children.
    Waiting,
}

impl fmt::Display for ActorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
        })
    }
}

/// One actor in a [`Tree`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TreeActor {
    /// Its place in the tree.
    pub path: ActorPath,
    /// Its number, unique in the system.
    pub uid: u64,
    /// The Rust type of its messages.
    pub message_type: &'static str,
    /// What it did when it was looked at.
    pub state: ActorState,
    /// How many messages waited in its mailbox, without the one in work.
    pub queued: usize,
    /// How many living children it had, shown or not.
    pub children: usize,
    /// How many of its children are not shown.
    pub left_out: usize,
    /// How deep it is: 0 at the top.
    pub level: usize,
}

/// A picture of the living actors ([`crate::ActorSystem::tree`]). Prints as indented lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tree {
    system: ActorPath,
    actors: Vec<TreeActor>,
    left_out_at_top: usize,
}

impl Tree {
    /// The actors, each behind its parent, siblings by name.
    pub fn actors(&self) -> &[TreeActor] {
        &self.actors
    }

    /// How many actors are known to be missing because of the limit. Those below them are not
    /// counted: there may be more.
    pub fn left_out(&self) -> usize {
        let below: usize = self.actors.iter().map(|actor| actor.left_out).sum();
        below + self.left_out_at_top
    }

    /// Level by level, so that the limit cuts off what is deep before what is high.
    pub(crate) fn take(
        system: ActorPath,
        (top, top_in_all): (Vec<Arc<dyn Node>>, usize),
        limit: usize,
    ) -> Self {
        let left_out_at_top = top_in_all - top.len();
        let mut room = limit.saturating_sub(top.len());
        let mut seen: Vec<TreeActor> = Vec::new();
        // For each one in `seen`: where its children begin, and how many of them there are.
        let mut families: Vec<(usize, usize)> = Vec::new();
        let tops = top.len();
        let mut nodes: Vec<(Arc<dyn Node>, usize)> =
            top.into_iter().map(|node| (node, 0)).collect();
        let mut next = 0;
        while let Some((node, level)) = nodes.get(next).cloned() {
            let (children, in_all) = node.children_up_to(room);
            room -= children.len();
            families.push((nodes.len(), children.len()));
            seen.push(TreeActor {
                path: node.path().clone(),
                uid: node.uid(),
                message_type: node.message_type(),
                state: node.activity(),
                queued: node.queued(),
                children: in_all,
                left_out: in_all - children.len(),
                level,
            });
            nodes.extend(children.into_iter().map(|child| (child, level + 1)));
            next += 1;
        }
        Self {
            system,
            actors: parents_first(seen, &families, tops),
            left_out_at_top,
        }
    }
}

/// From the order of levels to the one in which each family stands together.
fn parents_first(seen: Vec<TreeActor>, families: &[(usize, usize)], tops: usize) -> Vec<TreeActor> {
    let mut seen: Vec<Option<TreeActor>> = seen.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(seen.len());
    let mut stack: Vec<usize> = (0..tops).rev().collect();
    while let Some(at) = stack.pop() {
        ordered.extend(seen[at].take());
        let (begin, many) = families[at];
        stack.extend((begin..begin + many).rev());
    }
    ordered
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} actors", self.system, self.actors.len())?;
        if self.left_out_at_top > 0 {
            write!(f, " (and {} more at the top)", self.left_out_at_top)?;
        }
        for actor in &self.actors {
            let indent = 2 * (actor.level + 1);
            let (name, uid, state) = (actor.path.name(), actor.uid, actor.state);
            let (queued, kind) = (actor.queued, actor.message_type);
            write!(
                f,
                "\n{:indent$}{name} #{uid} {state}, {queued} queued, {kind}",
                ""
            )?;
            if actor.left_out > 0 {
                write!(f, " (and {} more children)", actor.left_out)?;
            }
        }
        Ok(())
    }
}
