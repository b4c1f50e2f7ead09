//! All that the simulated account holds: its objects, its time and what is due, and the events of the request at work.
//!
//! Objects are JSON documents in the API's own shape, since that shape has hundreds of fields of which most only pass through.
//! Fields whose name begins with `__` are the simulator's own and are never shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::error::Failure;
use crate::ids::Source;
use crate::settings::Settings;
use crate::shown::shown;

pub(crate) mod memory;

/// A request as its events name it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// `req_…`; none for what the clock does.
    pub(crate) request_id: Option<String>,
    /// The key that came with it.
    pub(crate) idempotency_key: Option<String>,
    /// The version that objects are said to be of.
    pub(crate) version: String,
}

/// The account. One lock is held around it for the whole of a request, so that each request is atomic.
#[derive(Debug)]
pub(crate) struct World {
    objects: HashMap<String, Value>,
    kinds: HashMap<String, Vec<String>>,
    /// Instants at which something may be due, per test clock (`""` is the global one). Entries are hints: who is woken looks itself.
    agenda: HashMap<String, BTreeSet<(i64, String)>>,
    pub(crate) ids: Source,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) origin: Origin,
    /// Events that were not handed to the sender yet.
    pub(crate) fresh_events: Vec<String>,
    /// How many events were forgotten.
    forgotten_events: usize,
    /// Identifiers of meter events, with the time at which they are forgotten.
    pub(crate) meter_identifiers: BTreeMap<String, i64>,
    /// Secrets of webhook endpoints, several where one is being replaced.
    pub(crate) endpoint_secrets: HashMap<String, Vec<String>>,
    /// Running number of finalized invoices.
    pub(crate) invoice_number: u64,
    /// Where pages are found by a browser.
    pub(crate) public_url: String,
    /// Raised by each change, so that a saver knows whether there is anything new.
    pub(crate) changes: u64,
    /// What the request at work has changed, with what was there before; none while nothing could be taken back.
    undo: Option<Vec<(String, Option<Value>)>>,
}

impl World {
    pub(crate) fn new(seed: u64, clock: Clock, settings: Settings) -> Self {
        Self {
            objects: HashMap::new(),
            kinds: HashMap::new(),
            agenda: HashMap::new(),
            ids: Source::new(seed),
            clock,
            settings,
            origin: Origin::default(),
            fresh_events: Vec::new(),
            forgotten_events: 0,
            meter_identifiers: BTreeMap::new(),
            endpoint_secrets: HashMap::new(),
            invoice_number: 0,
            public_url: String::new(),
            changes: 0,
            undo: None,
        }
    }

    /// A copy to try something on; its events are left behind.
    pub(crate) fn sketch(&self) -> Self {
        let kinds = self.kinds.iter().filter(|(kind, _)| *kind != "event").map(|(kind, ids)| (kind.clone(), ids.clone())).collect();
        let objects = self.objects.iter().filter(|(_, object)| object["object"] != "event");
        let objects = objects.map(|(id, object)| (id.clone(), object.clone())).collect();
        Self {
            objects,
            kinds,
            agenda: HashMap::new(),
            ids: self.ids.clone(),
            clock: self.clock,
            settings: self.settings.clone(),
            origin: self.origin.clone(),
            fresh_events: Vec::new(),
            forgotten_events: 0,
            meter_identifiers: BTreeMap::new(),
            endpoint_secrets: HashMap::new(),
            invoice_number: self.invoice_number,
            public_url: self.public_url.clone(),
            changes: 0,
            undo: None,
        }
    }

    /// A new id.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        self.ids.id(prefix)
    }

    /// Keeps an object under its `id`, new or changed.
    pub(crate) fn put(&mut self, object: &Value) {
        self.insert(object.clone());
    }

    fn insert(&mut self, object: Value) {
        let (id, kind) = (text(&object, "id"), text(&object, "object"));
        let before = self.objects.insert(id.clone(), object);
        self.changes += 1;
        if before.is_none() {
            self.kinds.entry(kind).or_default().push(id.clone());
        }
        if let Some(undo) = &mut self.undo {
            undo.push((id, before));
        }
    }

    /// From here on changes can be taken back.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// What was changed stays.
    pub(crate) fn commit(&mut self) {
        self.undo = None;
    }

    /// Takes back what was changed since the begin, with its events. What was deleted stays so: that is a request's last act.
    pub(crate) fn roll_back(&mut self) {
        for (id, before) in self.undo.take().into_iter().flatten().rev() {
            if let Some(before) = before {
                self.objects.insert(id, before);
            } else if let Some(object) = self.objects.remove(&id)
                && let Some(ids) = self.kinds.get_mut(&text(&object, "object"))
            {
                ids.retain(|kept| *kept != id);
            }
        }
        self.fresh_events.clear();
    }

    /// Forgets an object; what remains says that it was there.
    pub(crate) fn delete(&mut self, id: &str) -> Value {
        let kind = self.objects.get(id).map(|object| text(object, "object")).unwrap_or_default();
        let stub = json!({ "id": id, "object": kind, "deleted": true });
        self.objects.insert(id.to_owned(), stub.clone());
        self.changes += 1;
        if let Some(ids) = self.kinds.get_mut(&kind) {
            ids.retain(|kept| kept != id);
        }
        stub
    }

    /// Any object, also a deleted one.
    pub(crate) fn find(&self, id: &str) -> Option<&Value> {
        self.objects.get(id)
    }

    /// An object of a kind that is not deleted; `param` names where the id came from (`id` for the path).
    pub(crate) fn get(&self, kind: &str, id: &str, param: &str) -> Result<Value, Failure> {
        let found = self.objects.get(id).filter(|object| object["object"] == kind && object["deleted"] != true);
        found.cloned().ok_or_else(|| Failure::no_such(kind, id, param))
    }

    /// An object that another one names; null where there is none.
    pub(crate) fn related(&self, object: &Value, field: &str) -> Value {
        object[field].as_str().and_then(|id| self.objects.get(id)).cloned().unwrap_or(Value::Null)
    }

    /// All objects of a kind, oldest first.
    pub(crate) fn all(&self, kind: &str) -> impl DoubleEndedIterator<Item = &Value> {
        self.kinds.get(kind).into_iter().flatten().filter_map(|id| self.objects.get(id))
    }

    /// The time of an object or of its customer: that of their test clock, or the global one.
    pub(crate) fn now_of(&self, object: &Value) -> i64 {
        let clock = self.clock_of(object);
        self.objects.get(&clock).and_then(|clock| clock["frozen_time"].as_i64()).unwrap_or_else(|| self.clock.now())
    }

    /// The id of the test clock that an object lives by; empty for the global one.
    pub(crate) fn clock_of(&self, object: &Value) -> String {
        let customer = || object["customer"].as_str().and_then(|id| self.objects.get(id));
        let clock = object["test_clock"].as_str().or_else(|| customer()?["test_clock"].as_str());
        clock.unwrap_or_default().to_owned()
    }

    /// Has an object looked at when its clock reaches an instant.
    pub(crate) fn wake(&mut self, object: &Value, at: i64) {
        let clock = self.clock_of(object);
        self.agenda.entry(clock).or_default().insert((at, text(object, "id")));
    }

    /// Takes what is due first on a clock until an instant.
    pub(crate) fn next_due(&mut self, clock: &str, until: i64) -> Option<(i64, String)> {
        let agenda = self.agenda.get_mut(clock)?;
        let first = agenda.first().filter(|(at, _)| *at <= until)?.clone();
        agenda.remove(&first);
        Some(first)
    }

    /// Appends an event about an object as it is now.
    pub(crate) fn emit(&mut self, kind: &str, object: &Value) {
        self.emit_change(kind, object, None);
    }

    /// Appends an event about a change, with what the changed fields were before.
    pub(crate) fn emit_change(&mut self, kind: &str, object: &Value, before: Option<&Value>) {
        let id = self.id("evt");
        let mut data = json!({ "object": shown(object) });
        if let Some(before) = before {
            data["previous_attributes"] = difference(before, object);
        }
        let event = json!({
            "id": id,
            "object": "event",
            "api_version": self.origin.version,
            "created": self.now_of(object),
            "data": data,
            "livemode": false,
            "pending_webhooks": 0,
            "request": { "id": self.origin.request_id, "idempotency_key": self.origin.idempotency_key },
            "type": kind,
            "__real": self.clock.now(),
        });
        self.insert(event);
        self.fresh_events.push(id);
    }

    /// Keeps a changed object and appends the event about it, if anything changed.
    pub(crate) fn update(&mut self, kind: &str, object: &Value) {
        let before = self.objects.get(&text(object, "id"));
        if before.is_some_and(|before| looks_like(before, object)) {
            return self.put(object);
        }
        let before = before.cloned();
        self.put(object);
        self.emit_change(kind, object, before.as_ref());
    }

    /// Forgets events after 30 days, as Stripe does.
    pub(crate) fn forget_old_events(&mut self, now: i64) {
        const KEPT_SECONDS: i64 = 30 * 86_400;
        let Some(ids) = self.kinds.get_mut("event") else { return };
        let old = ids
            .iter()
            .take_while(|id| self.objects.get(*id).is_some_and(|event| event["__real"].as_i64().unwrap_or(now) + KEPT_SECONDS < now))
            .count();
        for id in ids.drain(..old) {
            self.objects.remove(&id);
        }
        self.forgotten_events += old;
    }

    /// The events after so many of all that there ever were, oldest first, and how many there were by now.
    pub(crate) fn events_after(&self, count: usize) -> (impl Iterator<Item = &Value>, usize) {
        let ids = self.kinds.get("event").map_or(&[][..], Vec::as_slice);
        let fresh = ids.get(count.saturating_sub(self.forgotten_events)..).unwrap_or_default();
        (fresh.iter().filter_map(|id| self.objects.get(id)), self.forgotten_events + ids.len())
    }
}

/// A text field; empty where it is none.
pub(crate) fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// A number field; zero where it is none.
pub(crate) fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or_default()
}

/// Whether two objects are shown alike.
pub(crate) fn looks_like(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return one == other };
    let visible = |fields: &Map<String, Value>| fields.keys().filter(|name| !name.starts_with("__")).count();
    visible(one) == visible(other) && one.iter().all(|(name, value)| name.starts_with("__") || other.get(name) == Some(value))
}

fn difference(before: &Value, after: &Value) -> Value {
    let fields = before.as_object().into_iter().flatten();
    let changed = fields.filter(|(name, value)| !name.starts_with("__") && after.get(name) != Some(value));
    Value::Object(changed.map(|(name, value)| (name.clone(), shown(value))).collect::<Map<_, _>>())
}
