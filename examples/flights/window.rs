//! Window: decides what is sent next, so that a shard without a home holds up only itself.

use std::collections::VecDeque;

/// Commands in flight are limited for each shard. What comes for a shard that is full waits in the
/// shard's own queue, and the shards that answer go on.
#[derive(Debug)]
pub(crate) struct Window {
    /// The shard of each command, in the order of the file.
    shard_of: Vec<u32>,
    next: usize,
    shards: Vec<Shard>,
    /// Shards with a waiting command and room for it.
    ready: VecDeque<u32>,
    per_shard_max: u32,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct Shard {
    in_flight: u32,
    waiting: VecDeque<u32>,
}

impl Window {
    /// A window over commands that belong to the shards `shard_of`; at most `in_flight_max` at
    /// once, spread evenly over the `shards`.
    pub(crate) fn new(shard_of: Vec<u32>, shards: u32, in_flight_max: u32) -> Self {
        Self {
            shard_of,
            next: 0,
            shards: (0..shards).map(|_| Shard::default()).collect(),
            ready: VecDeque::new(),
            per_shard_max: (in_flight_max / shards.max(1)).max(1),
            in_flight: 0,
        }
    }

    /// The next command to send; `None` when everything that is left has to wait for an answer.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.ready.pop_front() {
            let shard = &mut self.shards[number as usize];
            let command = shard
                .waiting
                .pop_front()
                .expect("a ready shard has a command");
            shard.in_flight += 1;
            self.in_flight += 1;
            return Some(command);
        }
        while let Some(&number) = self.shard_of.get(self.next) {
            let command = u32::try_from(self.next).expect("fewer commands than 2^32");
            self.next += 1;
            let shard = &mut self.shards[number as usize];
            if shard.in_flight < self.per_shard_max {
                shard.in_flight += 1;
                self.in_flight += 1;
                return Some(command);
            }
            shard.waiting.push_back(command);
        }
        None
    }

    /// Takes note that a command was acknowledged.
    pub(crate) fn done(&mut self, command: u32) {
        let number = self.shard_of[command as usize];
        let shard = &mut self.shards[number as usize];
        shard.in_flight -= 1;
        self.in_flight -= 1;
        if !shard.waiting.is_empty() {
            self.ready.push_back(number);
        }
    }

    /// Whether every command was sent and acknowledged.
    pub(crate) fn is_finished(&self) -> bool {
        self.in_flight == 0 && self.next == self.shard_of.len() && self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_shard_holds_up_only_itself() {
        let shard_of: Vec<u32> = (0..1_000).map(|command| command % 4).collect();
        let mut window = Window::new(shard_of.clone(), 4, 8);
        let mut in_flight = VecDeque::new();
        let mut stuck = Vec::new();
        let mut done = 0;
        loop {
            while let Some(command) = window.take() {
                if shard_of[command as usize] == 3 {
                    stuck.push(command);
                } else {
                    in_flight.push_back(command);
                }
            }
            let Some(command) = in_flight.pop_front() else {
                break;
            };
            window.done(command);
            done += 1;
        }
        assert_eq!((done, stuck.as_slice()), (750, [3, 7].as_slice()));
        assert!(!window.is_finished());

        let mut answered = Vec::new();
        while let Some(command) = stuck.pop() {
            window.done(command);
            answered.push(command);
            stuck.extend(window.take());
        }
        assert!(window.is_finished());
        answered.sort_unstable();
        assert!(answered.iter().copied().eq((3..1_000).step_by(4)));
    }

    #[test]
    fn never_more_than_the_limit_is_in_flight() {
        let mut window = Window::new(vec![0, 0, 0, 1, 1, 1], 2, 4);
        let sent: Vec<_> = std::iter::from_fn(|| window.take()).collect();
        assert_eq!(sent, [0, 1, 3, 4]);
        window.done(4);
        assert_eq!(window.take(), Some(5));
        assert_eq!(window.take(), None);
    }
}
