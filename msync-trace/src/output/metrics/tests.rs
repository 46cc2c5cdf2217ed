use super::*;
use crate::{
    model::{Errno, FileSystemId, InodeKey, Lost, MonoTime, WriteFailed},
    schema::{Head, WallTime},
};

fn clock() -> Clock {
    Clock::new(MonoTime(0), WallTime(0))
}

fn meters() -> Meters {
    Meters::new(9, |_| None)
}

fn failed(device: &str) -> Fact {
    Fact {
        at: MonoTime(1),
        kind: FactKind::WriteFailed(WriteFailed {
            inode: InodeKey {
                fs: FileSystemId::Device(1),
                ino: 2,
                subvolume: 0,
                generation: 0,
            },
            range: None,
            errno: Errno::EIO,
            submitted: None,
            eviction_watched: false,
            writer: None,
            file: FileView {
                dev_name: Some(device.to_owned()),
                fs_type: Some("fuse".to_owned()),
                ..FileView::default()
            },
        }),
    }
}

#[test]
fn every_metric_is_there_from_the_start() {
    let meters = meters();
    meters.expect("ext4", "sda1");
    let text = meters.text(Exposition::Prometheus);
    for family in FAMILIES {
        assert!(text.contains(&format!("# TYPE {} ", family.name)));
    }
    for line in [
        "msync_trace_incidents_total 0",
        "msync_trace_write_failures_total{fstype=\"ext4\",device=\"sda1\",errno=\"EIO\"} 0",
        "msync_trace_unseen_events_total{cause=\"sync_ring_full\"} 0",
        "msync_trace_sync_results_total{call=\"msync\",result=\"ok\"} 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}:\n{text}");
    }
}

/// A filesystem can call its device anything, and there can be any number of them.
#[test]
fn devices_with_hostile_names_break_no_line_and_are_bounded() {
    let mut meters = meters();
    meters.saw(&failed("a\nb\\c\"d} 7\n"), &clock());
    for number in 0..1000 {
        meters.saw(&failed(&format!("host{number}")), &clock());
    }
    let text = meters.text(Exposition::Prometheus);
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("msync_trace_write_failures_total"))
        .collect();
    assert_eq!(rows.len(), DEVICES + 1, "{rows:#?}");
    let hostile =
        r#"msync_trace_write_failures_total{fstype="fuse",device="a\nb\\c\"d} 7\n",errno="EIO"} 1"#;
    assert!(rows.contains(&hostile), "{rows:#?}");
    let other = format!(
        "msync_trace_write_failures_total{{fstype=\"fuse\",device=\"other\",errno=\"EIO\"}} {}",
        1001 - DEVICES
    );
    assert!(rows.contains(&other.as_str()), "{rows:#?}");
}

#[test]
fn what_was_not_seen_is_counted_by_cause_and_once() {
    let mut meters = meters();
    let cause = LossCause::SyncRingFull;
    let kind = FactKind::Lost(Lost { cause, count: 3 });
    let fact = Fact {
        at: MonoTime(1),
        kind,
    };
    meters.saw(&fact, &clock());
    let body = Body::Lost(Lost { cause, count: 3 });
    let head = Head::at(MonoTime(1), &clock());
    meters.show(&Record { head, body }).unwrap();
    let text = meters.text(Exposition::OpenMetrics);
    assert!(text.contains("msync_trace_unseen_events_total{cause=\"sync_ring_full\"} 3\n"));
    assert!(text.contains("# TYPE msync_trace_unseen_events counter\n"));
    assert!(text.ends_with("# EOF\n"));
}
