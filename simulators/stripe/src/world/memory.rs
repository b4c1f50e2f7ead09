//! The account as it is kept in a file: what it holds and what is due, and neither settings nor secrets of the command line.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::World;
use crate::ids::Source;

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory<'a> {
    objects: Cow<'a, HashMap<String, Value>>,
    kinds: Cow<'a, HashMap<String, Vec<String>>>,
    agenda: Cow<'a, HashMap<String, BTreeSet<(i64, String)>>>,
    ids: Source,
    /// How far the global clock was moved by hand, in seconds.
    ahead: i64,
    meter_identifiers: Cow<'a, BTreeMap<String, i64>>,
    endpoint_secrets: Cow<'a, HashMap<String, Vec<String>>>,
    invoice_number: u64,
}

impl World {
    /// What is to be kept.
    pub(crate) fn remember(&self) -> Memory<'_> {
        Memory {
            objects: Cow::Borrowed(&self.objects),
            kinds: Cow::Borrowed(&self.kinds),
            agenda: Cow::Borrowed(&self.agenda),
            ids: self.ids.clone(),
            ahead: self.clock.ahead(),
            meter_identifiers: Cow::Borrowed(&self.meter_identifiers),
            endpoint_secrets: Cow::Borrowed(&self.endpoint_secrets),
            invoice_number: self.invoice_number,
        }
    }

    /// Takes up what was kept.
    pub(crate) fn recall(&mut self, memory: Memory<'_>) {
        self.objects = memory.objects.into_owned();
        self.kinds = memory.kinds.into_owned();
        self.agenda = memory.agenda.into_owned();
        self.ids = memory.ids;
        self.clock.resume(memory.ahead);
        self.meter_identifiers = memory.meter_identifiers.into_owned();
        self.endpoint_secrets = memory.endpoint_secrets.into_owned();
        self.invoice_number = memory.invoice_number;
    }
}
