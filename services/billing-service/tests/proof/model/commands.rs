//! What may happen to two wallets, at random but the same again for the same seed; and a shorter sequence that fails as well.

use super::plans::Name;
use super::state::Only;
use super::subscribe::OfPlan;

/// Something that happens to one of the wallets. `which` picks among what there is.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    Grant { amount: i64, priority: i32, expires_in: Option<i64>, only: Only },
    Sell { paid: i64, credit: i64, expires_in: Option<i64> },
    SellAgain,
    Reserve { tokens: (u64, u64), life: i64 },
    Settle { which: usize, tokens: (u64, u64) },
    Void { which: usize },
    Admit { cost: i64 },
    Checkpoint { which: usize, tokens: (u64, u64) },
    Land { which: usize, tokens: (u64, u64) },
    LandAgain { which: usize },
    Report { which: usize, tokens: (u64, u64) },
    Refund { which: usize, amount: i64 },
    Dispute { which: usize, amount: i64 },
    Close { which: usize, fee: Option<i64> },
    GiveBack { which: usize, amount: i64 },
    Take { amount: i64 },
    Transfer { amount: i64 },
    Overdraft { limit: i64 },
    Turn { millis: u64 },
    SweepHolds,
    SweepLeases,
    SweepFlights,
    SweepGrants,
    Plan(OfPlan),
}

impl Command {
    /// What it is called, without what it is about.
    pub fn name(&self) -> String {
        format!("{self:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect()
    }
}

/// To which of the two it happens.
pub type Step = (usize, Command);

/// `SplitMix64`: every seed is as good as another, and the sequence is the same on every machine.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn amount(&mut self, end: u64) -> i64 {
        1 + i64::try_from(self.below(end)).unwrap()
    }

    fn which(&mut self) -> usize {
        usize::try_from(self.below(1 << 20)).unwrap()
    }

    fn tokens(&mut self) -> (u64, u64) {
        (self.below(40), self.below(60))
    }

    /// A sequence; in every sixth one in six is about a plan, which is asked of Stripe and takes ten times as long.
    pub fn sequence(&mut self, length: u64) -> Vec<Step> {
        let plans = self.below(6) == 0;
        (0..length).map(|_| if plans && self.below(6) == 0 { self.of_plan() } else { self.step() }).collect()
    }

    fn of_plan(&mut self) -> Step {
        let to = [Name::Basic, Name::Better][self.which() % 2];
        let command = match self.below(20) {
            0..2 => OfPlan::Subscribe { to },
            2..7 => OfPlan::Change { to },
            7..9 => OfPlan::Cancel,
            9..11 => OfPlan::Uncancel,
            11..17 => OfPlan::Days { days: [1, 15, 27, 27][self.which() % 4], card_pays: self.below(2) > 0 },
            _ => OfPlan::Mend,
        };
        // Mostly the first, so that it has something of what such a sequence is about.
        (usize::from(self.below(4) == 0), Command::Plan(command))
    }

    fn step(&mut self) -> Step {
        let which = self.which();
        let command = match self.below(100) {
            0..8 => Command::Grant {
                amount: self.amount(1500),
                priority: i32::try_from(98 + self.below(4)).unwrap(),
                expires_in: [None, Some(1), Some(1000), Some(60_000), Some(400_000)][self.which() % 5],
                only: [Only::All, Only::All, Only::Large, Only::Other][self.which() % 4],
            },
            8..12 => Command::Sell {
                paid: self.amount(2000),
                credit: self.amount(2000),
                expires_in: [None, None, Some(1000), Some(60_000), Some(400_000)][which % 5],
            },
            12..13 => Command::SellAgain,
            13..27 => Command::Reserve { tokens: self.tokens(), life: [1000, 60_000, 300_000][self.which() % 3] },
            27..37 => Command::Settle { which, tokens: self.tokens() },
            37..40 => Command::Void { which },
            40..54 => Command::Admit { cost: self.amount(800) },
            54..57 => Command::Checkpoint { which, tokens: self.tokens() },
            57..66 => Command::Land { which, tokens: self.tokens() },
            66..68 => Command::LandAgain { which },
            68..71 => Command::Report { which, tokens: self.tokens() },
            71..73 => Command::Refund { which, amount: self.amount(2500) },
            73..75 => Command::Dispute { which, amount: self.amount(2500) },
            75..77 => Command::Close { which, fee: [None, Some(15)][self.which() % 2] },
            77..80 => Command::GiveBack { which, amount: self.amount(900) },
            80..81 => Command::Take { amount: self.amount(1200) },
            81..83 => Command::Transfer { amount: self.amount(1200) },
            83..84 => Command::Overdraft { limit: [0, 300, 2000][self.which() % 3] },
            84..92 => Command::Turn { millis: [1, 999, 1000, 59_000, 61_000, 300_000, 420_000][self.which() % 7] },
            92..94 => Command::SweepHolds,
            94..96 => Command::SweepLeases,
            96..98 => Command::SweepFlights,
            _ => Command::SweepGrants,
        };
        (self.which() % 2, command)
    }
}

/// Leaves out whatever is not needed for the failure: ever smaller pieces, until none can go, or so many tries were made.
pub async fn shrink(mut steps: Vec<Step>, most: usize, mut fails: impl AsyncFnMut(&[Step]) -> bool) -> Vec<Step> {
    let (mut piece, mut tried) = (steps.len() / 2, 0);
    while piece > 0 && tried < most {
        let mut at = 0;
        while at < steps.len() && tried < most {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + piece).min(steps.len()));
            tried += 1;
            if fails(&shorter).await {
                steps = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    steps
}
