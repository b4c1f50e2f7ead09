//! The copies and the questions about them; no I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::Entitlements;
use futures::future::Shared;
use identity::OrganizationId;
use tokio::sync::oneshot;

use crate::config::EntitlementsConfig;

/// How long billing-service is left alone when it could not say in passing.
const PAUSE: TimeDelta = TimeDelta::seconds(1);

/// Resolves when billing-service has answered; to nothing when it could not.
pub type Waiting = Shared<oneshot::Receiver<Option<Arc<Entitlements>>>>;

/// What is to be done for a request.
#[derive(Debug)]
pub enum Look {
    /// This is known.
    Use(Arc<Entitlements>),
    /// This may be used, and should be read again.
    UseAndAsk(Arc<Entitlements>),
    /// Somebody has asked.
    Wait(Waiting),
    /// Nothing is known.
    Ask,
}

/// What is known of an organization. That a copy was dropped leaves its version behind: an older one must not come after it.
#[derive(Debug)]
struct Known {
    copy: Option<Arc<Entitlements>>,
    version: i64,
    /// When the answer was asked for: it is at least as new.
    read_at: DateTime<Utc>,
    asked_at: DateTime<Utc>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    waiting: Waiting,
}

/// All that is known.
#[derive(Debug)]
pub struct Copies {
    known: HashMap<OrganizationId, Known>,
    questions: HashMap<OrganizationId, Question>,
    asked: u64,
    refresh: TimeDelta,
    oldest: Duration,
    most: usize,
}

impl Copies {
    pub fn new(config: &EntitlementsConfig) -> Self {
        Self {
            known: HashMap::new(),
            questions: HashMap::new(),
            asked: 0,
            refresh: TimeDelta::from_std(config.refresh.0).unwrap_or(TimeDelta::MAX),
            oldest: config.oldest.0,
            most: config.most.max(1),
        }
    }

    pub const fn oldest(&self) -> Duration {
        self.oldest
    }

    fn is_too_old(&self, known: &Known, now: DateTime<Utc>) -> bool {
        now - known.read_at >= TimeDelta::from_std(self.oldest).unwrap_or(TimeDelta::MAX)
    }

    pub fn look(&self, organization: OrganizationId, now: DateTime<Utc>) -> Look {
        let question = self.questions.get(&organization);
        let known = self.known.get(&organization).filter(|known| !self.is_too_old(known, now));
        if let Some((known, copy)) = known.and_then(|known| Some((known, known.copy.clone()?))) {
            let is_due = now - known.read_at >= self.refresh && now - known.asked_at >= PAUSE;
            return if is_due && question.is_none() { Look::UseAndAsk(copy) } else { Look::Use(copy) };
        }
        question.map_or(Look::Ask, |question| Look::Wait(question.waiting.clone()))
    }

    /// A question about the organization; answers its number.
    pub fn begin(&mut self, organization: OrganizationId, waiting: Waiting, now: DateTime<Utc>) -> u64 {
        self.asked += 1;
        self.questions.insert(organization, Question { number: self.asked, waiting });
        if let Some(known) = self.known.get_mut(&organization) {
            known.asked_at = now;
        }
        self.asked
    }

    /// What those are told who waited for this question. An answer is kept unless a change was heard of since it was asked for: it may be
    /// of before the change, and so are those who wait for it. An answer that is older than what was known is none.
    pub fn end(
        &mut self,
        organization: OrganizationId,
        number: u64,
        answer: Option<Entitlements>,
        asked_at: DateTime<Utc>,
    ) -> Option<Arc<Entitlements>> {
        let is_current = self.questions.get(&organization).is_some_and(|question| question.number == number);
        if is_current {
            self.questions.remove(&organization);
        }
        let answer = Arc::new(answer.filter(|answer| answer.organization_id == organization)?);
        let before = self.known.get(&organization).filter(|known| !self.is_too_old(known, asked_at));
        if let Some(newer) = before.filter(|known| known.version > answer.version) {
            tracing::warn!(organization.id = %organization, "billing-service told older entitlements than before");
            return newer.copy.clone();
        }
        if is_current {
            self.make_room(organization);
            let known = Known { copy: Some(Arc::clone(&answer)), version: answer.version, read_at: asked_at, asked_at };
            self.known.insert(organization, known);
        }
        Some(answer)
    }

    /// What was known is old: of one organization, or of all. Nobody who comes from now on waits for what was asked before.
    pub fn changed(&mut self, organization: Option<OrganizationId>) {
        if let Some(organization) = organization {
            self.questions.remove(&organization);
            if let Some(known) = self.known.get_mut(&organization) {
                known.copy = None;
            }
        } else {
            self.questions.clear();
            self.known.values_mut().for_each(|known| known.copy = None);
        }
    }

    /// Those that were not read for the longest go: what is in use is read again and again. Several at once, so that not every new
    /// organization has all of them looked through.
    fn make_room(&mut self, organization: OrganizationId) {
        if self.known.len() < self.most || self.known.contains_key(&organization) {
            return;
        }
        let mut ages: Vec<DateTime<Utc>> = self.known.values().map(|known| known.read_at).collect();
        let last = self.most / 16;
        let (_, until, _) = ages.select_nth_unstable(last);
        let (until, mut left) = (*until, last + 1);
        self.known.retain(|_, known| {
            let goes = known.read_at <= until && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod walk;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chassis::config::Millis;
    use chassis::{Clock, Random};

    use super::*;

    fn copies(most: usize) -> Copies {
        let (refresh, oldest) = (Millis(Duration::from_mins(1)), Millis(Duration::from_mins(10)));
        Copies::new(&EntitlementsConfig { refresh, oldest, most })
    }

    fn organizations<const N: usize>() -> [OrganizationId; N] {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        std::array::from_fn(|_| OrganizationId::new(&clock, &random))
    }

    fn entitlements(organization_id: OrganizationId, version: i64) -> Entitlements {
        Entitlements {
            organization_id,
            version,
            plans: Vec::new(),
            features: BTreeSet::new(),
            models: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            seats: None,
            spend_limits: Vec::new(),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("an instant")
    }

    fn begin(copies: &mut Copies, organization: OrganizationId, seconds: i64) -> u64 {
        let (_, waiting) = oneshot::channel();
        copies.begin(organization, futures::FutureExt::shared(waiting), at(seconds))
    }

    /// Asked and answered in the same second.
    fn read(copies: &mut Copies, organization: OrganizationId, version: i64, seconds: i64) -> Option<i64> {
        let number = begin(copies, organization, seconds);
        copies.end(organization, number, Some(entitlements(organization, version)), at(seconds)).map(|copy| copy.version)
    }

    fn used(copies: &Copies, organization: OrganizationId, seconds: i64) -> Option<i64> {
        match copies.look(organization, at(seconds)) {
            Look::Use(copy) | Look::UseAndAsk(copy) => Some(copy.version),
            Look::Wait(_) | Look::Ask => None,
        }
    }

    #[test]
    fn a_copy_is_used_then_read_again_in_passing_and_none_in_the_end() {
        let (mut copies, [ada]) = (copies(10), organizations());
        assert!(matches!(copies.look(ada, at(0)), Look::Ask));
        let number = begin(&mut copies, ada, 0);
        assert!(matches!(copies.look(ada, at(0)), Look::Wait(_)), "there is one question for all");
        copies.end(ada, number, Some(entitlements(ada, 1)), at(0));
        assert!(matches!(copies.look(ada, at(59)), Look::Use(_)));
        assert!(matches!(copies.look(ada, at(60)), Look::UseAndAsk(_)));
        let number = begin(&mut copies, ada, 60);
        assert!(matches!(copies.look(ada, at(60)), Look::Use(_)), "it is being asked");
        assert!(copies.end(ada, number, None, at(60)).is_none());
        assert!(matches!(copies.look(ada, at(60)), Look::Use(_)), "billing-service is left alone for a moment");
        assert!(matches!(copies.look(ada, at(61)), Look::UseAndAsk(_)));
        assert!(matches!(copies.look(ada, at(599)), Look::UseAndAsk(_)));
        assert!(matches!(copies.look(ada, at(600)), Look::Ask), "what is old is none");
    }

    #[test]
    fn an_older_answer_never_replaces_a_newer_one_and_a_drop_does_not_make_it_new() {
        let (mut copies, [ada]) = (copies(10), organizations());
        assert_eq!(read(&mut copies, ada, 7, 0), Some(7));
        assert_eq!(read(&mut copies, ada, 6, 1), Some(7), "who asked is told what is known");
        assert_eq!(used(&copies, ada, 2), Some(7));
        copies.changed(Some(ada));
        assert_eq!(read(&mut copies, ada, 6, 3), None, "it cannot be of after the change");
        assert_eq!(used(&copies, ada, 3), None);
        assert_eq!(read(&mut copies, ada, 8, 4), Some(8));
        assert_eq!(used(&copies, ada, 4), Some(8));
    }

    #[test]
    fn an_answer_to_a_question_of_before_a_change_is_not_kept() {
        for of_all in [false, true] {
            let (mut copies, [ada, eve]) = (copies(10), organizations());
            let before = begin(&mut copies, ada, 0);
            copies.changed(Some(eve));
            assert!(matches!(copies.look(ada, at(0)), Look::Wait(_)), "another organization's change is no change");
            copies.changed(if of_all { None } else { Some(ada) });
            assert!(matches!(copies.look(ada, at(0)), Look::Ask), "whoever comes now asks anew");
            let after = begin(&mut copies, ada, 1);
            let told = copies.end(ada, before, Some(entitlements(ada, 1)), at(0));
            assert_eq!(told.map(|copy| copy.version), Some(1), "those who asked before the change are told what was so then");
            assert_eq!(used(&copies, ada, 1), None);
            copies.end(ada, after, Some(entitlements(ada, 2)), at(1));
            assert_eq!(used(&copies, ada, 1), Some(2));
        }
    }

    #[test]
    fn an_answer_about_somebody_else_is_none() {
        let (mut copies, [ada, eve]) = (copies(10), organizations());
        let number = begin(&mut copies, ada, 0);
        assert!(copies.end(ada, number, Some(entitlements(eve, 1)), at(0)).is_none());
        assert_eq!((used(&copies, ada, 0), used(&copies, eve, 0)), (None, None));
    }

    #[test]
    fn there_are_never_more_copies_than_allowed_and_those_in_use_stay() {
        let (mut copies, organizations) = (copies(32), organizations::<100>());
        let in_use = organizations[0];
        for (second, organization) in (0..).zip(organizations) {
            read(&mut copies, organization, 1, second);
            read(&mut copies, in_use, 1, second);
            assert!(copies.known.len() <= 32, "{}", copies.known.len());
            assert_eq!((used(&copies, in_use, second), used(&copies, organization, second)), (Some(1), Some(1)));
        }
        assert!(copies.known.len() > 16);
    }
}
