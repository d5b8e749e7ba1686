//! What the host spends on a benchmark: its time, and its instructions where its performance counters can be read.

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// Time of this thread on a core, which other programs take nothing of.
pub struct ThreadTime;

/// Measures in [`ThreadTime`].
pub fn criterion() -> Criterion<ThreadTime> {
    Criterion::default().with_measurement(ThreadTime).configure_from_args()
}

impl Measurement for ThreadTime {
    type Intermediate = cpu_time::ThreadTime;
    type Value = Duration;

    fn start(&self) -> cpu_time::ThreadTime {
        cpu_time::ThreadTime::now()
    }

    fn end(&self, start: cpu_time::ThreadTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Instructions of this thread during `work`; nothing where the host does not count them.
#[cfg(target_os = "linux")]
pub fn instructions(work: impl FnOnce()) -> Option<u64> {
    use perf_event::{Builder, events::Hardware};

    let mut counter = Builder::new(Hardware::INSTRUCTIONS).build().ok()?;
    counter.enable().ok()?;
    work();
    counter.disable().ok()?;
    counter.read().ok()
}

/// Instructions of this thread during `work`; nothing where the host does not count them.
#[cfg(not(target_os = "linux"))]
pub fn instructions(work: impl FnOnce()) -> Option<u64> {
    work();
    None
}

/// Prints what one launch of a benchmark retires: lane instructions of the emulated machine, instructions of the host.
pub fn print(name: &str, lane_instructions: u64, host_instructions: Option<u64>) {
    match host_instructions {
        Some(host) => println!(
            "{name}: {lane_instructions} lane instructions, {host} of the host, {:.3} each",
            host as f64 / lane_instructions as f64
        ),
        None => println!(
            "{name}: {lane_instructions} lane instructions; this host counts none of its own, emulator/benches/instructions.sh does"
        ),
    }
}
