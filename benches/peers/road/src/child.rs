//! What one client's process measures about itself, and tells.

use std::io::Write as _;
use std::time::Instant;

use crate::counting;
use crate::work::Work;

/// What a client measured about itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    /// User and system time of the process.
    pub cpu_ns: u64,
    /// By the clock on the wall.
    pub wall_ns: u64,
    /// Of the main thread; 0 from a client that does not count them.
    pub allocations: u64,
    /// Resident memory before the first connection, at the end, and the most there ever was; KiB.
    pub rss_before: u64,
    pub rss_after: u64,
    pub rss_peak: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
}

/// Measures from its making, or the last [`start`](Self::start), to the report.
pub struct Meter {
    cpu: u64,
    wall: Instant,
    allocations: u64,
    rss_before: u64,
    round_trips: Vec<u64>,
}

impl Meter {
    pub fn new() -> Self {
        Self {
            cpu: process_time(),
            wall: Instant::now(),
            allocations: counting::allocations(),
            rss_before: memory("VmRSS:"),
            round_trips: Vec::new(),
        }
    }

    /// Everything is prepared: what follows counts, and the broker may begin.
    pub fn start(&mut self, work: &Work) {
        if work.verb.is_ping_pong() {
            self.round_trips.reserve_exact(work.count);
        }
        say("ready");
        self.cpu = process_time();
        self.wall = Instant::now();
        self.allocations = counting::allocations();
    }

    pub fn round_trip(&mut self, since: Instant) {
        let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.round_trips.push(nanoseconds);
    }

    /// The work is done: tells what it cost and ends the process, without cleaning up.
    pub fn report(mut self) -> ! {
        let cpu = process_time() - self.cpu;
        let wall = self.wall.elapsed().as_nanos();
        let allocations = counting::allocations().saturating_sub(self.allocations);
        self.round_trips.sort_unstable();
        let quantile = |share: f64| {
            let at = (self.round_trips.len() as f64 * share) as usize;
            self.round_trips.get(at).copied().unwrap_or(0)
        };
        say(&format!(
            "report {cpu} {wall} {allocations} {} {} {} {} {} {}",
            self.rss_before,
            memory("VmRSS:"),
            memory("VmHWM:"),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
        ));
        std::process::exit(0)
    }
}

impl Report {
    pub fn from_line(line: &str) -> Option<Self> {
        let fields: Result<Vec<u64>, _> = line
            .strip_prefix("report ")?
            .split(' ')
            .map(str::parse)
            .collect();
        let &[
            cpu_ns,
            wall_ns,
            allocations,
            rss_before,
            rss_after,
            rss_peak,
            p50_ns,
            p99_ns,
            p999_ns,
        ] = fields.ok()?.as_slice()
        else {
            return None;
        };
        Some(Self {
            cpu_ns,
            wall_ns,
            allocations,
            rss_before,
            rss_after,
            rss_peak,
            p50_ns,
            p99_ns,
            p999_ns,
        })
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

fn process_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A line of this process's status, in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
