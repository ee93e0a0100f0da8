//! Measures the node agent in a large cluster, for `scripts/bench-agent.sh`.
//!
//! Prints Markdown, and fails when a target is missed. The arguments are the number
//! of starts and the prefix length of blocks, all of whose addresses are in use. A
//! time ends when the kernel has told of the last route that had to change, so
//! reading the routes does not count; that somebody listens does.

mod figures;
mod monitor;
mod usage;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::io::{Error, Write, stdout};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use figures::{Figures, Unit};
use ipnet::IpNet;
use monitor::Monitor;
use usage::Usage;
use weir_tests::{Agent, Place};
use world::{BLOCKS, NODES, World};

/// How often the agent is started unless told otherwise.
const STARTS: usize = 5;

/// The prefix length of blocks unless told otherwise: 160 containers on each node.
const BLOCK_SIZE: usize = 28;

/// How many single blocks come and go.
const ROUNDS: usize = 30;

/// How many blocks come and go at once.
const BURST: usize = 1000;

/// How long the agent is watched at rest: several of its own comparisons.
const REST: Duration = Duration::from_secs(40);

fn main() -> Result<ExitCode, Error> {
    let number = |at, default| {
        env::args().nth(at).map_or(default, |text| text.parse().expect("arguments are numbers"))
    };
    let (starts, block_size) = (number(1, STARTS), number(2, BLOCK_SIZE));
    let world = World::new(u8::try_from(block_size).expect("a prefix length"));
    let mut figures = Figures::default();
    for _ in 0..starts {
        measure_start(&world, &mut figures);
    }
    let agent = world.start_agent();
    world.await_routes(BLOCKS);
    World::await_health(&agent);
    measure_rest(&agent, &mut figures);
    measure_single_blocks(&world, &agent, &mut figures);
    measure_bursts(&world, &mut figures);
    figures.add("peak memory after all of that", Unit::Megabytes, Usage::of(agent.process()).peak);
    figures.limit(40.0);
    agent.stop();
    measure_restarts(&world, starts, &mut figures);
    let title = format!("{NODES} nodes with {BLOCKS} blocks of /{block_size}, all in use");
    writeln!(stdout(), "### {title}\n\n{figures}")?;
    Ok(if figures.are_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The agent starts on a node without routes.
fn measure_start(world: &World, figures: &mut Figures) {
    // There are none at first.
    world.node.succeeds(&["ip", "route", "flush", "proto", "77"]);
    let monitor = Monitor::start(&world.node);
    let begin = Instant::now();
    let agent = world.start_agent();
    let end = monitor.await_changes(BLOCKS, "10.");
    figures.add("start to the last of all routes", Unit::Milliseconds, ms(end - begin));
    figures.limit(2000.0);
    World::await_health(&agent);
    let usage = Usage::of(agent.process());
    figures.add("processor time by then", Unit::Milliseconds, usage.processor * 1e3);
    figures.add("peak memory", Unit::Megabytes, usage.peak);
    figures.limit(40.0);
    agent.stop();
    world.await_routes(BLOCKS);
}

fn measure_rest(agent: &Agent, figures: &mut Figures) {
    let before = Usage::of(agent.process());
    sleep(REST);
    let Usage { processor, memory, .. } = Usage::of(agent.process());
    figures.add("memory at rest", Unit::Megabytes, memory);
    figures.limit(40.0);
    let share = (processor - before.processor) / REST.as_secs_f64();
    figures.add("processor time at rest, per second", Unit::Milliseconds, share * 1e3);
}

/// One block comes and goes, at moments that have nothing to do with the agent's.
fn measure_single_blocks(world: &World, agent: &Agent, figures: &mut Figures) {
    let before = Usage::of(agent.process());
    for round in 0..ROUNDS {
        let block = [world.additional_block(round)];
        let pause = Duration::from_millis(700 + 37 * round as u64);
        let monitor = Monitor::start(&world.node);
        for (name, beginning) in [("one more block", "10."), ("one block less", "Deleted 10.")] {
            sleep(pause);
            let begin = Instant::now();
            match name {
                "one more block" => world.add_blocks(&block),
                _ => world.remove_blocks(&block),
            }
            let end = monitor.await_changes(1, beginning);
            figures.add(name, Unit::Milliseconds, ms(end - begin));
            figures.limit(200.0);
        }
    }
    let each = (Usage::of(agent.process()).processor - before.processor) / (2 * ROUNDS) as f64;
    figures.add("processor time for each of them", Unit::Milliseconds, each * 1e3);
}

fn measure_bursts(world: &World, figures: &mut Figures) {
    let blocks: Vec<IpNet> = (0..BURST).map(|number| world.additional_block(number)).collect();
    for _ in 0..3 {
        let monitor = Monitor::start(&world.node);
        let begin = Instant::now();
        world.add_blocks(&blocks);
        let written = Instant::now();
        let end = monitor.await_changes(BURST, "10.");
        figures.add("1,000 blocks written at once", Unit::Milliseconds, ms(written - begin));
        figures.add(
            "from the first of them to the last route",
            Unit::Milliseconds,
            ms(end - begin),
        );
        drop(monitor);
        let monitor = Monitor::start(&world.node);
        world.remove_blocks(&blocks);
        monitor.await_changes(BURST, "Deleted 10.");
    }
}

/// Of a restart the kernel must tell nothing.
fn measure_restarts(world: &World, restarts: usize, figures: &mut Figures) {
    let before: BTreeSet<String> = world.routes();
    for _ in 0..restarts {
        let monitor = Monitor::start(&world.node);
        let begin = Instant::now();
        let agent = world.start_agent();
        World::await_health(&agent);
        let compared = agent.metric("weir_node_converge_seconds_count");
        assert!(compared >= Some(1.0), "a restart that compared nothing changes nothing");
        figures.add("restart to a node that is well", Unit::Milliseconds, ms(begin.elapsed()));
        figures.add("peak memory of a restart", Unit::Megabytes, Usage::of(agent.process()).peak);
        figures.limit(40.0);
        agent.stop();
        figures.add("changes seen at a restart", Unit::Times, monitor.stop() as f64);
        figures.limit(0.0);
    }
    assert!(world.routes() == before, "a restart changed the routes");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
