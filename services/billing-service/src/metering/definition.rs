//! What a meter counts: of which events, which value, apart by what. Two meters of which one event may count in both must say so.

use chassis::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cloud_event::Rejection;
use super::fields::Fields;

/// Bytes of a value that events are grouped by, and of all of them together.
const LONGEST_GROUP: usize = 256;
const LONGEST_GROUPS: usize = 900;
/// The names of all groups of a meter, which stand in that key as well.
const LONGEST_NAMES: usize = 800;

/// How values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Their sum.
    Sum,
    /// How many events there are.
    Count,
    /// The greatest.
    Max,
    /// How many different ones there are.
    Unique,
}

impl Aggregation {
    /// Its text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Max => "max",
            Self::Unique => "unique",
        }
    }

    /// From the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sum, Self::Count, Self::Max, Self::Unique].into_iter().find(|aggregation| aggregation.as_str() == text)
    }
}

/// A value that counts are kept apart by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it is called in answers.
    pub name: String,
    /// Where it is in `data`.
    pub path: Vec<String>,
}

/// Lets in events that have one of some texts at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Where in `data`.
    pub path: Vec<String>,
    /// Any of these.
    pub values: Vec<String>,
}

/// `POST /v1/meters`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is called; unique in the organization.
    #[schema(example = "storage-gb-hours")]
    pub name: String,
    /// Of events of this type.
    pub event_type: String,
    /// How values become one.
    pub aggregation: Aggregation,
    /// Where the value is in `data`; absent for `count` and only there. An event that comes without it is refused; one that came before
    /// the meter adds nothing.
    #[serde(default)]
    pub value_path: Option<Vec<String>>,
    /// What counts are kept apart by.
    #[serde(default)]
    pub group_by: Vec<Group>,
    /// Which events: those for which each of these holds.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// That an event may also count in other meters of the same type and value is meant so.
    #[serde(default)]
    pub allow_overlap: bool,
}

const MOST: usize = 16;

impl Definition {
    /// Checks the rules that types cannot hold.
    ///
    /// # Errors
    /// 422 with every field at fault.
    pub fn check(&self) -> Result<(), Problem> {
        let mut mistakes: Vec<(String, String)> = Vec::new();
        let mut text = |field: &str, value: &str, most: usize| {
            if value.is_empty() || value.len() > most || value.contains('\0') {
                mistakes.push((field.to_owned(), format!("must have 1 to {most} bytes and no NUL")));
            }
        };
        text("name", &self.name, 100);
        text("event_type", &self.event_type, 256);
        for (index, group) in self.group_by.iter().enumerate() {
            text(&format!("group_by[{index}].name"), &group.name, 100);
        }
        for (index, filter) in self.filters.iter().enumerate() {
            filter.values.iter().for_each(|value| text(&format!("filters[{index}].values"), value, 256));
        }
        let groups = self.group_by.iter().enumerate().map(|(index, group)| (format!("group_by[{index}].path"), &group.path));
        let filters = self.filters.iter().enumerate().map(|(index, filter)| (format!("filters[{index}].path"), &filter.path));
        let value = self.value_path.iter().map(|path| ("value_path".to_owned(), path));
        for (field, path) in groups.chain(filters).chain(value) {
            // A number would be a place in a list to Postgres, and a list has no lasting places.
            let odd = |name: &String| name.is_empty() || name.len() > 100 || name.contains('\0') || name.parse::<i64>().is_ok();
            if path.is_empty() || path.len() > MOST || path.iter().any(odd) {
                mistakes.push((field, format!("must have 1 to {MOST} names of 1 to 100 bytes that are no numbers")));
            }
        }
        if self.value_path.is_none() != (self.aggregation == Aggregation::Count) {
            mistakes.push(("value_path".to_owned(), "must be given unless the aggregation is count, and not then".to_owned()));
        }
        if self.group_by.len() > MOST
            || self.filters.len() > MOST
            || self.filters.iter().any(|filter| filter.values.is_empty() || filter.values.len() > 100)
        {
            mistakes.push(("filters".to_owned(), format!("must be at most {MOST}, as group_by, with 1 to 100 values each")));
        }
        let names: std::collections::BTreeSet<&str> = self.group_by.iter().map(|group| group.name.as_str()).collect();
        if names.iter().map(|name| name.len()).sum::<usize>() > LONGEST_NAMES {
            mistakes.push(("group_by".to_owned(), format!("must have names of at most {LONGEST_NAMES} bytes together")));
        }
        if names.len() < self.group_by.len() {
            mistakes.push(("group_by".to_owned(), "must have each name once".to_owned()));
        }
        let Some(((field, rule), rest)) = mistakes.split_first() else { return Ok(()) };
        Err(rest.iter().fold(Problem::invalid_field(field, rule), |problem, (field, rule)| problem.field(field, rule)))
    }

    /// Whether one event may count in both and they count the same thing of it [B-62].
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let same = self.event_type == other.event_type && self.aggregation == other.aggregation && self.value_path == other.value_path;
        // An event has one value at a path: filters of the same path without a common value keep the meters apart.
        let apart = |filter: &Filter| {
            other
                .filters
                .iter()
                .any(|theirs| theirs.path == filter.path && !theirs.values.iter().any(|value| filter.values.contains(value)))
        };
        same && !self.filters.iter().any(apart)
    }

    /// Whether an event of this type with these fields is one that this meter counts.
    #[must_use]
    pub fn lets_in(&self, event_type: &str, fields: &mut Fields<'_>) -> bool {
        let mut holds = |filter: &Filter| fields.at(&filter.path).is_some_and(|value| filter.values.contains(&value));
        self.event_type == event_type && self.filters.iter().all(&mut holds)
    }

    /// What it is grouped by is part of the key of its sums, and an index has no room for more.
    fn check_groups(&self, fields: &mut Fields<'_>) -> Result<(), Rejection> {
        let mut all = 0;
        for group in &self.group_by {
            let length = fields.at(&group.path).map_or(0, |value| value.len());
            all += length;
            if length > LONGEST_GROUP || all > LONGEST_GROUPS {
                let rule =
                    format!("data.{} must have at most {LONGEST_GROUP} bytes, and all groups {LONGEST_GROUPS}", group.path.join("."));
                return Err(Rejection::new("invalid_value", rule));
            }
        }
        Ok(())
    }

    /// Whether an event that is let in has the value that is counted.
    ///
    /// # Errors
    /// The rule that it breaks: an event that cannot be counted must not look as if it was.
    pub fn check_value(&self, fields: &mut Fields<'_>) -> Result<(), Rejection> {
        self.check_groups(fields)?;
        match (self.aggregation, &self.value_path) {
            (Aggregation::Sum | Aggregation::Max, Some(path)) => fields.decimal(path).map(|_| ()),
            (Aggregation::Unique, Some(path)) => match fields.at(path) {
                Some(value) if value.len() <= 256 => Ok(()),
                _ => Err(Rejection::new("invalid_value", format!("data.{} must be given, with at most 256 bytes", path.join(".")))),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(filters: &[(&str, &[&str])]) -> Definition {
        let filter = |(path, values): &(&str, &[&str])| Filter {
            path: vec![(*path).to_owned()],
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        Definition {
            name: "m".into(),
            event_type: "t".into(),
            aggregation: Aggregation::Count,
            value_path: None,
            group_by: Vec::new(),
            filters: filters.iter().map(filter).collect(),
            allow_overlap: false,
        }
    }

    /// [B-62] [B3] Lago's incident B3: one value set was part of another, and usage was billed twice.
    #[test]
    fn filters_overlap_unless_some_path_keeps_them_apart() {
        let (all, a, ab, c) = (meter(&[]), meter(&[("x", &["a"])]), meter(&[("x", &["a", "b"])]), meter(&[("x", &["c"])]));
        let other_path = meter(&[("y", &["c"])]);
        for (one, other, expected) in
            [(&all, &a, true), (&a, &ab, true), (&a, &c, false), (&ab, &c, false), (&a, &other_path, true), (&all, &all, true)]
        {
            assert_eq!((one.overlaps(other), other.overlaps(one)), (expected, expected));
        }
        assert!(!all.overlaps(&Definition { event_type: "u".into(), ..all.clone() }));
    }

    /// What an index has no room for would keep everybody's sums from being made.
    #[test]
    fn the_names_of_all_groups_fit_into_the_key_of_their_sums() {
        let groups = |length: usize| {
            let group = |index: usize| Group { name: format!("{index:0>length$}"), path: vec!["p".to_owned()] };
            Definition { group_by: (0..MOST).map(group).collect(), ..meter(&[]) }.check()
        };
        assert!(groups(LONGEST_NAMES / MOST).is_ok());
        assert!(format!("{:?}", groups(LONGEST_NAMES / MOST + 1).unwrap_err()).contains("group_by"));
    }

    #[test]
    fn everything_that_is_wrong_with_a_meter_is_told_at_once() {
        let wrong = Definition {
            name: String::new(),
            aggregation: Aggregation::Sum,
            filters: vec![Filter { path: vec![], values: vec![] }],
            ..meter(&[])
        };
        let fields: Vec<String> = wrong.check().unwrap_err().body().errors.iter().map(|error| error.field.clone()).collect();
        assert_eq!(fields, ["name", "filters[0].path", "value_path", "filters"]);
        assert!(meter(&[("x", &["a"])]).check().is_ok());
    }
}
