use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::{
    model::{LossCause, Lost, MonoTime},
    schema::{Head, WallTime},
};

fn record(count: u64) -> Record {
    let clock = Clock::new(MonoTime(0), WallTime(0));
    let cause = LossCause::BadRecord;
    Record {
        head: Head::at(MonoTime(count), &clock),
        body: Body::Lost(Lost { cause, count }),
    }
}

fn quiet() -> Say {
    Arc::new(|_| {})
}

/// Passes on what it takes, once it is let.
struct Gate {
    open: Receiver<()>,
    taken: Sender<u64>,
}

impl Sink for Gate {
    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        // Nobody holds it any more: it goes on.
        let _ = self.open.recv();
        let _ = self.taken.send(record.head.mono_ns.0);
        Ok(())
    }
}

fn gate(sinks: &mut Sinks, name: &'static str) -> (Sender<()>, Receiver<u64>) {
    let ((open, opened), (taken, got)) = (channel(), channel());
    let gate = Gate {
        open: opened,
        taken,
    };
    sinks.add(name, 4, quiet(), |_| Box::new(gate)).unwrap();
    (open, got)
}

#[test]
fn one_that_waits_holds_up_no_other_and_misses_what_does_not_fit() {
    let mut sinks = Sinks::default();
    let (slow, slow_got) = gate(&mut sinks, "slow");
    let (fast, fast_got) = gate(&mut sinks, "fast");
    drop(fast);
    for number in 1..=20 {
        sinks.show(&record(number)).unwrap();
        let got = fast_got.recv_timeout(Duration::from_secs(10));
        assert_eq!(got, Ok(number));
    }
    drop(slow);
    sinks.finish(Duration::from_secs(10));
    let views = sinks.views();
    drop(sinks);
    let got: Vec<u64> = slow_got.try_iter().collect();
    assert!(got.ends_with(&[17, 18, 19, 20]), "{got:?}");
    assert_eq!(views[0].look().dropped, 20 - got.len() as u64);
    assert_eq!(views[1].look().delivered, 20);
    assert_eq!(views[1].look().dropped, 0);
}

/// Refuses so often.
struct Refuses(u32, Sender<u64>);

impl Sink for Refuses {
    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        if self.0 > 0 {
            self.0 -= 1;
            return Err(Refused::ForNow(io::ErrorKind::StorageFull.into()));
        }
        let _ = self.1.send(record.head.mono_ns.0);
        Ok(())
    }
}

#[test]
fn what_is_refused_is_tried_again_in_order_and_said_once() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let says = Arc::clone(&said);
    let say: Say = Arc::new(move |text| says.lock().unwrap().push(text.to_owned()));
    let (taken, got) = channel();
    let mut sinks = Sinks::default();
    let refuses = Refuses(3, taken);
    sinks.add("disk", 8, say, |_| Box::new(refuses)).unwrap();
    for number in 1..=3 {
        sinks.show(&record(number)).unwrap();
    }
    for number in 1..=3 {
        assert_eq!(got.recv_timeout(Duration::from_secs(10)), Ok(number));
    }
    sinks.finish(Duration::from_secs(10));
    let delivery = sinks.views()[0].look();
    assert_eq!((delivery.errors, delivery.retries), (3, 3));
    assert_eq!((delivery.delivered, delivery.dropped), (3, 0));
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("warning: the output disk fails: "));
    assert!(said[1].starts_with("the output disk works again after 3 failed attempts"));
}

/// Takes nothing, ever.
struct Stuck;

impl Sink for Stuck {
    fn put(&mut self, _record: &Record) -> Result<(), Refused> {
        Err(Refused::ForNow(io::ErrorKind::TimedOut.into()))
    }
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let mut sinks = Sinks::default();
    sinks.add("stuck", 8, quiet(), |_| Box::new(Stuck)).unwrap();
    sinks.show(&record(1)).unwrap();
    let began = Instant::now();
    sinks.finish(Duration::from_millis(200));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(sinks.views()[0].look().dropped, 1);
}
