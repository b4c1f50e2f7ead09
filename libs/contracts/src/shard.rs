//! Which keys of Redis lie together. All that one script touches must be on one node of a cluster, and an organization's usage is
//! appended to a stream by the same script that settles it; a stream for each organization would be too many to read. So
//! organizations share shards, and the shard is the hash tag of all their keys.

use identity::OrganizationId;

/// One of a fixed number of groups of organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// How many there are. It must never change while a stream holds anything: an organization's keys would be looked for elsewhere.
    pub const COUNT: u8 = 16;

    /// The organization's: the last byte of its id, which is random.
    #[must_use]
    pub const fn of(organization: OrganizationId) -> Self {
        Self(organization.uuid().as_bytes()[15] % Self::COUNT)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// The name of a key of this shard; `{…}` is what a cluster hashes.
    #[must_use]
    pub fn key(self, name: &str) -> String {
        format!("trivet:{{{:02}}}:{name}", self.0)
    }

    /// The stream of its usage events.
    #[must_use]
    pub fn usage_stream(self) -> String {
        self.key("usage")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chassis::{Clock, Random};

    use super::*;

    #[test]
    fn organizations_spread_evenly_and_always_find_their_shard_again() {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let mut counts = BTreeMap::new();
        for _ in 0..4096 {
            let organization = OrganizationId::new(&clock, &random);
            assert_eq!(Shard::of(organization), Shard::of(OrganizationId::from_uuid(organization.uuid())));
            *counts.entry(Shard::of(organization)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), Shard::all().count());
        assert!(counts.values().all(|count| (128..512).contains(count)), "{counts:?}");
    }

    #[test]
    fn all_keys_of_a_shard_have_its_hash_tag() {
        let shard = Shard(7);
        assert_eq!((shard.usage_stream(), shard.key("lease:x")), ("trivet:{07}:usage".into(), "trivet:{07}:lease:x".into()));
    }
}
