//! Amounts and cells as spreadsheets read them.

/// Micro-units as a decimal number with all six digits.
#[must_use]
pub fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let magnitude = micros.unsigned_abs();
    format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
}

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// Text from wherever: never run as a formula.
    Text(&'a str),
    /// Micro-units.
    Amount(i64),
    /// A whole number.
    Integer(i64),
    /// Nothing.
    Empty,
}

/// What a spreadsheet takes for the beginning of a formula, in the widths of East Asian scripts as well.
const FORMULAS: [char; 13] = ['=', '+', '-', '@', '\t', '\r', '\n', '|', '%', '＝', '＋', '－', '＠'];

/// Appends a row of CSV (RFC 4180). Text that a spreadsheet would take for a formula gets an apostrophe in front, also after what separates
/// cells where a comma is in decimals.
pub fn row(csv: &mut String, cells: &[Cell<'_>]) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            csv.push(',');
        }
        match cell {
            Cell::Text(text) => quoted(csv, text),
            Cell::Amount(micros) => csv.push_str(&decimal(*micros)),
            Cell::Integer(number) => csv.push_str(&number.to_string()),
            Cell::Empty => {}
        }
    }
    csv.push_str("\r\n");
}

fn quoted(csv: &mut String, text: &str) {
    let is_quoted = text.contains([',', ';', '\t', '"', '\r', '\n']);
    if is_quoted {
        csv.push('"');
    }
    let mut begins = true;
    for character in text.chars() {
        if begins && FORMULAS.contains(&character) {
            csv.push('\'');
        }
        begins = matches!(character, ';' | '\t');
        if character == '"' {
            csv.push('"');
        }
        csv.push(character);
    }
    if is_quoted {
        csv.push('"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_have_six_digits_and_one_sign() {
        let text = [0, 1, -1, 1_500_000, -1_500_000, i64::MAX, i64::MIN].map(decimal);
        assert_eq!(text, ["0.000000", "0.000001", "-0.000001", "1.500000", "-1.500000", "9223372036854.775807", "-9223372036854.775808"]);
    }

    /// A cell that begins like a formula would be run by whoever opens the file.
    #[test]
    fn no_text_begins_like_a_formula_and_amounts_stay_numbers() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=\"a\",b", "＝1"] {
            let mut csv = String::new();
            row(&mut csv, &[Cell::Text(text), Cell::Amount(-1), Cell::Integer(-7), Cell::Empty]);
            assert!(csv.trim_start_matches('"').starts_with('\''), "{csv}");
            assert!(csv.ends_with(",-0.000001,-7,\r\n"), "{csv}");
        }
        let mut csv = String::new();
        row(&mut csv, &[Cell::Text("a;=1"), Cell::Text("a;b"), Cell::Text("a-b=c")]);
        assert_eq!(csv, "\"a;'=1\",\"a;b\",a-b=c\r\n", "a cell of its own where semicolons are between cells");
    }

    proptest! {
        #[test]
        fn whatever_the_texts_a_row_has_as_many_cells_as_it_was_given(texts in proptest::collection::vec(".{0,12}", 1..6)) {
            let mut csv = String::new();
            row(&mut csv, &texts.iter().map(|text| Cell::Text(text)).collect::<Vec<_>>());
            let body = csv.strip_suffix("\r\n").unwrap();
            let (mut cells, mut inside) = (1, false);
            for character in body.chars() {
                match character {
                    '"' => inside = !inside,
                    ',' if !inside => cells += 1,
                    '\r' | '\n' => prop_assert!(inside, "a line ends in the middle of a row"),
                    _ => {}
                }
            }
            prop_assert!(!inside);
            prop_assert_eq!(cells, texts.len());
        }
    }
}
