//! Random sequences of all that can happen to a copy, in any order, against what is true.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use chassis::config::Millis;
use chassis::{Clock, Random};
use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::Entitlements;
use futures::FutureExt;
use identity::OrganizationId;
use tokio::sync::oneshot;

use super::{Copies, Look};
use crate::config::EntitlementsConfig;

const OLDEST: Duration = Duration::from_mins(10);
const ORGANIZATIONS: usize = 6;
const MOST: usize = 4;

/// A question under way: what it will be answered is what was true when the database was read, if it was by now.
struct Question {
    organization: usize,
    number: u64,
    asked_at: DateTime<Utc>,
    read: Option<Entitlements>,
}

struct World {
    copies: Copies,
    now: DateTime<Utc>,
    organizations: [OrganizationId; ORGANIZATIONS],
    /// What is true of each.
    version: [i64; ORGANIZATIONS],
    /// Messages that have not come yet: whose (all, if nobody's), and what was true when they were written.
    messages: VecDeque<(Option<usize>, [i64; ORGANIZATIONS])>,
    /// What was heard of: nothing older may be used from then on.
    heard: [i64; ORGANIZATIONS],
    questions: Vec<Question>,
}

impl World {
    fn new(random: &Random) -> Self {
        let config = EntitlementsConfig { refresh: Millis(Duration::from_mins(1)), oldest: Millis(OLDEST), most: MOST };
        Self {
            copies: Copies::new(&config),
            now: DateTime::UNIX_EPOCH,
            organizations: std::array::from_fn(|_| OrganizationId::new(&Clock::system(), random)),
            version: [1; ORGANIZATIONS],
            messages: VecDeque::new(),
            heard: [1; ORGANIZATIONS],
            questions: Vec::new(),
        }
    }

    /// What billing-service would answer; when that was so, in the field of the seats.
    fn truth(&self, organization: usize) -> Entitlements {
        Entitlements {
            organization_id: self.organizations[organization],
            version: self.version[organization],
            plans: Vec::new(),
            features: BTreeSet::new(),
            models: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            seats: u32::try_from(self.now.timestamp()).ok(),
            spend_limits: Vec::new(),
        }
    }

    fn ask(&mut self, organization: usize) {
        let waiting = oneshot::channel().1.shared();
        let number = self.copies.begin(self.organizations[organization], waiting, self.now);
        self.questions.push(Question { organization, number, asked_at: self.now, read: None });
    }

    fn request(&mut self, organization: usize) -> Option<i64> {
        match self.copies.look(self.organizations[organization], self.now) {
            Look::Use(copy) => Some((copy, false)),
            Look::UseAndAsk(copy) => Some((copy, true)),
            Look::Wait(_) => None,
            Look::Ask => {
                self.ask(organization);
                None
            }
        }
        .map(|(copy, asks)| {
            assert!(copy.version >= self.heard[organization], "a copy of before a change that was heard of is used");
            let age = self.now - DateTime::from_timestamp(copy.seats.expect("an instant").into(), 0).expect("an instant");
            // It was asked for before it was true, and is as old as the question.
            assert!(age < TimeDelta::from_std(OLDEST).expect("a time"), "a copy is used that is too old");
            if asks {
                self.ask(organization);
            }
            copy.version
        })
    }

    fn step(&mut self, [kind, which, more]: [u8; 3]) {
        let organization = usize::from(which) % ORGANIZATIONS;
        let question = (!self.questions.is_empty()).then(|| usize::from(more) % self.questions.len().max(1));
        match (kind % 8, question) {
            (0, _) => {
                self.version[organization] += 1;
                self.messages.push_back((Some(organization), self.version));
            }
            (1, _) if more < 40 => {
                self.version = self.version.map(|version| version + 1);
                self.messages.push_back((None, self.version));
            }
            (2, _) => {
                let Some((whose, versions)) = self.messages.pop_front() else { return };
                self.copies.changed(whose.map(|organization| self.organizations[organization]));
                for (organization, (heard, version)) in self.heard.iter_mut().zip(versions).enumerate() {
                    if whose.is_none_or(|whose| whose == organization) {
                        *heard = version.max(*heard);
                    }
                }
            }
            (3, Some(question)) => {
                let truth = self.truth(self.questions[question].organization);
                self.questions[question].read.get_or_insert(truth);
            }
            (4, Some(question)) => {
                let Question { organization, number, asked_at, read } = self.questions.swap_remove(question);
                let read = read.filter(|_| more % 5 > 0);
                self.copies.end(self.organizations[organization], number, read, asked_at);
            }
            (5, _) => self.now += TimeDelta::seconds(i64::from(more)),
            _ => {
                self.request(organization);
            }
        }
    }
}

#[test]
fn no_copy_is_used_that_is_too_old_or_of_before_a_change_that_was_heard_of() {
    for seed in 0..300 {
        let random = Random::seeded(seed);
        let mut world = World::new(&random);
        for _ in 0..400 {
            world.step(random.bytes());
            assert!(world.copies.known.len() <= MOST, "seed {seed}");
        }
        // When all is told and nothing is under way any more, everybody has what is true.
        while !world.messages.is_empty() {
            world.step([2, 0, 0]);
        }
        for Question { organization, number, asked_at, .. } in std::mem::take(&mut world.questions) {
            world.copies.end(world.organizations[organization], number, None, asked_at);
        }
        for organization in 0..ORGANIZATIONS {
            if world.request(organization).is_none() {
                let Question { number, asked_at, .. } = world.questions.pop().expect("a question");
                let answer = world.truth(organization);
                world.copies.end(world.organizations[organization], number, Some(answer), asked_at);
            }
            assert_eq!(world.request(organization), Some(world.version[organization]), "seed {seed}");
        }
    }
}
