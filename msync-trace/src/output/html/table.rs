//! Tables: with a header that stays with its cells on narrow screens, and folded where they are long.

use super::{markup::Markup, spell};

/// A table that is folded until somebody wants to see it.
pub(super) struct Folded<'a, const N: usize> {
    /// What it is a table of.
    pub(super) title: &'static str,
    /// What a screen reader calls it.
    pub(super) label: &'a str,
    pub(super) columns: &'static [&'static str; N],
    /// Rows that the page has.
    pub(super) shown: usize,
    /// Rows that it has not.
    pub(super) left_out: u64,
    /// How to see those: ends a sentence.
    pub(super) elsewhere: &'static str,
}

impl<const N: usize> Folded<'_, N> {
    /// Writes it, with these rows.
    pub(super) fn write(&self, page: &mut Markup, rows: impl FnOnce(&mut Markup)) {
        page.element("details", &[], |page| {
            let count = spell::digits(self.shown as u64 + self.left_out);
            page.leaf("summary", &[], &format!("{} ({count})", self.title));
            if self.left_out > 0 {
                let left_out = spell::digits(self.left_out);
                let text = format!("{left_out} of them are not on this page{}", self.elsewhere);
                page.leaf("p", &[("class", "note")], &text);
            }
            let region = [
                ("class", "scroll"),
                ("role", "region"),
                ("aria-label", self.label),
                ("tabindex", "0"),
            ];
            page.element("div", &region, |page| {
                page.element("table", &[("class", "cards")], |page| {
                    header(page, self.columns);
                    page.element("tbody", &[], rows);
                });
            });
        });
    }
}

/// The header row of a table.
pub(super) fn header(page: &mut Markup, columns: &[&str]) {
    page.element("thead", &[], |page| {
        page.element("tr", &[], |page| {
            for column in columns {
                page.leaf("th", &[("scope", "col")], column);
            }
        });
    });
}

/// A cell that knows its column, for narrow screens.
pub(super) fn cell(page: &mut Markup, column: &str, inside: impl FnOnce(&mut Markup)) {
    page.element("td", &[("data-column", column)], inside);
}
