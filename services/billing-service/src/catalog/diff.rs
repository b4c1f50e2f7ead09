//! What applying a catalogue would change: made, changed into a new version, no longer sold; and whom that leaves where they are.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::domain::{Catalog, Code};
use super::print;

/// What kind of thing is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A plan.
    Plan,
    /// A credit pack.
    CreditPack,
    /// A coupon.
    Coupon,
}

impl Kind {
    /// The text stored in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::CreditPack => "credit_pack",
            Self::Coupon => "coupon",
        }
    }
}

/// What happens to one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is sold from now on.
    Create,
    /// It has a new version; the fields that differ, with both texts.
    Change(Vec<FieldChange>),
    /// It is no longer sold.
    Retire,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The field's path within the thing.
    pub path: String,
    /// What it was; empty when it was absent.
    pub from: String,
    /// What it becomes; empty when it becomes absent.
    pub to: String,
}

/// A change of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of what kind.
    pub kind: Kind,
    /// Which one.
    pub code: Code,
    /// What happens to it.
    pub action: Action,
}

/// Everything that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Things, sorted by kind and code.
    pub changes: Vec<Change>,
    /// The default plan, from and to, when it differs.
    pub default_plan: Option<(Option<Code>, Option<Code>)>,
}

impl Diff {
    /// What leads from one catalogue to another.
    #[must_use]
    pub fn between(from: &Catalog, to: &Catalog) -> Self {
        let mut changes = Vec::new();
        compare(&mut changes, Kind::Plan, &from.plans, &to.plans, print::plan);
        compare(&mut changes, Kind::CreditPack, &from.credit_packs, &to.credit_packs, print::credit_pack);
        compare(&mut changes, Kind::Coupon, &from.coupons, &to.coupons, print::coupon);
        let default_plan = (from.default_plan != to.default_plan).then(|| (from.default_plan.clone(), to.default_plan.clone()));
        Self { changes, default_plan }
    }

    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.default_plan.is_none()
    }

    /// Plans that would move into another group. That is refused: who has one plan of each of two groups would have two of one.
    #[must_use]
    pub fn regrouped(&self) -> Vec<&Code> {
        let moves = |action: &Action| matches!(action, Action::Change(fields) if fields.iter().any(|field| field.path == "group"));
        self.changes.iter().filter(|change| change.kind == Kind::Plan && moves(&change.action)).map(|change| &change.code).collect()
    }

    /// The changes as an operator reads them. `subscribers` says of a plan how many subscriptions are on which of its versions.
    #[must_use]
    pub fn describe(&self, subscribers: &BTreeMap<(Code, i32), i64>) -> String {
        let mut lines: Vec<String> = Vec::new();
        for change in &self.changes {
            lines.push(change.to_string());
            if change.kind == Kind::Plan && change.action != Action::Create {
                for ((_, version), count) in subscribers.iter().filter(|((code, _), _)| *code == change.code) {
                    lines.push(format!("      {count} subscriptions stay on version {version}"));
                }
            }
        }
        if let Some((from, to)) = &self.default_plan {
            let name = |code: &Option<Code>| code.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            lines.push(format!("~ default plan: {} -> {}", name(from), name(to)));
        }
        if lines.is_empty() { "nothing would change".to_owned() } else { lines.join("\n") }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, code) = (self.kind.as_str().replace('_', " "), &self.code);
        match &self.action {
            Action::Create => write!(f, "+ {kind} {code}: is sold"),
            Action::Retire => write!(f, "- {kind} {code}: is no longer sold"),
            Action::Change(fields) => {
                write!(f, "~ {kind} {code}: a new version")?;
                fields.iter().try_for_each(|field| write!(f, "\n      {}: {} -> {}", field.path, or_none(&field.from), or_none(&field.to)))
            }
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

fn compare<T: PartialEq>(
    changes: &mut Vec<Change>,
    kind: Kind,
    from: &BTreeMap<Code, T>,
    to: &BTreeMap<Code, T>,
    tree: impl Fn(&T) -> Value,
) {
    let codes: std::collections::BTreeSet<&Code> = from.keys().chain(to.keys()).collect();
    for code in codes {
        let action = match (from.get(code), to.get(code)) {
            (None, Some(_)) => Action::Create,
            (Some(_), None) => Action::Retire,
            (Some(old), Some(new)) if old != new => Action::Change(fields(&tree(old), &tree(new))),
            _ => continue,
        };
        changes.push(Change { kind, code: code.clone(), action });
    }
}

/// The fields that differ between two trees.
fn fields(from: &Value, to: &Value) -> Vec<FieldChange> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", from, &mut old);
    flatten("", to, &mut new);
    let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |of: &BTreeMap<String, String>, path: &String| of.get(path).cloned().unwrap_or_default();
    let all = paths.into_iter().map(|path| FieldChange { path: path.clone(), from: text(&old, path), to: text(&new, path) });
    all.filter(|field| field.from != field.to).collect()
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| flatten(&super::reader::join(path, name), value, into)),
        value => {
            into.insert(path.to_owned(), value.to_string());
        }
    }
}
