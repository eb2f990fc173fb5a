// SPDX-License-Identifier: LGPL-2.1-or-later
//! Rows of text in columns, within the width of a terminal.

/// A terminal that is written to.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Characters in a line.
    pub columns: usize,
}

/// The line cut to the terminal's width, if there is one; what is cut off is marked.
pub(super) fn fitted(line: &str, terminal: Option<Terminal>) -> String {
    let line = line.trim_end();
    let columns = terminal.map_or(usize::MAX, |terminal| terminal.columns.max(1));
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let kept = line.chars().take(columns - 1);
    kept.chain(['…']).collect()
}

/// The rows, each column as wide as its widest cell, and the last one as it is.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
