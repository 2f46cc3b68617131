//! Blocks that are on the device at the same time, and waits that nobody ends.
//!
//! A warp goes in circles if its registers and program counters are what they were before, and
//! nothing was written in between: it waits for a write of another. If all warps of all blocks go
//! in circles or stand at a barrier, none will ever go on, and that is an error. Loops that count
//! their rounds are never the same; they are an error after [`PATIENCE`] instructions in which all
//! warps only polled.

use super::warp::Warp;
use super::{Block, Launch, Random, Step, Worker};
use crate::counters::Counters;
use crate::lanes::LANES;
use crate::memory::Order;

/// Instructions without a change after which the device looks for circles for the first time. It
/// then waits twice as long.
const QUIET: u64 = 1 << 17;
/// Longest circle that is found, in instructions.
const CIRCLE: usize = 1 << 14;
/// Instructions without a change that a launch may execute if all its warps poll.
const PATIENCE: u64 = 1 << 24;

/// The blocks of a launch that share the device.
pub struct Residents<'a> {
    launch: &'a Launch<'a>,
    /// What orders them, if there may be several.
    order: Option<&'a Order>,
    capacity: usize,
    running: Vec<Worker<'a>>,
    idle: Vec<Worker<'a>>,
    random: Random,
    /// Instructions since the last change, and the number after which to look for circles.
    quiet: u64,
    suspicious: u64,
}

impl<'a> Residents<'a> {
    /// At most `capacity` blocks at a time.
    pub fn new(launch: &'a Launch<'a>, order: Option<&'a Order>, capacity: usize) -> Self {
        Residents {
            launch,
            order,
            capacity,
            running: Vec::new(),
            idle: Vec::new(),
            random: Random::new(launch.seed ^ u64::from(launch.number) << 20),
            quiet: 0,
            suspicious: QUIET,
        }
    }

    /// Runs blocks until there is no `next`; it returns the block and how many follow.
    pub fn run(&mut self, mut next: impl FnMut() -> Option<(u32, usize)>) -> Step<()> {
        let mut n_waiting = usize::MAX;
        loop {
            while n_waiting > 0 && self.running.len() < self.capacity {
                let Some((block, rest)) = next() else {
                    n_waiting = 0;
                    break;
                };
                n_waiting = rest;
                let mut worker = self.idle.pop().unwrap_or_else(|| Worker::new(self.launch, self.order));
                worker.begin(block);
                self.running.push(worker);
                self.quiet = 0;
            }
            let chosen = match self.running.len() {
                0 => return Ok(()),
                1 => 0,
                n => self.random.below(n),
            };
            let worker = &mut self.running[chosen];
            let before = worker.block.changes;
            match worker.turn()? {
                None => {
                    self.idle.push(self.running.swap_remove(chosen));
                    self.quiet = 0;
                }
                Some(_) if worker.block.changes != before => (self.quiet, self.suspicious) = (0, QUIET),
                Some(n) => self.watch(n as u64, n_waiting)?,
            }
        }
    }

    /// Counts of all blocks.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.running.iter().chain(&self.idle).for_each(|worker| counters.add(&worker.block.counters));
        counters
    }

    /// `n` more instructions have changed nothing.
    fn watch(&mut self, n: u64, n_waiting: usize) -> Step<()> {
        let (before, now) = (self.quiet, self.quiet + n);
        self.quiet = now;
        if now >= self.suspicious {
            self.suspicious = 2 * now;
            if self.all_circle()? {
                return self.stuck("nothing changes any more", n_waiting);
            }
        }
        let passes = |limit: u64| (before + 1..=now).contains(&limit);
        if passes(PATIENCE / 2) {
            self.waiting_for_writes().for_each(|warp| warp.polled = None);
        }
        if passes(PATIENCE) && self.waiting_for_writes().all(|warp| warp.polled.is_some()) {
            return self.stuck(&format!("nothing was written in {PATIENCE} instructions"), n_waiting);
        }
        Ok(())
    }

    /// Warps that do not stand at a barrier.
    fn waiting_for_writes(&mut self) -> impl Iterator<Item = &mut Warp> {
        self.running.iter_mut().flat_map(|worker| &mut worker.warps).filter(|warp| warp.is_ready())
    }

    /// True if each warp that does not stand at a barrier goes in circles.
    fn all_circle(&mut self) -> Step<bool> {
        for Worker { block, warps, .. } in &mut self.running {
            warps.iter_mut().for_each(|warp| warp.asleep = false);
            for warp in warps.iter_mut().filter(|warp| warp.is_ready()) {
                if !block.circles(warp)? {
                    return Ok(false);
                }
            }
        }
        // A block whose warps all stand at a barrier goes on.
        Ok(self.running.iter().all(|worker| worker.warps.iter().any(Warp::is_ready)))
    }

    /// The error of a wait that nobody ends.
    #[cold]
    fn stuck(&self, why: &str, n_waiting: usize) -> Step<()> {
        let place = |warp: &Warp| {
            let of_group = || warp.groups.first().map(|group| (group.pc, group.mask.trailing_zeros() as usize % LANES));
            warp.polled.or_else(of_group)
        };
        let mut waits = (self.running.iter())
            .flat_map(|Worker { block, warps, .. }| warps.iter().map(move |warp| (block, warp)))
            .filter(|(_, warp)| warp.is_ready())
            .filter_map(|(block, warp)| place(warp).map(|(pc, lane)| (block, pc, warp.thread(lane))));
        let code = &self.launch.kernel.code;
        let mut lines: Vec<(u32, usize)> = Vec::new();
        for (_, pc, _) in waits.clone() {
            let line = code[pc].source.1;
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, n)) => *n += 1,
                None => lines.push((line, 1)),
            }
        }
        let places: Vec<String> = lines.iter().map(|(line, n)| format!("{n} at line {line}")).collect();
        let rest = match n_waiting {
            0 => String::new(),
            n => format!("; {n} more blocks cannot begin, as the device holds {} at a time", self.capacity),
        };
        let who: String = self.running.iter().map(|worker| worker.block.who_waits(&worker.warps)).collect();
        let n_blocks = self.running.len();
        let message = format!(
            "a wait that nobody ends: {why} in {n_blocks} blocks; warps that poll: {}{rest}{who}",
            places.join(", ")
        );
        match waits.next() {
            Some((block, pc, thread)) => block.fail(&code[pc], Some(thread), message),
            None => Ok(()),
        }
    }
}

impl Block<'_> {
    /// True if `warp` comes back to a state in which it was, and changes nothing on its way. Each
    /// of its lanes must have moved, as groups of lanes run in any order.
    fn circles(&mut self, warp: &mut Warp) -> Step<bool> {
        self.sleeps = false;
        let found = self.comes_back(warp);
        self.sleeps = true;
        found
    }

    fn comes_back(&mut self, warp: &mut Warp) -> Step<bool> {
        let before = self.changes;
        let mut state = warp.state();
        warp.stepped = 0;
        // The state is taken anew after 1, 2, 4, … steps, so that one on the circle is found.
        let (mut steps, mut limit) = (0, 1);
        for _ in 0..2 * CIRCLE {
            self.step(warp)?;
            if self.changes != before || !warp.is_ready() {
                return Ok(false);
            }
            let moved = |warp: &Warp| warp.groups.iter().all(|group| group.waits || group.mask & !warp.stepped == 0);
            if moved(warp) && warp.is_in(&state) {
                return Ok(true);
            }
            steps += 1;
            if steps == limit {
                (state, steps, limit) = (warp.state(), 0, 2 * limit);
                warp.stepped = 0;
            }
        }
        Ok(false)
    }
}
