//! Whole pages from whole reports.
