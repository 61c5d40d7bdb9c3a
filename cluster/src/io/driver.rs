//! Driver: the one task that owns a membership, brings it what happens and does what it wants.

use crate::config::{ClusterConfig, Dissemination as Kind};
use crate::io::chitchat::Chitchat;
use crate::io::dissemination::{Broken, Dissemination};
use crate::io::roles;
use crate::io::seeded::Seeded;
use crate::logic::leases::Grant;
use crate::logic::membership::{End, Input, Membership, Output};
use crate::logic::message::Message;
use crate::logic::state::{ClusterEvent, ClusterState};
use crate::logic::statement::Statement;
use crate::wire;
use otava_actor::Time;
use otava_remote::{Channel, Remote, RemoteEvent, RemoteEvents};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// How long a node that has ended goes on spreading its last words.
const LINGER: Duration = Duration::from_secs(2);
/// How long the store of the lease may take to answer.
const LEASE_WITHIN: Duration = Duration::from_secs(5);
/// Inputs that are taken between two looks at the clock.
const BATCH_MAX: usize = 64;

pub(crate) struct Driver {
    pub(crate) remote: Remote,
    pub(crate) config: ClusterConfig,
    pub(crate) started: u64,
    pub(crate) membership: Membership,
    /// Ends when the last handle is dropped.
    pub(crate) inputs: mpsc::Receiver<Input>,
    /// For answers to what the membership wants done; keeps nothing alive.
    pub(crate) answers: mpsc::WeakSender<Input>,
    pub(crate) state: watch::Sender<Arc<ClusterState>>,
    pub(crate) events: broadcast::Sender<ClusterEvent>,
    pub(crate) end: watch::Sender<Option<End>>,
    pub(crate) gossip: Option<Box<dyn Dissemination>>,
    /// When the last words have been spread.
    pub(crate) silent_at: Time,
    /// The cluster is larger than its quorum allows, and that was said.
    pub(crate) too_large: bool,
}

/// The lease that decides which side of a split goes on: one for each cluster that was formed.
fn lease_name(cluster: u64) -> String {
    format!("otava-downing-{cluster:016x}")
}

enum Happening {
    Handles(Option<Input>),
    Remote(Option<RemoteEvent>),
    Statements(Result<Vec<Arc<Statement>>, Broken>),
    Timeout,
}

impl Driver {
    pub(crate) async fn run(mut self, mut remote_events: RemoteEvents) {
        loop {
            let now = self.remote.system().now();
            if self.membership.poll_timeout().is_some_and(|at| now >= at) {
                self.membership.handle_timeout(now);
                self.carry_out();
            }
            if now >= self.silent_at {
                return;
            }
            match self.wait(&mut remote_events).await {
                Happening::Timeout => {}
                Happening::Handles(None) | Happening::Remote(None) => return,
                Happening::Handles(Some(input)) => {
                    self.take(input);
                    self.take_more();
                }
                Happening::Remote(Some(event)) => {
                    match event {
                        RemoteEvent::QuarantinedBy(node) => self.take(Input::QuarantinedBy(node)),
                        // Its certificate is known now.
                        RemoteEvent::Connected(_) => self.put_liars_down(),
                        _ => {}
                    }
                }
                Happening::Statements(Ok(statements)) => self.take(Input::Statements(statements)),
                Happening::Statements(Err(broken)) => self.gossip_broke(&broken),
            }
        }
    }

    async fn wait(&mut self, remote_events: &mut RemoteEvents) -> Happening {
        let at = self.membership.poll_timeout().unwrap_or(Time::MAX);
        let at = at.min(self.silent_at);
        let gossip = &mut self.gossip;
        let statements = async {
            match gossip {
                Some(gossip) => gossip.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.remote.sleep_until(at) => Happening::Timeout,
            event = remote_events.recv() => Happening::Remote(event),
            input = self.inputs.recv() => Happening::Handles(input),
            statements = statements => Happening::Statements(statements),
        }
    }

    fn take(&mut self, input: Input) {
        if self.config.roles_in_certificates
            && let Input::Message(from, Message::Request(request)) = &input
            && let Some(answer) = roles::refused(&self.remote, from, request)
        {
            return self.send(from.addr, &Message::Answer(from.incarnation, answer));
        }
        let now = self.remote.system().now();
        self.membership.handle(now, input);
        self.carry_out();
    }

    /// Members that claim roles which their certificates lack, if that is looked at.
    fn put_liars_down(&mut self) {
        if !self.config.roles_in_certificates || !self.membership.is_member() {
            return;
        }
        let liars = roles::liars(&self.remote, &self.membership.state());
        for node in liars {
            tracing::error!(%node, "it claims a role that its certificate lacks: it is put down");
            // It is not live after that, so this ends.
            self.take(Input::Down(node));
        }
    }

    /// What waits already, up to a batch, so that a flood cannot keep timers from being looked at.
    fn take_more(&mut self) {
        for _ in 0..BATCH_MAX {
            match self.inputs.try_recv() {
                Ok(input) => self.take(input),
                Err(_) => return,
            }
        }
    }

    /// Without gossip nothing is heard any more: this node cannot remain a member.
    fn gossip_broke(&mut self, broken: &Broken) {
        self.gossip = None;
        if self.membership.end().is_none() {
            tracing::error!(%broken, "this node leaves the cluster at once");
            let me = self.remote.id().clone();
            self.take(Input::Down(me));
        }
    }

    fn carry_out(&mut self) {
        let mut changed = false;
        let mut events = Vec::new();
        while let Some(output) = self.membership.poll_output() {
            match output {
                Output::AcquireLease(number) => self.acquire_lease(number),
                Output::Send(to, message) => self.send(to, &message),
                Output::Publish(statement) => {
                    changed = true;
                    self.publish(statement);
                }
                Output::Event(event) => {
                    tracing::info!(node = %self.remote.id(), ?event, "cluster");
                    changed = true;
                    events.push(event);
                }
                Output::Quarantine(node) => {
                    self.remote.quarantine(&node, "it is out of the cluster");
                }
                Output::Ended(end) => self.ended(end),
            }
        }
        let state = self
            .membership
            .state_if(|converged| changed || converged != self.state.borrow().converged);
        if let Some(state) = state
            && **self.state.borrow() != state
        {
            self.warn_of_size(&state);
            self.state.send_replace(Arc::new(state));
        }
        // After the state, so that whoever hears of a step finds it there.
        for event in events {
            let _ = self.events.send(event);
        }
        if changed {
            self.put_liars_down();
        }
        if changed && let Some(gossip) = &mut self.gossip {
            gossip.set_peers(self.membership.peers());
            if self.membership.end().is_none() {
                gossip.forget(&|node| self.membership.is_out(node));
            }
        }
    }

    /// A cluster that outgrew its static quorum stops as a whole after a split: said once, when it
    /// begins.
    fn warn_of_size(&mut self, state: &ClusterState) {
        let too_many = self.membership.too_many();
        if too_many > 0 && !self.too_large {
            let (members, strategy) = (state.members.len(), self.config.rule().to_string());
            tracing::warn!(
                members,
                too_many,
                strategy,
                "the cluster is larger than twice its quorum less one: after a split all would stop"
            );
        }
        self.too_large = too_many > 0;
    }

    /// Asks for the lease beside the membership, which goes on meanwhile. No answer is a no.
    fn acquire_lease(&self, number: u64) {
        let (Some(lease), Some(inputs)) = (self.config.lease.clone(), self.answers.upgrade())
        else {
            return;
        };
        let (owner, length) = (self.remote.id().to_string(), self.config.lease_for);
        let name = lease_name(self.membership.cluster());
        self.remote.system().handle().spawn(async move {
            let asked = lease.acquire(&name, &owner, length);
            let granted = match tokio::time::timeout(LEASE_WITHIN, asked).await {
                Ok(Ok(grant)) => {
                    tracing::info!(%owner, ?grant, "the lease that decides who goes on");
                    matches!(grant, Grant::Held { .. })
                }
                Ok(Err(error)) => {
                    tracing::error!(%owner, %error, "the lease is not granted");
                    false
                }
                Err(_) => {
                    tracing::error!(%owner, within = ?LEASE_WITHIN, "the lease gives no answer");
                    false
                }
            };
            // An error means that the membership has ended.
            let _ = inputs.send(Input::Leased(number, granted)).await;
        });
    }

    fn send(&self, to: std::net::SocketAddr, message: &Message) {
        let channel = match message {
            Message::Beat(_) => Channel::HEARTBEAT,
            Message::Answer(..) | Message::Request(_) => Channel::JOIN,
        };
        if let Some(bytes) = wire::encode_message(message) {
            self.remote.send_control(to, channel, bytes.into());
        }
    }

    fn publish(&mut self, statement: Arc<Statement>) {
        let gossip = self.gossip.get_or_insert_with(|| {
            let interval = self.config.gossip_interval;
            match self.config.dissemination {
                Kind::Chitchat => Box::new(Chitchat::start(&self.remote, self.started, interval)),
                Kind::Seeded(seed) => Box::new(Seeded::start(&self.remote, seed, interval)),
            }
        });
        gossip.set_peers(self.membership.peers());
        gossip.publish(statement);
    }

    fn ended(&mut self, end: End) {
        self.silent_at = self.remote.system().now() + LINGER;
        self.end.send_replace(Some(end));
    }
}
