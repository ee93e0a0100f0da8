//! What a process has used.

use std::fs;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// What a process has used until now.
pub struct Usage {
    /// Processor time in seconds.
    pub processor: f64,
    /// Resident memory in megabytes (10^6 bytes).
    pub memory: f64,
    /// The most that it was, likewise.
    pub peak: f64,
}

impl Usage {
    /// That of a process.
    pub fn of(process: Pid) -> Self {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"))
        };
        let status = read("status");
        let megabytes = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kibibytes: f64 = number.and_then(|it| it.parse().ok()).expect("a number of kB");
            kibibytes * 1.024e-3
        };
        let (memory, peak) = (megabytes("VmRSS:"), megabytes("VmHWM:"));
        // Fields 14 and 15 of proc(5), counted after the name in parentheses.
        let stat = read("stat");
        let fields = stat.rsplit_once(") ").expect("a name in parentheses").1;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: f64 = ticks.map(|it| it.parse::<f64>().expect("a number of ticks")).sum();
        let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("ticks per second");
        Self { processor: ticks / second as f64, memory, peak }
    }
}
