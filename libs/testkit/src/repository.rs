//! Files of the repository that a test reads: under Bazel those in its `data`, under cargo all of them.

use std::path::PathBuf;

/// Where the file or folder of the repository is. Bazel runs a test in the root of its files, cargo in the folder of its crate.
///
/// # Panics
/// When it is not there; under Bazel it must be in the test's `data`.
#[must_use]
pub fn path(relative: &str) -> PathBuf {
    let folder = std::env::current_dir().expect("a working folder");
    let found = folder.ancestors().map(|ancestor| ancestor.join(relative)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{relative} is not here: is it in the test's data?"))
}

/// The text of a file of the repository.
///
/// # Panics
/// When it is not there or not text.
#[must_use]
pub fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).expect("a text file")
}

/// Names and texts of the files in a folder of the repository, sorted.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn read_folder(relative: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(path(relative)).expect("a folder");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path()).expect("a text file"))
        })
        .collect();
    files.sort();
    files
}
