//! When what happened that a request whose process was killed may have suffered from.

/// For so long after Redis is back a checkpoint may still be on its way: the connection is made anew, and what was refused is told again.
const BACK: i64 = 700;
/// Checkpoints are to be no further apart, in milliseconds.
const SECOND: i64 = 1000;

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
    /// in milliseconds, none if it was not.
    #[must_use]
    pub fn unnoted(&self, began: i64) -> i64 {
        let Some(death) = self.deaths.iter().copied().filter(|death| *death >= began).min() else { return 0 };
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
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_outage_in_the_last_second_of_a_process_keeps_it_from_noting() {
        let incidents = |outages: &[(i64, i64)]| Incidents { outages: outages.to_vec(), deaths: vec![1_000, 10_000, 20_000] };
        assert_eq!(incidents(&[]).unnoted(5_000), 0);
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(5_000), 1_000, "away, back and not yet told");
        assert_eq!(incidents(&[(9_000, 9_100)]).unnoted(5_000), 800);
        assert_eq!(incidents(&[(7_000, 8_200)]).unnoted(5_000), 0, "there was time for a checkpoint");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(9_400), 600, "as long as it lived");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(10_001), 0, "that was another process");
        assert_eq!(incidents(&[(9_000, 9_500)]).unnoted(20_001), 0, "its process lives");
    }
}
