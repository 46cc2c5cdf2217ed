//! The reader as a whole: what is wrong with an input is said with its line, and no cut and no
//! mixture of streams changes what the facts are.

use proptest::prelude::*;

use super::*;
use crate::source::dtrace::escaped;

const FILE: &str = "fs=ufs\\0\tfsid=0123456789abcdef\tino=4\tgen=9\tdev=da0p2\\0\tmnt=/mnt\\0\t\
                    path=db/base\\0\tbelow=1\tnlink=1";

fn start(stream: &str, n: u64, ts: u64) -> String {
    format!(
        "mst1\t{stream}\t{n}\t{ts}\tstart\tos=FreeBSD\\0\trelease=15.1-RELEASE\\0\tscript=0.1.0\\0\t\
         page=4096\twall_ns=1763640000000000000\twindow_ns=1000\t.\n"
    )
}

fn line(stream: &str, n: u64, ts: u64, event: &str) -> String {
    format!("mst1\t{stream}\t{n}\t{ts}\t{event}\t.\n")
}

fn cut(stream: &str, n: u64, ts: u64, off: u64) -> String {
    line(stream, n, ts, &format!("cut\toff={off}\tlen=10\t{FILE}"))
}

fn lines(stream: &str, count: u64) -> String {
    line(
        "-",
        0,
        0,
        &format!("lines\tstream={stream}\\0\tcount={count}"),
    )
}

/// What an input comes to.
#[derive(Debug, PartialEq)]
struct Came {
    facts: Vec<Fact>,
    complaints: Vec<(u64, String)>,
}

impl Came {
    fn losses(&self) -> Vec<(LossCause, u64)> {
        let losses = self.facts.iter().filter_map(|fact| match fact.kind {
            FactKind::Lost(Lost { cause, count }) => Some((cause, count)),
            _ => None,
        });
        losses.collect()
    }

    /// First bytes of the ranges that were given up: what tells these facts apart.
    fn cuts(&self) -> Vec<u64> {
        let cuts = self.facts.iter().filter_map(|fact| match &fact.kind {
            FactKind::Discarded(it) => Some(it.range.start()),
            _ => None,
        });
        cuts.collect()
    }

    fn complaint(&self) -> (u64, &str) {
        match &self.complaints[..] {
            [(line, text)] => (*line, text),
            other => panic!("{other:?}"),
        }
    }
}

fn read_in_pieces(input: &[u8], piece: usize) -> Result<Came, Refusal> {
    let mut reader = Reader::default();
    let mut facts = Vec::new();
    for piece in input.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = reader.take(rest, &mut facts)?;
            assert!(taken.bytes > 0 && (taken.is_batch || taken.bytes == rest.len()));
            rest = &rest[taken.bytes..];
        }
    }
    reader.end(&mut facts)?;
    let complaints = reader.take_complaints();
    Ok(Came {
        facts,
        complaints: complaints.into_iter().map(|c| (c.line, c.text)).collect(),
    })
}

fn read(input: &str) -> Came {
    read_in_pieces(input.as_bytes(), usize::MAX).unwrap()
}

#[test]
fn a_run_in_order_has_nothing_to_complain_about() {
    let run = [
        start("0", 1, 1000),
        cut("0", 2, 2000, 1),
        cut("1", 1, 2500, 2),
        line("0", 3, 3000, "tick"),
        lines("0", 3),
        lines("1", 1),
        line("-", 0, 9000, "stop"),
    ];
    let came = read(&run.concat());
    assert_eq!(came.complaints, []);
    assert_eq!(came.cuts(), [1, 2]);
    assert_eq!(came.facts[0].at, MonoTime(2000));
    // The last line is numbered in its stream, and counted or not.
    for count in [3, 4] {
        let mut run = run.clone();
        run[4] = lines("0", count);
        run[6] = line("0", 4, 9000, "stop");
        assert_eq!(read(&run.concat()).complaints, [], "{count}");
    }
}

#[test]
fn lines_that_did_not_come_are_counted() {
    let input = [
        start("0", 1, 1000),
        cut("0", 5, 2000, 1),
        cut("1", 3, 2500, 2),
        lines("0", 5),
        lines("1", 7),
        lines("2", 2),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(came.cuts(), [1, 2]);
    let lost: u64 = came.losses().iter().map(|(_, count)| count).sum();
    assert_eq!(lost, 3 + 2 + 4 + 2, "{came:#?}");
    assert!(
        came.losses()
            .iter()
            .all(|(cause, _)| *cause == LossCause::LineLost)
    );
    assert_eq!(
        came.complaints[0],
        (
            2,
            "3 of the lines of stream 0 before this one did not come".to_owned()
        )
    );
}

#[test]
fn a_stream_that_nobody_counted_is_incomplete() {
    let input = [start("0", 1, 1000), line("-", 0, 9000, "stop")].concat();
    let came = read(&input);
    assert_eq!(
        came.complaint(),
        (2, "how many lines of stream 0 there were is not said")
    );
    assert_eq!(came.losses(), [(LossCause::LineLost, 1)]);
}

#[test]
fn a_line_that_comes_again_or_too_late_in_its_stream_is_skipped() {
    let end = [lines("0", 3), line("-", 0, 9000, "stop")].concat();
    let again = [
        start("0", 1, 1000),
        cut("0", 2, 2000, 1),
        cut("0", 2, 2000, 1),
        cut("0", 3, 2500, 2),
    ];
    let came = read(&(again.concat() + &end));
    assert_eq!(
        came.complaint(),
        (3, "skipped: line 2 of stream 0 once more")
    );
    assert_eq!(came.cuts(), [1, 2]);
    assert_eq!(came.losses(), [(LossCause::BadLine, 1)]);

    let back = [
        start("0", 1, 1000),
        cut("0", 3, 2500, 2),
        cut("0", 2, 2000, 1),
    ];
    let came = read(&(back.concat() + &end));
    assert_eq!(came.cuts(), [2]);
    assert_eq!(
        came.complaints[1],
        (
            3,
            "skipped: line 2 of stream 0 comes after later ones".to_owned()
        )
    );
}

/// On Linux a probe can interrupt another one between counting and printing.
#[test]
fn a_number_that_comes_twice_with_other_words_is_no_loss() {
    let input = [
        start("0", 1, 1000),
        cut("0", 2, 2000, 1),
        cut("0", 2, 1990, 2),
        lines("0", 2),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(came.complaints, []);
    assert_eq!(came.cuts(), [2, 1]);
}

#[test]
fn a_line_whose_place_has_passed_is_taken_and_said() {
    let input = [
        start("0", 1, 1000),
        cut("0", 2, 5000, 1),
        cut("0", 3, 7000, 2),
        cut("1", 1, 4000, 3),
        lines("0", 3),
        lines("1", 1),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(
        came.complaint(),
        (4, "came so late that its place had passed")
    );
    assert_eq!(came.cuts(), [1, 3, 2]);
    assert_eq!(came.losses(), [(LossCause::LineLate, 1)]);
}

/// The success that clears a failure may be among what did not come: no verdict without it.
#[test]
fn what_waits_when_the_input_breaks_off_is_not_judged() {
    let input = [
        start("0", 1, 1000),
        cut("0", 2, 2000, 1),
        cut("0", 3, 5000, 2),
        cut("0", 4, 5500, 3),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(came.cuts(), [1]);
    assert_eq!(came.losses(), [(LossCause::InputCut, 2)]);
    assert_eq!(
        came.complaint(),
        (
            4,
            "the line that ends the run did not come; 2 of the last lines are not judged, because \
             others may be missing"
        )
    );
}

#[test]
fn lines_that_are_none_are_skipped_with_their_number() {
    let long = "x".repeat(line::LONGEST + 1) + "\n";
    let input = [
        "dtrace: banner\n".to_owned(),
        start("0", 1, 1000),
        "\n".to_owned(),
        "caf\u{e9} \u{1b}[31m\n".to_owned(),
        long,
        cut("0", 2, 2000, 1).replace("\t.\n", "\n"),
        cut("0", 2, 2000, 1).replace("ino=4", "ino=four"),
        line("0", 2, 2000, "frobnicated"),
        line("0", 2, 2000, "tick").replace("mst1", "mst2"),
        cut("0", 2, 2000, 7),
        lines("0", 2),
        line("-", 0, 9000, "stop"),
        cut("0", 3, 9500, 8),
    ]
    .concat();
    let came = read(&input);
    let said: Vec<_> = came
        .complaints
        .iter()
        .map(|(n, text)| format!("{n} {text}"))
        .collect();
    assert_eq!(
        said,
        [
            "1 skipped: no line of the protocol (does not begin with mst1)",
            "4 skipped: no line of the protocol (does not begin with mst1)",
            "5 skipped: longer than 65536 bytes",
            "6 skipped: cut short: the full stop at its end is missing",
            "7 skipped: ino cannot be read: \"four\"",
            "8 skipped: unknown event \"frobnicated\"",
            "9 skipped: of another version of the protocol: mst2, not mst1",
            "13 skipped: it comes after the line that ends the run",
        ]
    );
    assert_eq!(came.cuts(), [7]);
    let lost: u64 = came.losses().iter().map(|(_, count)| count).sum();
    assert_eq!(lost, 8);
}

#[test]
fn a_file_that_was_on_another_system_is_the_same() {
    let input = [
        start("0", 1, 1000),
        cut("0", 2, 2000, 1),
        lines("0", 2),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    assert_eq!(read(&input.replace('\n', "\r\n")), read(&input));
    assert_eq!(
        read(input.trim_end()),
        read(&input),
        "without the last newline"
    );
}

#[test]
fn one_input_is_one_run() {
    let run = |off| {
        [
            start("0", 1, 1000),
            cut("0", 2, 2000, off),
            lines("0", 2),
            line("-", 0, 9000, "stop"),
        ]
        .concat()
    };
    let came = read(&(run(1) + &run(2)));
    assert_eq!(
        came.complaint(),
        (
            5,
            "skipped: another run starts here; one input is one run, and nothing more is read"
        )
    );
    assert_eq!(came.cuts(), [1]);
    assert_eq!(came.losses(), [(LossCause::BadLine, 1)]);
}

#[test]
fn lines_of_other_cpus_may_come_before_the_start() {
    let input = [
        cut("1", 1, 1500, 1),
        start("0", 1, 1000),
        cut("0", 2, 1200, 2),
        lines("0", 2),
        lines("1", 1),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(came.complaints, []);
    assert_eq!(came.cuts(), [2, 1]);
}

#[test]
fn what_is_no_run_is_refused_with_what_to_do() {
    let refused = |input: &str| {
        read_in_pieces(input.as_bytes(), usize::MAX)
            .unwrap_err()
            .to_string()
    };
    assert!(refused("").starts_with("the input is empty: start the D script"));
    assert!(refused("a\nb\n").starts_with("no start line in 2 lines (the first: no line of"));
    let cut_off = refused(&cut("0", 7, 2000, 1));
    assert!(
        cut_off.contains("a line of a run that began before"),
        "{cut_off}"
    );
    let newer = refused(&start("0", 1, 1).replace("mst1", "mst2"));
    assert!(newer.starts_with("line 1 is of version mst2"), "{newer}");
    let other = refused(&start("0", 1, 1).replace("FreeBSD", "SunOS"));
    assert_eq!(
        other,
        "facts of \"SunOS\": only those of FreeBSD and Linux are understood"
    );
    let endless = refused(&(1..6000).map(|n| cut("0", n, n, 1)).collect::<String>());
    assert!(
        endless.starts_with("no start line in 4097 lines"),
        "{endless}"
    );
}

#[test]
fn an_error_number_that_cannot_be_is_no_fact() {
    let failed = format!(
        "failed\toff=0\tlen=1\terrno=0\tstate=lost\tsubmitted=0\tpid=1\ttid=1\tuid=0\tcomm=a\\0\t\
         kernel=0\tbegan=0\t{FILE}"
    );
    let input = [
        start("0", 1, 1000),
        line("0", 2, 2000, &failed),
        lines("0", 2),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    let came = read(&input);
    assert_eq!(
        came.complaints[0],
        (2, "skipped: errno is none of FreeBSD".to_owned())
    );
    assert!(!came.losses().is_empty());
}

/// dtrace can say on standard error that it dropped something before its first line comes.
#[test]
fn what_was_lost_before_the_first_line_is_not_forgotten() {
    let mut reader = Reader::default();
    let mut facts = Vec::new();
    reader.lose(LossCause::DtraceDrops, 12);
    let run = start("0", 1, 1000) + &lines("0", 1) + &line("-", 0, 9000, "stop");
    reader.take(run.as_bytes(), &mut facts).unwrap();
    reader.end(&mut facts).unwrap();
    let lost = Lost {
        cause: LossCause::DtraceDrops,
        count: 12,
    };
    assert!(matches!(&facts[..], [fact] if fact.kind == FactKind::Lost(lost)));
}

#[test]
fn the_script_tells_what_it_could_not_see() {
    let input = [
        start("0", 1, 1000),
        line("0", 2, 2000, "lost\tcause=map_full\\0\tcount=3"),
        line("0", 3, 2000, "lost\tcause=probe_error\\0\tcount=0"),
        lines("0", 3),
        line("-", 0, 9000, "stop"),
    ]
    .concat();
    assert_eq!(read(&input).losses(), [(LossCause::MapFull, 3)]);
}

/// A run on several CPUs: times within a stream rise.
fn run_of_streams() -> impl Strategy<Value = Vec<Vec<(u64, u64)>>> {
    let stream = proptest::collection::vec((0_u64..400, 0_u64..1000), 0..12).prop_map(|steps| {
        let mut ts = 1000;
        let step = |(step, off)| {
            ts += step;
            (ts, off)
        };
        steps.into_iter().map(step).collect::<Vec<_>>()
    });
    proptest::collection::vec(stream, 1..5)
}

proptest! {
    /// Any mixture in which no line is behind another by more than the window.
    #[test]
    fn how_streams_were_mixed_changes_nothing(
        streams in run_of_streams(),
        choices in proptest::collection::vec(any::<proptest::sample::Index>(), 60),
    ) {
        let mix = |choices: &[proptest::sample::Index]| {
            let mut input = start("b", 1, 1000);
            let mut at = vec![0; streams.len()];
            let mut choices = choices.iter();
            loop {
                let next = |(stream, at): (usize, &usize)| Some((stream, streams[stream].get(*at)?.0));
                let ready: Vec<_> = at.iter().enumerate().filter_map(next).collect();
                let Some(oldest) = ready.iter().map(|(_, ts)| *ts).min() else { break };
                // Whoever would be more than the window ahead of what has not come waits.
                let ready: Vec<_> = ready.into_iter().filter(|(_, ts)| *ts <= oldest + 1000).collect();
                let pick = choices.next().map_or(0, |choice| choice.index(ready.len()));
                let (stream, ts) = ready[pick];
                let off = streams[stream][at[stream]].1;
                at[stream] += 1;
                input += &cut(&format!("cpu{stream}"), at[stream] as u64, ts, off);
            }
            input += &lines("b", 1);
            for (stream, at) in at.iter().enumerate() {
                input += &lines(&format!("cpu{stream}"), *at as u64);
            }
            input + &line("-", 0, 9_000_000, "stop")
        };
        let one = read(&mix(&choices));
        let other = read(&mix(&[]));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.complaints, []);
        prop_assert_eq!(one.facts.len(), streams.iter().map(Vec::len).sum::<usize>());
        prop_assert!(one.facts.is_sorted_by_key(|fact| fact.at));
    }

    #[test]
    fn how_the_input_was_cut_changes_nothing(
        noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in any::<proptest::sample::Index>(),
        piece in 1_usize..90,
    ) {
        let mut input = [
            start("0", 1, 1000),
            cut("0", 2, 2000, 1),
            line("0", 3, 3000, "tick"),
            cut("1", 1, 2500, 2),
            lines("0", 3),
            lines("1", 1),
            line("-", 0, 9000, "stop"),
        ]
        .concat()
        .into_bytes();
        let at = at.index(input.len());
        input.splice(at..at, noise);
        prop_assert_eq!(read_in_pieces(&input, piece), read_in_pieces(&input, usize::MAX));
    }

    #[test]
    fn any_bytes_pass(input in proptest::collection::vec(any::<u8>(), 0..600), name in any::<Vec<u8>>()) {
        let _ = read_in_pieces(&input, 7);
        let name: Vec<u8> = name.into_iter().filter(|b| *b != 0).collect();
        let path = String::from_utf8(escaped::encode(&name)).unwrap();
        let named = start("0", 1, 1) + &cut("0", 2, 2, 1).replace("db/base\\0", &path);
        prop_assert_eq!(read(&named).complaints.len(), 1, "only that it was cut");
    }
}

#[test]
fn a_line_of_the_longest_length_is_read_and_a_longer_one_not() {
    for (extra, skipped) in [(0, 0), (1, 1)] {
        let short = line("0", 2, 2000, "tick\tx=");
        let room = line::LONGEST + 1 - short.len() + extra;
        let long = line("0", 2, 2000, &format!("tick\tx={}", "y".repeat(room)));
        assert_eq!(long.len(), line::LONGEST + 1 + extra);
        let input = start("0", 1, 1000) + &long + &lines("0", 2) + &line("-", 0, 9000, "stop");
        let input = input.as_bytes();
        let whole = read_in_pieces(input, usize::MAX).unwrap();
        let bad = whole
            .losses()
            .iter()
            .filter(|l| l.0 == LossCause::BadLine)
            .count();
        assert_eq!(bad, skipped);
        assert_eq!(read_in_pieces(input, 1000).unwrap(), whole);
    }
}
