//! When what happened that a request whose process was killed may have suffered from.

/// For so long after Redis is back a checkpoint may still be on its way: the connection is made anew, and what was refused is told again.
const BACK: i64 = 700;
/// Checkpoints are to be no further apart, in milliseconds.
const SECOND: i64 = 1000;
/// How long a request lives at most, in milliseconds: until it is given up for dead. Its own process has ended it a margin before that.
pub const LIFE: i64 = DEADLINE + MARGIN;
/// What `CHAT_DEADLINE_MS` is in the drill.
pub const DEADLINE: i64 = 3000;
/// What `CHAT_RESERVATION_MARGIN_MS` is in the drill.
pub const MARGIN: i64 = 1000;
/// How long a new process may be unable to count, in milliseconds: the tokenizer's table is built when it is first needed, which takes
/// seconds of a processor that compilers use, too (eleven did not suffice, with a load of eight on two cores and a debug build, nor did twenty
/// beside a compiler). A request that was cut is settled when it has been counted.
const TABLE: i64 = 30_000;

/// Instants in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Incidents {
    /// From when to when Redis was away.
    outages: Vec<(i64, i64)>,
    /// When a process of chat-service ended.
    deaths: Vec<i64>,
}

/// This instant.
#[must_use]
pub fn now() -> i64 {
    chassis::Clock::system().now().timestamp_millis()
}

impl Incidents {
    /// Redis was away from then until now.
    pub fn redis_was_away(&mut self, since: i64) {
        self.outages.push((since, now()));
    }

    /// A process of chat-service has ended now.
    pub fn chat_ended(&mut self) {
        self.deaths.push(now());
    }

    /// For how long the process of a request that began then could note nothing before it ended, because Redis was away in its last second:
    /// in milliseconds, 0 if it was not. `None` when no process ended in the life of the request, so that its own cannot have, and its own
    /// was not so new when the request was given up that it could not count yet. How long that process lives afterwards does not matter.
    #[must_use]
    pub fn unnoted(&self, began: i64) -> Option<i64> {
        let death = self.deaths.iter().copied().filter(|death| *death >= began).min();
        let born = self.deaths.iter().copied().filter(|death| *death < began).max();
        if death.is_none_or(|death| death > began + LIFE) && born.is_none_or(|born| began + LIFE > born + TABLE) {
            return None;
        }
        // Nothing comes after the deadline.
        let end = began + DEADLINE;
        let death = death.map_or(end, |death| death.min(end));
        let in_its_life = self.outages.iter().map(|(from, until)| ((*from).max(began), (until + BACK).min(death)));
        let (mut sum, mut earliest) = (0, death);
        let mut outages: Vec<(i64, i64)> = in_its_life.filter(|(from, until)| from < until).collect();
        outages.sort_unstable();
        for (from, until) in outages.into_iter().rev() {
            if until + SECOND >= earliest {
                sum += until.min(earliest) - from;
                earliest = from;
            }
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_outage_in_the_last_second_of_a_process_keeps_it_from_noting() {
        let incidents = |outages: &[(i64, i64)]| Incidents { outages: outages.to_vec(), deaths: vec![1_000, 10_000, 20_000] };
        assert_eq!(incidents(&[]).unnoted(7_000), Some(0));
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(7_000), Some(1_000), "away, back and not yet told");
        assert_eq!(incidents(&[(9_000, 9_100)]).unnoted(7_000), Some(800));
        assert_eq!(incidents(&[(7_000, 8_200)]).unnoted(7_000), Some(0), "there was time for a checkpoint");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(9_400), Some(600), "as long as it lived");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(6_500), Some(500), "as long as anything came");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(17_000), Some(0), "that was another process");
    }

    #[test]
    fn a_request_whose_process_lived_as_long_as_itself_was_not_abandoned() {
        let death = TABLE + 10_001;
        let incidents = Incidents { outages: Vec::new(), deaths: vec![0, death, death + 9_000] };
        assert_eq!(incidents.unnoted(death - LIFE - 1), None, "its process ended later");
        assert_eq!(incidents.unnoted(death - LIFE), Some(0));
        assert_eq!(incidents.unnoted(death + 1), Some(0), "its process was new, and could not count in its life");
        let young = death + 9_000 + TABLE - LIFE;
        assert_eq!(incidents.unnoted(young), Some(0), "its process lives, and could not count in its life either");
        assert_eq!(incidents.unnoted(young + 1), None, "its process lives, and could count");
    }
}
