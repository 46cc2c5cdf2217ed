//! Some pages of a file, wherever in memory they can be seen: in the page cache through a mapping of
//! ours, or through those of programs.

use std::io;

use super::{
    memory::{Cached, Dirtiness, Window, page_size},
    target::Target,
};

/// See the module.
pub(super) struct Sight<'a> {
    own: Option<Window<'a>>,
    target: &'a Target,
    offset: u64,
    pages: usize,
}

impl<'a> Sight<'a> {
    /// `offset` is a multiple of the page size.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    pub(super) fn new(target: &'a Target, offset: u64, pages: usize) -> io::Result<Self> {
        let own = target.file.as_ref();
        Ok(Self {
            own: own
                .map(|file| Window::new(file, offset, pages))
                .transpose()?,
            target,
            offset,
            pages,
        })
    }

    /// Copies the pages that are seen to the same places of `into`.
    ///
    /// # Errors
    /// If residency cannot be asked.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<Vec<Cached>> {
        let mut found = match &self.own {
            Some(window) => window.read(into)?,
            None => vec![Cached::Unseen; self.pages],
        };
        for index in 0..self.pages {
            if !is_missing(found[index]) {
                continue;
            }
            let into = &mut into[index * page_size()..(index + 1) * page_size()];
            let theirs = self.target.mapped();
            let mut seen = theirs.map(|theirs| theirs.read(self.at(index), into));
            if let Some(seen) = seen.find(|seen| *seen != Cached::Absent) {
                found[index] = seen;
            }
        }
        Ok(found)
    }

    /// Of the pages that were found so. Of one that is not there, `Clean`.
    pub(super) fn dirtiness(&self, found: &[Cached]) -> Vec<Dirtiness> {
        let own = self.own.as_ref().map(Window::dirtiness);
        let own = own.unwrap_or_else(|| vec![Dirtiness::Clean; self.pages]);
        let both = |(index, own): (usize, Dirtiness)| match found[index] {
            // Not by cachestat: it goes by marks that stay when ext4 gives a page up.
            Cached::Theirs => self.dirtiness_of_theirs(index),
            _ => own,
        };
        own.into_iter().enumerate().map(both).collect()
    }

    fn dirtiness_of_theirs(&self, index: usize) -> Dirtiness {
        let theirs = self.target.mapped();
        let mut known = theirs.map(|theirs| theirs.dirtiness(self.at(index)));
        let known = known.find(|known| *known != Dirtiness::Unknown);
        known.unwrap_or(Dirtiness::Unknown)
    }

    fn at(&self, index: usize) -> u64 {
        self.offset + (index * page_size()) as u64
    }
}

fn is_missing(page: Cached) -> bool {
    matches!(page, Cached::Absent | Cached::Unseen)
}
