//! What all ranks of a communicator have called: what fits together, and what never will.
//!
//! A rank is at one call, or group of calls, at a time. The collectives of all ranks are compared
//! by their number, sends and receives of two ranks in their order. Ranks that wait for each other
//! in a circle wait for ever, and are told so.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::call::{Call, Kind, describe};
use crate::reduction::reduce;

/// What a rank is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All ranks have joined.
    Joined,
    /// The calls of the rank have ended; the bytes that each of them received.
    Done(Vec<Vec<u8>>),
    /// The communicator has failed, for all its ranks.
    Failed(Failure),
    /// The rank has left, and all has been said to all that was to say before.
    Left,
}

/// A call of a rank that has begun, and the bytes that it gave and got.
struct Begun {
    call: Call,
    given: Vec<u8>,
    received: Option<Vec<u8>>,
}

/// The calls that a rank is at.
struct Group {
    calls: Vec<Begun>,
    since: Instant,
}

/// A rank that has joined.
#[derive(Default)]
struct Rank {
    /// Groups of calls so far, and collectives in those that have ended.
    n_groups: u64,
    n_collectives: u64,
    group: Option<Group>,
    /// The last group, in words.
    last: String,
}

enum Seat {
    Empty,
    Taken(Rank),
    /// The communicator was destroyed.
    Left,
    /// The thread or process ended without that.
    Lost,
}

/// See the head of this file.
pub struct Table {
    seats: Vec<Seat>,
    /// Process and number of each rank's device.
    devices: Vec<Option<(u32, i32)>>,
    first_joined: Option<Instant>,
    complete: bool,
    failed: Option<Failure>,
    limit: Duration,
    replies: Vec<(u32, Reply)>,
}

impl Table {
    /// A table of `n` ranks that wait at most `limit` for each other.
    pub fn new(n: u32, limit: Duration) -> Self {
        Table {
            seats: (0..n).map(|_| Seat::Empty).collect(),
            devices: vec![None; n as usize],
            first_joined: None,
            complete: false,
            failed: None,
            limit,
            replies: Vec::new(),
        }
    }

    /// What ranks are to be told since the last call.
    pub fn take_replies(&mut self) -> Vec<(u32, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// Whether no rank is left.
    pub fn is_over(&self) -> bool {
        self.first_joined.is_some() && !self.seats.iter().any(|seat| matches!(seat, Seat::Taken(_)))
    }

    /// `rank` of `n` joins from `process` with GPU `device`.
    ///
    /// # Errors
    /// It is no rank of this communicator: the others go on.
    pub fn join(&mut self, rank: u32, n: u32, process: u32, device: i32, now: Instant) -> Result<(), Failure> {
        let expected = self.seats.len();
        if n as usize != expected {
            let others: Vec<String> = self.taken().map(|(rank, _)| rank.to_string()).collect();
            let text = format!("ncclCommInitRank: rank {rank} says {n} ranks, rank {} {expected}", others.join(", "));
            self.fail(Failure::usage(&text));
            return Err(Failure::usage(text));
        }
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let Some(Seat::Empty) = self.seats.get(rank as usize) else {
            return Err(Failure::usage(format!("ncclCommInitRank: rank {rank} of {n} has joined already")));
        };
        // Processes of one machine number its GPUs alike.
        if let Some(other) = self.devices.iter().position(|taken| taken.is_some_and(|(_, other)| other == device)) {
            let text = format!("ncclCommInitRank: ranks {other} and {rank} both use GPU {device}");
            self.fail(Failure::usage(&text));
            return Err(Failure::usage(text));
        }
        self.seats[rank as usize] = Seat::Taken(Rank::default());
        self.devices[rank as usize] = Some((process, device));
        self.first_joined.get_or_insert(now);
        if !self.seats.iter().any(|seat| matches!(seat, Seat::Empty)) {
            self.complete = true;
            self.replies.extend((0..n).map(|rank| (rank, Reply::Joined)));
        }
        Ok(())
    }

    /// `rank` begins calls, with the bytes that each gives.
    pub fn begin(&mut self, rank: u32, calls: Vec<(Call, Vec<u8>)>, now: Instant) {
        if let Some(failure) = &self.failed {
            self.replies.push((rank, Reply::Failed(failure.clone())));
            return;
        }
        let Some(Seat::Taken(seat)) = self.seats.get_mut(rank as usize) else { return };
        seat.n_groups += 1;
        let words: Vec<Call> = calls.iter().map(|(call, _)| *call).collect();
        seat.last = format!("call {}, {}", seat.n_groups, describe(&words));
        let calls = calls.into_iter().map(|(call, given)| Begun { call, given, received: None }).collect();
        seat.group = Some(Group { calls, since: now });
        if let Err(failure) = self.advance() {
            self.fail(failure);
        }
    }

    /// `rank` destroys its communicator; `in_use` names a call that has not passed its stream.
    pub fn leave(&mut self, rank: u32, in_use: Option<&str>) {
        self.seats[rank as usize] = Seat::Left;
        match in_use {
            Some(call) => self
                .fail(Failure::usage(format!("rank {rank} destroyed its communicator while {call} was in a stream"))),
            None => self.look_for_the_impossible(),
        }
        self.replies.push((rank, Reply::Left));
    }

    /// `rank` gives the communicator up, whatever others wait for.
    pub fn abort(&mut self, rank: u32) {
        self.seats[rank as usize] = Seat::Left;
        let wait = self.taken().any(|(_, seat)| seat.group.is_some());
        if wait {
            self.fail(Failure::remote(format!("rank {rank} has aborted its communicator; {}", self.state())));
        }
        self.replies.push((rank, Reply::Left));
    }

    /// The thread or process of `rank` is gone.
    pub fn lost(&mut self, rank: u32) {
        let Some(Seat::Taken(seat)) = self.seats.get(rank as usize) else { return };
        let last = if seat.last.is_empty() { "without a call".into() } else { format!("at {}", seat.last) };
        let process = self.devices[rank as usize].map_or(0, |(process, _)| process);
        self.seats[rank as usize] = Seat::Lost;
        self.fail(Failure::remote(format!("rank {rank} (process {process}) is gone, {last}; {}", self.state())));
    }

    /// Looks for ranks that have waited too long.
    pub fn tick(&mut self, now: Instant) {
        let seconds = self.limit.as_secs_f64();
        if !self.complete {
            if self.first_joined.is_some_and(|first| now.duration_since(first) >= self.limit) {
                let missing: Vec<String> = (self.seats.iter().enumerate())
                    .filter(|(_, seat)| matches!(seat, Seat::Empty))
                    .map(|(rank, _)| rank.to_string())
                    .collect();
                let (n, missing) = (self.seats.len(), missing.join(", "));
                self.fail(Failure::remote(format!(
                    "ncclCommInitRank: of {n} ranks these have not joined within {seconds} s: {missing}"
                )));
            }
            return;
        }
        let late = |seat: &Rank| seat.group.as_ref().is_some_and(|group| now.duration_since(group.since) >= self.limit);
        if self.taken().any(|(_, seat)| late(seat)) {
            self.fail(Failure::remote(format!("a call has waited for {seconds} s; {}", self.state())));
        }
    }

    fn taken(&self) -> impl Iterator<Item = (usize, &Rank)> {
        self.seats.iter().enumerate().filter_map(|(rank, seat)| match seat {
            Seat::Taken(taken) => Some((rank, taken)),
            _ => None,
        })
    }

    /// The calls that `rank` is at.
    fn calls(&self, rank: usize) -> &[Begun] {
        match self.seats.get(rank) {
            Some(Seat::Taken(Rank { group: Some(group), .. })) => &group.calls,
            _ => &[],
        }
    }

    fn calls_mut(&mut self, rank: usize) -> &mut [Begun] {
        match self.seats.get_mut(rank) {
            Some(Seat::Taken(Rank { group: Some(group), .. })) => &mut group.calls,
            _ => &mut [],
        }
    }

    /// Where every rank is, in words.
    fn state(&self) -> String {
        let words = |(rank, seat): (usize, &Seat)| match seat {
            Seat::Empty => format!("rank {rank} has not joined"),
            Seat::Left => format!("rank {rank} has destroyed its communicator"),
            Seat::Lost => format!("rank {rank} is gone"),
            Seat::Taken(Rank { group: Some(_), last, .. }) => format!("rank {rank} waits in {last}"),
            Seat::Taken(Rank { last, .. }) if last.is_empty() => format!("rank {rank} has called nothing"),
            Seat::Taken(Rank { last, .. }) => format!("rank {rank} has called nothing since {last}"),
        };
        self.seats.iter().enumerate().map(words).collect::<Vec<_>>().join("; ")
    }

    fn fail(&mut self, failure: Failure) {
        if self.failed.is_some() {
            return;
        }
        let taken: Vec<usize> = self.taken().map(|(rank, _)| rank).collect();
        self.replies.extend(taken.into_iter().map(|rank| (rank as u32, Reply::Failed(failure.clone()))));
        self.failed = Some(failure);
    }

    /// Ends what has come together.
    fn advance(&mut self) -> Result<(), Failure> {
        loop {
            self.end_collectives()?;
            self.end_transfers()?;
            if !self.end_groups() {
                break;
            }
        }
        self.look_for_the_impossible();
        Ok(())
    }

    /// Number of the collective that call `index` of `rank` is, among all of the rank's.
    fn number_of(&self, rank: usize, index: usize) -> u64 {
        let Some(Seat::Taken(seat)) = self.seats.get(rank) else { return 0 };
        let before = self.calls(rank)[..index].iter().filter(|begun| begun.call.is_collective()).count();
        seat.n_collectives + before as u64
    }

    /// Place of collective `number` among the calls that `rank` is at.
    fn place_of(&self, rank: usize, number: u64) -> Option<usize> {
        (0..self.calls(rank).len())
            .find(|&index| self.calls(rank)[index].call.is_collective() && self.number_of(rank, index) == number)
    }

    /// Compares the collectives of equal number, and ends those that all ranks have begun.
    fn end_collectives(&mut self) -> Result<(), Failure> {
        let n = self.seats.len();
        for rank in 0..n {
            for index in 0..self.calls(rank).len() {
                let Begun { call, received: None, .. } = &self.calls(rank)[index] else { continue };
                if !call.is_collective() {
                    continue;
                }
                let (call, number) = (*call, self.number_of(rank, index));
                let places: Vec<Option<usize>> = (0..n).map(|other| self.place_of(other, number)).collect();
                for (other, place) in places.iter().enumerate() {
                    if let Some(place) = *place
                        && self.calls(other)[place].call != call
                    {
                        let theirs = self.calls(other)[place].call;
                        return Err(Failure::usage(format!(
                            "collective {} differs: rank {rank} calls {call}, rank {other} {theirs}",
                            number + 1
                        )));
                    }
                }
                let Some(places) = places.into_iter().collect::<Option<Vec<usize>>>() else { continue };
                let given: Vec<&[u8]> = (0..n).map(|other| &self.calls(other)[places[other]].given[..]).collect();
                let received = match call.kind {
                    Kind::AllGather => given.concat(),
                    Kind::Broadcast { root } => given[root as usize].to_vec(),
                    Kind::AllReduce(reduction) => reduce(reduction, call.element, &given)
                        .ok_or_else(|| Failure::usage(format!("{call}: sums of this type are not supported")))?,
                    Kind::Send { .. } | Kind::Recv { .. } => continue,
                };
                for (other, place) in places.into_iter().enumerate() {
                    self.calls_mut(other)[place].received = Some(received.clone());
                }
            }
        }
        Ok(())
    }

    /// Ends sends whose receives have begun.
    fn end_transfers(&mut self) -> Result<(), Failure> {
        for from in 0..self.seats.len() {
            for index in 0..self.calls(from).len() {
                let Begun { call, received: None, .. } = &self.calls(from)[index] else { continue };
                let Kind::Send { to } = call.kind else { continue };
                let (call, to) = (*call, to as usize);
                let awaited = Kind::Recv { from: from as u32 };
                let waits = |begun: &Begun| begun.received.is_none() && begun.call.kind == awaited;
                let Some(place) = self.calls(to).iter().position(waits) else { continue };
                let theirs = self.calls(to)[place].call;
                if (call.count, call.element) != (theirs.count, theirs.element) {
                    return Err(Failure::usage(format!(
                        "a transfer differs: rank {from} calls {call}, rank {to} {theirs}"
                    )));
                }
                let bytes = std::mem::take(&mut self.calls_mut(from)[index].given);
                self.calls_mut(from)[index].received = Some(Vec::new());
                self.calls_mut(to)[place].received = Some(bytes);
            }
        }
        Ok(())
    }

    /// Tells ranks whose calls have all ended; `true` if there are any.
    fn end_groups(&mut self) -> bool {
        let mut ended = false;
        for rank in 0..self.seats.len() {
            let Seat::Taken(seat) = &mut self.seats[rank] else { continue };
            let Some(group) = seat.group.take_if(|group| group.calls.iter().all(|begun| begun.received.is_some()))
            else {
                continue;
            };
            seat.n_collectives += group.calls.iter().filter(|begun| begun.call.is_collective()).count() as u64;
            let received = group.calls.into_iter().filter_map(|begun| begun.received).collect();
            self.replies.push((rank as u32, Reply::Done(received)));
            ended = true;
        }
        ended
    }

    /// Ranks without which call `index` of `rank` does not end.
    fn awaited(&self, rank: usize, index: usize) -> Vec<usize> {
        let Begun { call, received: None, .. } = &self.calls(rank)[index] else { return Vec::new() };
        match call.kind {
            Kind::Send { to } => vec![to as usize],
            Kind::Recv { from } => vec![from as usize],
            _ => {
                let number = self.number_of(rank, index);
                (0..self.seats.len()).filter(|&other| self.place_of(other, number).is_none()).collect()
            }
        }
    }

    /// Fails if a rank waits for one that has left, or ranks wait for each other in a circle.
    fn look_for_the_impossible(&mut self) {
        let n = self.seats.len();
        let mut waits: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (rank, waits) in waits.iter_mut().enumerate() {
            for index in 0..self.calls(rank).len() {
                for other in self.awaited(rank, index) {
                    let call = self.calls(rank)[index].call;
                    if let Seat::Left = self.seats[other] {
                        return self.fail(Failure::usage(format!(
                            "rank {rank} calls {call}, but rank {other} has destroyed its communicator"
                        )));
                    }
                    waits.push(other);
                }
            }
        }
        // A rank that is at no call may still come.
        let reaches = |start: usize| {
            let mut seen = vec![false; n];
            let mut open = waits[start].clone();
            while let Some(rank) = open.pop() {
                if rank == start {
                    return true;
                }
                if !std::mem::replace(&mut seen[rank], true) {
                    open.extend(&waits[rank]);
                }
            }
            false
        };
        if (0..n).any(reaches) {
            self.fail(Failure::usage(format!("ranks wait for each other for ever: {}", self.state())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use crate::call::{Element, Reduction};

    const LIMIT: Duration = Duration::from_secs(1);

    fn table(n: u32) -> Table {
        let mut table = Table::new(n, LIMIT);
        for rank in 0..n {
            table.join(rank, n, 100 + rank, rank as i32, Instant::now()).expect("joins");
        }
        assert_eq!(table.take_replies().len(), n as usize);
        table
    }

    fn call(kind: Kind) -> Call {
        Call { kind, count: 1, element: Element::U8 }
    }

    fn begin(table: &mut Table, rank: u32, kinds: &[Kind]) {
        let calls = kinds.iter().map(|&kind| (call(kind), vec![rank as u8])).collect();
        table.begin(rank, calls, Instant::now());
    }

    /// The failure that every one of `ranks` was told.
    fn failure(table: &mut Table, ranks: &[u32]) -> Failure {
        let replies = table.take_replies();
        assert_eq!(replies.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), ranks);
        let Some((_, Reply::Failed(failure))) = replies.first().cloned() else { panic!("{replies:?}") };
        assert!(replies.iter().all(|(_, reply)| *reply == Reply::Failed(failure.clone())));
        failure
    }

    #[test]
    fn collectives_end_when_all_ranks_have_begun() {
        let mut table = table(3);
        begin(&mut table, 2, &[Kind::AllGather]);
        begin(&mut table, 0, &[Kind::AllGather]);
        assert_eq!(table.take_replies(), []);
        begin(&mut table, 1, &[Kind::AllGather]);
        let done = Reply::Done(vec![vec![0, 1, 2]]);
        assert_eq!(table.take_replies(), [(0, done.clone()), (1, done.clone()), (2, done)]);
    }

    #[test]
    fn a_ring_of_transfers_ends_in_groups_and_not_without() {
        let ring = |rank: u32| [Kind::Send { to: (rank + 1) % 3 }, Kind::Recv { from: (rank + 2) % 3 }];
        let mut grouped = table(3);
        (0..3).for_each(|rank| begin(&mut grouped, rank, &ring(rank)));
        let got = |from: u8| Reply::Done(vec![vec![], vec![from]]);
        assert_eq!(grouped.take_replies(), [(0, got(2)), (1, got(0)), (2, got(1))]);
        let mut single = table(3);
        (0..3).for_each(|rank| begin(&mut single, rank, &ring(rank)[..1]));
        let failure = failure(&mut single, &[0, 1, 2]);
        assert!(failure.text.contains("wait for each other for ever: rank 0 waits in call 1, ncclSend"), "{failure}");
    }

    #[test]
    fn what_differs_is_named_with_its_ranks() {
        let mut order = table(2);
        begin(&mut order, 0, &[Kind::AllGather]);
        begin(&mut order, 1, &[Kind::AllReduce(Reduction::Sum)]);
        let told = failure(&mut order, &[0, 1]);
        let expected = "collective 1 differs: rank 0 calls ncclAllGather of 1 u8, rank 1 ncclAllReduce (Sum) of 1 u8";
        assert_eq!(told, Failure::usage(expected));
        // Calls after a failure fail as it did.
        begin(&mut order, 1, &[Kind::AllGather]);
        assert_eq!(failure(&mut order, &[1]), told);
        let mut roots = table(2);
        begin(&mut roots, 0, &[Kind::Broadcast { root: 0 }]);
        begin(&mut roots, 1, &[Kind::Broadcast { root: 1 }]);
        let text = failure(&mut roots, &[0, 1]).text;
        assert!(text.contains("from rank 0") && text.contains("from rank 1"), "{text}");
        let mut transfer = table(2);
        begin(&mut transfer, 1, &[Kind::Recv { from: 0 }]);
        let longer = Call { count: 2, ..call(Kind::Send { to: 1 }) };
        transfer.begin(0, vec![(longer, vec![1, 2])], Instant::now());
        let text = failure(&mut transfer, &[0, 1]).text;
        assert!(
            text.contains("rank 0 calls ncclSend of 2 u8 to rank 1, rank 1 ncclRecv of 1 u8 from rank 0"),
            "{text}"
        );
    }

    #[test]
    fn a_circle_is_found_while_another_rank_is_not_there() {
        let mut table = table(3);
        begin(&mut table, 0, &[Kind::AllGather]);
        begin(&mut table, 1, &[Kind::Send { to: 0 }]);
        let text = failure(&mut table, &[0, 1, 2]).text;
        assert!(
            text.contains("rank 1 waits in call 1, ncclSend of 1 u8 to rank 0; rank 2 has called nothing"),
            "{text}"
        );
    }

    #[test]
    fn a_rank_that_is_gone_or_late_is_named() {
        let mut lost = table(3);
        begin(&mut lost, 0, &[Kind::AllGather]);
        lost.lost(1);
        let told = failure(&mut lost, &[0, 2]);
        assert_eq!(told.code, Code::Remote);
        assert!(
            told.text.starts_with("rank 1 (process 101) is gone, without a call; rank 0 waits in call 1"),
            "{told}"
        );
        let mut late = table(2);
        begin(&mut late, 0, &[Kind::AllGather]);
        late.tick(Instant::now());
        assert_eq!(late.take_replies(), []);
        late.tick(Instant::now() + LIMIT);
        let told = failure(&mut late, &[0, 1]);
        assert_eq!(told.code, Code::Remote);
        assert!(told.text.contains("waited for 1 s") && told.text.contains("rank 1 has called nothing"), "{told}");
        let mut left = table(2);
        left.leave(1, None);
        assert_eq!(left.take_replies(), [(1, Reply::Left)]);
        begin(&mut left, 0, &[Kind::Recv { from: 1 }]);
        let told = failure(&mut left, &[0]);
        assert!(told.text.contains("rank 1 has destroyed its communicator"), "{told}");
    }

    #[test]
    fn ranks_join_once_each_and_in_time() {
        let now = Instant::now();
        let mut twice = Table::new(2, LIMIT);
        twice.join(0, 2, 1, 0, now).expect("joins");
        assert!(twice.join(0, 2, 1, 1, now).expect_err("twice").text.contains("rank 0 of 2 has joined already"));
        assert!(twice.join(1, 2, 2, 0, now).expect_err("one GPU").text.contains("ranks 0 and 1 both use GPU 0"));
        let mut sizes = Table::new(2, LIMIT);
        sizes.join(0, 2, 1, 0, now).expect("joins");
        assert!(sizes.join(1, 3, 1, 1, now).expect_err("three").text.contains("rank 1 says 3 ranks, rank 0 2"));
        let mut late = Table::new(3, LIMIT);
        late.join(1, 3, 1, 0, now).expect("joins");
        late.tick(now + LIMIT);
        assert!(failure(&mut late, &[1]).text.contains("not joined within 1 s: 0, 2"));
    }
}
