//! Whether the committed descriptions of checked queries (`.sqlx/`) still say what the migrated schema says.

use serde_json::Value;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Column, Either, Executor, SqlSafeStr, TypeInfo};

/// Describes each query on the migrated database and compares parameters and columns with its file.
///
/// # Panics
/// When a file says something else, naming the query.
pub async fn assert_current(pool: &PgPool, files: &[(String, String)]) {
    assert!(!files.is_empty(), "there are no query files");
    for (name, text) in files {
        let file: Value = serde_json::from_str(text).expect("a query file is JSON");
        let query = file["query"].as_str().expect("a query file has a query").to_owned();
        let described = pool.describe(AssertSqlSafe(query.clone()).into_sql_str()).await;
        let described = described.unwrap_or_else(|error| panic!("{name}: {error}\n{query}"));
        let columns: Vec<(&str, &str)> = described.columns().iter().map(|column| (column.name(), column.type_info().name())).collect();
        let expected: Vec<(&str, &str)> = file["describe"]["columns"]
            .as_array()
            .expect("columns")
            .iter()
            .map(|column| (column["name"].as_str().unwrap_or_default(), type_name(&column["type_info"])))
            .collect();
        assert_eq!(columns.len(), expected.len(), "{name}: other columns\n{query}");
        for ((column, kind), (expected_column, expected_kind)) in columns.iter().zip(&expected) {
            assert_eq!(column, expected_column, "{name}: another column\n{query}");
            assert!(
                kind.eq_ignore_ascii_case(expected_kind) || *expected_kind == "?",
                "{name}: {column} is {kind}, not {expected_kind}\n{query}"
            );
        }
        let parameters = match described.parameters() {
            Some(Either::Left(types)) => types.len(),
            Some(Either::Right(count)) => count,
            None => 0,
        };
        let expected = file["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        assert_eq!(parameters, expected, "{name}: another number of parameters\n{query}");
    }
}

/// The name of a stored type; `?` for composed ones, whose spelling differs between file and server.
fn type_name(info: &Value) -> &str {
    match info.as_str() {
        Some(name) if !name.ends_with("Array") => match name {
            "Timestamptz" => "TIMESTAMPTZ",
            other => canonical(other),
        },
        _ => "?",
    }
}

fn canonical(name: &str) -> &str {
    match name {
        "Bool" | "Bytea" | "Int2" | "Int4" | "Int8" | "Text" | "Uuid" | "Jsonb" | "Json" | "Date" | "Numeric" | "Timestamptz" => name,
        _ => "?",
    }
}
