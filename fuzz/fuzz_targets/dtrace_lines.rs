//! Any bytes as the output of a D script: read in one piece and in small ones, correlated, and cut
//! short. Nothing may break off, pieces change nothing, and a missing end invents no incident.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msync_trace::{
    correlate::{Config, Correlator},
    model::{Fact, Incident, Verdict},
    source::dtrace::{Reader, Refusal},
};

fuzz_target!(|input: &[u8]| {
    let whole = facts(input, usize::MAX);
    let piece = input.first().map_or(1, |byte| usize::from(*byte) + 1);
    assert_eq!(whole, facts(input, piece));
    let whole = incidents(whole);
    // Behind a whole line: one that is broken can be a good one up to somewhere in its middle.
    let newlines = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let half = newlines.map(|(at, _)| at + 1).take_while(|end| *end <= input.len() / 2);
    let part = &input[..half.last().unwrap_or(0)];
    assert!(whole.starts_with(&incidents(facts(part, usize::MAX))));
});

fn facts(input: &[u8], piece: usize) -> Result<Vec<Fact>, Refusal> {
    let mut reader = Reader::default();
    let mut facts = Vec::new();
    for piece in input.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = reader.take(rest, &mut facts)?;
            rest = &rest[taken.bytes..];
        }
    }
    reader.end(&mut facts)?;
    Ok(facts)
}

fn incidents(facts: Result<Vec<Fact>, Refusal>) -> Vec<Incident> {
    let mut correlator = Correlator::new(Config::default());
    let mut verdicts = Vec::new();
    for fact in facts.unwrap_or_default() {
        correlator.apply(&fact, &mut verdicts);
    }
    let incident = |verdict| match verdict {
        Verdict::Incident(incident) => Some(*incident),
        _ => None,
    };
    verdicts.into_iter().filter_map(incident).collect()
}
