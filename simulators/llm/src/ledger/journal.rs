//! The ledger's file. Each line is a request's number and its row as it is then; a request's last line counts. A row that has
//! not ended says `killed`, which is true if no other line follows.
//!
//! A line is one write and not forced to the disk: it outlives the process, not the machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::LedgerRow;

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens the file, or makes it.
    pub(super) fn append(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // Ends a line that was cut when the process was killed.
        file.write_all(b"\n")?;
        Ok(Self(file))
    }

    /// Writes a line.
    pub(super) fn note(&mut self, number: u64, row: &LedgerRow) -> io::Result<()> {
        let mut line = serde_json::to_vec(&(number, row))?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// The rows of a file in the order of their requests; none when there is no file. A line that was cut is left out.
pub(super) fn read(path: &Path) -> io::Result<BTreeMap<u64, LedgerRow>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str::<(u64, LedgerRow)>(line).ok()).collect())
}
