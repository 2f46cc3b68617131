//! Which rank is gone or hangs.
//!
//! Ranks show signs of life to rank 0 and rank 0 to them, with the step they are at, over the
//! connections of the rendezvous. A connection that ends, or brings nothing for
//! [`Patience::silence`], tells that the other is gone; a step that does not end for
//! [`Patience::progress`], that the ranks which are behind the others hang. Rank 0 tells all.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::message::{Beat, Receiver, send};
use super::places::Place;
use super::rendezvous::Patience;
use crate::error::{Error, RankKind, Result};

/// Another rank, as this one is connected to it.
pub(super) struct Peer {
    pub rank: usize,
    pub host: String,
    pub receiver: Receiver<TcpStream>,
}

/// The step that a rank is at, and since when.
#[derive(Clone, Copy)]
struct Progress {
    step: Option<u64>,
    since: Instant,
}

/// What is known of the ranks.
struct State {
    own: Progress,
    /// Of rank 0: the others, by number; `None` if they have ended in good order.
    others: Vec<(usize, String, Option<Progress>)>,
    lost: Option<String>,
    /// This rank ends in good order.
    leaves: bool,
    /// It no longer watches.
    ended: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lose(&self, text: String) {
        let mut state = self.lock();
        if !(state.leaves || state.ended) {
            state.lost.get_or_insert(text);
        }
        self.changed.notify_all();
    }
}

/// Watches the other ranks as long as it lives. Dropping it, as an error or a panic does, tells
/// them that this one is gone; [`Liveness::leave`], that it has ended in good order.
pub struct Liveness {
    shared: Arc<Shared>,
    places: Vec<Place>,
    connections: Vec<TcpStream>,
    beats: Option<JoinHandle<()>>,
}

impl Liveness {
    /// Of rank 0, which knows where all are.
    pub(super) fn of_first(peers: Vec<Peer>, places: Vec<Place>, patience: Patience) -> Liveness {
        Liveness::new(0, peers, places, patience)
    }

    /// Of rank `rank`, with its connection to rank 0.
    pub(super) fn of_other(rank: usize, first: Peer, patience: Patience) -> Liveness {
        Liveness::new(rank, vec![first], Vec::new(), patience)
    }

    fn new(rank: usize, peers: Vec<Peer>, places: Vec<Place>, patience: Patience) -> Liveness {
        let start = Progress { step: None, since: Instant::now() };
        let others = peers.iter().map(|peer| (peer.rank, peer.host.clone(), Some(start))).collect();
        let state = State { own: start, others, lost: None, leaves: false, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut connections = Vec::new();
        for peer in peers {
            match peer.receiver.get_ref().try_clone() {
                Ok(connection) => connections.push(connection),
                Err(error) => shared.lose(format!("rank {} cannot be watched: {error}", peer.rank)),
            }
            let shared = shared.clone();
            thread::spawn(move || listen(peer, &shared, patience));
        }
        let to: Vec<TcpStream> = connections.iter().filter_map(|connection| connection.try_clone().ok()).collect();
        let beating = shared.clone();
        let beats = thread::spawn(move || beat(rank == 0, &to, &beating, patience));
        Liveness { shared, places, connections, beats: Some(beats) }
    }

    /// Where the ranks are, by number, as rank 0 knows it; empty on the others.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// This rank begins step `step`. All ranks take the same steps, so one that stays behind hangs.
    pub fn begins(&self, step: u64) {
        self.shared.lock().own = Progress { step: Some(step), since: Instant::now() };
    }

    /// Whether all ranks are there.
    ///
    /// # Errors
    /// [`Error::Rank`] names the rank that is gone or hangs. A run can go on from its last
    /// checkpoint.
    pub fn check(&self) -> Result<()> {
        match self.shared.lock().lost.clone() {
            None => Ok(()),
            Some(problem) => {
                let fix = "continue from the last checkpoint with the ranks that are left";
                Err(Error::Rank { kind: RankKind::Lost, problem, fix })
            }
        }
    }

    /// Whether rank 0, which decides when a training ends, has ended it in good order.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.lock().others.iter().any(|(rank, _, progress)| *rank == 0 && progress.is_none())
    }

    /// Ends in good order: others are missed no more, and do not miss this rank.
    pub fn leave(&self) {
        self.shared.lock().leaves = true;
        self.shared.changed.notify_all();
        // The rest is done as it is dropped.
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(beats) = self.beats.take() {
            // It may have something to say yet.
            let _ = beats.join();
        }
        for connection in &self.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Shows signs of life until this rank ends, and looks for hanging ranks on rank 0.
fn beat(is_first: bool, to: &[TcpStream], shared: &Shared, patience: Patience) {
    let pause = patience.silence / 4;
    for connection in to {
        // One that takes nothing must not silence this rank.
        let _ = connection.set_write_timeout(Some(pause));
    }
    let mut told = false;
    let mut state = shared.lock();
    loop {
        if is_first && state.lost.is_none() {
            state.lost = hanging(&state, patience);
        }
        let beat = match &state.lost {
            _ if state.leaves => Beat::Leaves,
            // Also as this rank ends, which it may do because of it.
            Some(text) if is_first && !told => Beat::Lost(text.clone()),
            _ if state.ended => return,
            _ => Beat::Alive(state.own.step),
        };
        told |= matches!(beat, Beat::Lost(_));
        drop(state);
        for connection in to {
            let _ = send(connection, &beat);
        }
        if beat == Beat::Leaves {
            return;
        }
        state = shared.lock();
        // A loss is passed on at once.
        if !(state.leaves || state.ended || is_first && state.lost.is_some() && !told) {
            state = shared.changed.wait_timeout(state, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

/// The ranks that are behind all others and have stayed at their step for too long, in words.
fn hanging(state: &State, patience: Patience) -> Option<String> {
    let others = state.others.iter().filter_map(|(rank, host, progress)| Some((*rank, host.as_str(), (*progress)?)));
    let all: Vec<(usize, &str, Progress)> = std::iter::once((0, "this machine", state.own)).chain(others).collect();
    let behind = all.iter().filter_map(|(_, _, progress)| progress.step).min()?;
    let seconds = patience.progress.as_secs_f64();
    let is_late = |progress: &Progress| progress.step == Some(behind) && progress.since.elapsed() >= patience.progress;
    if !all.iter().any(|(_, _, progress)| is_late(progress)) {
        return None;
    }
    let late: Vec<String> = (all.iter())
        .filter(|(_, _, progress)| progress.step == Some(behind))
        .map(|(rank, host, _)| format!("rank {rank} on {host}"))
        .collect();
    Some(format!("no progress for {seconds} s at step {behind}: {}", late.join(", ")))
}

/// Listens to one rank until it ends.
fn listen(mut peer: Peer, shared: &Shared, patience: Patience) {
    let who = format!("rank {} on {}", peer.rank, peer.host);
    if let Err(error) = peer.receiver.get_ref().set_read_timeout(Some(patience.silence)) {
        return shared.lose(format!("{who} cannot be watched: {error}"));
    }
    loop {
        match peer.receiver.next::<Beat>() {
            Ok(Beat::Alive(step)) => {
                let mut state = shared.lock();
                let known = state.others.iter_mut().find(|(rank, ..)| *rank == peer.rank);
                if let Some((_, _, Some(progress))) = known
                    && progress.step != step
                {
                    *progress = Progress { step, since: Instant::now() };
                }
            }
            Ok(Beat::Lost(text)) => shared.lose(text),
            Ok(Beat::Leaves) => {
                let mut state = shared.lock();
                if let Some((_, _, progress)) = state.others.iter_mut().find(|(rank, ..)| *rank == peer.rank) {
                    *progress = None;
                }
                return;
            }
            Err(error) => {
                use std::io::ErrorKind::{TimedOut, WouldBlock};
                let silence = patience.silence.as_secs_f64();
                return shared.lose(match error.kind() {
                    WouldBlock | TimedOut => format!("{who} has shown no sign of life for {silence} s"),
                    _ => format!("{who} is gone: its process has ended, or the connection to it"),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::environment::World;
    use crate::ranks::rendezvous::meet;
    use crate::ranks::rendezvous::tests::{PATIENCE, worlds};
    use std::net::TcpListener;
    use std::time::Duration;

    /// `size` ranks that have met.
    fn met(size: usize, patience: Patience) -> Vec<Liveness> {
        let come = |world: World| thread::spawn(move || meet(&world, &[], patience, &(), || Ok(Vec::new())));
        let threads: Vec<_> = worlds(size).into_iter().map(come).collect();
        threads.into_iter().map(|thread| thread.join().expect("ends").expect("meets").1).collect()
    }

    /// The error that `liveness` has within `most`.
    fn lost(liveness: &Liveness, most: Duration) -> String {
        let start = Instant::now();
        loop {
            if let Err(Error::Rank { kind: RankKind::Lost, problem, .. }) = liveness.check() {
                return problem;
            }
            assert!(start.elapsed() < most, "nothing is noticed within {most:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_rank_that_ends_is_named_on_all_others() {
        for dead in [0, 2] {
            let mut ranks = met(3, PATIENCE);
            drop(ranks.remove(dead));
            for rank in &ranks {
                let text = lost(rank, PATIENCE.silence);
                assert!(text.contains(&format!("rank {dead} on ")) && text.contains("is gone"), "{text}");
            }
        }
    }

    /// Others would take rank 0 for the one that is lost.
    #[test]
    fn the_first_rank_names_the_lost_one_before_it_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = TcpStream::connect(listener.local_addr().expect("its address")).expect("connects");
        let (from, _) = listener.accept().expect("connects");
        let own = Progress { step: None, since: Instant::now() };
        let state = State { own, others: Vec::new(), lost: Some("rank 2".into()), leaves: false, ended: true };
        beat(true, &[to], &Shared { state: Mutex::new(state), changed: Condvar::new() }, PATIENCE);
        assert_eq!(Receiver::new(from).next::<Beat>().expect("a message"), Beat::Lost("rank 2".into()));
    }

    #[test]
    fn ranks_that_leave_are_not_missed() {
        let mut ranks = met(3, PATIENCE);
        let last = ranks.remove(1);
        ranks.into_iter().for_each(|rank| rank.leave());
        thread::sleep(Duration::from_millis(200));
        last.check().expect("nobody is lost");
        assert!(last.is_over(), "rank 0 has left");
    }

    /// A process that is stopped keeps its connections and says nothing.
    #[test]
    fn silence_is_noticed_in_time() {
        let patience = Patience { silence: Duration::from_millis(600), ..PATIENCE };
        let worlds = worlds(2);
        let first = worlds[0].clone();
        let first = thread::spawn(move || meet(&first, &[], patience, &(), || Ok(Vec::new())));
        // A rank that never beats: its patience makes the time between two signs an hour.
        let stopped = Patience { silence: Duration::from_secs(4 * 3600), ..patience };
        let _stopped = meet(&worlds[1], &[], stopped, &(), || Ok(Vec::new())).expect("meets");
        let (_, first) = first.join().expect("ends").expect("meets");
        let start = Instant::now();
        let text = lost(&first, Duration::from_secs(5));
        assert!(text.contains("rank 1 on ") && text.contains("no sign of life for 0.6 s"), "{text}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    }

    #[test]
    fn a_rank_that_stays_behind_is_named() {
        let patience =
            Patience { silence: Duration::from_millis(800), progress: Duration::from_millis(700), ..PATIENCE };
        let ranks = met(3, patience);
        (0..3).for_each(|step| ranks.iter().for_each(|rank| rank.begins(step)));
        ranks[0].begins(3);
        ranks[2].begins(3);
        for rank in &ranks {
            let text = lost(rank, Duration::from_secs(5));
            assert!(text.starts_with("no progress for 0.7 s at step 2: rank 1 on "), "{text}");
            assert!(!text.contains("rank 0") && !text.contains("rank 2"), "{text}");
        }
    }

    /// Real processes, as a launcher starts them: one is killed or stopped, and all others name it.
    #[cfg(unix)]
    #[test]
    fn processes_that_are_killed_or_stopped_are_named() {
        use std::process::{Command, Stdio};

        let patience = Patience { silence: Duration::from_secs(1), ..PATIENCE };
        if std::env::var_os("RANKS_CHILD").is_some() {
            let world = World::from_environment().expect("variables").expect("a launcher's");
            let (_, liveness) = meet(&world, &[], patience, &(), || Ok(Vec::new())).expect("meets");
            return println!("seen: {}", lost(&liveness, Duration::from_secs(20)));
        }
        for (signal, words) in [("KILL", "is gone"), ("STOP", "has shown no sign of life for 1 s")] {
            let first = worlds(3).remove(0);
            let mut children: Vec<_> = (1..3)
                .map(|rank| {
                    let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
                    command.args(["--exact", thread::current().name().expect("the test's name"), "--nocapture"]);
                    let variables = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 3)];
                    command.envs(variables.map(|(name, value)| (name, value.to_string())));
                    command.env("MASTER_ADDR", &first.host).env("MASTER_PORT", first.port.to_string());
                    command.env("RANKS_CHILD", "1").stdout(Stdio::piped()).spawn().expect("runs")
                })
                .collect();
            let (_, liveness) = meet(&first, &[], patience, &(), || Ok(Vec::new())).expect("meets");
            let send = |signal: &str, to: u32| {
                let sent = Command::new("kill").args([format!("-{signal}"), to.to_string()]).status();
                assert!(sent.expect("runs").success());
            };
            let dead = children.remove(0);
            send(signal, dead.id());
            let text = lost(&liveness, Duration::from_secs(10));
            assert!(text.starts_with("rank 1 on ") && text.contains(words), "{text}");
            let other = children.remove(0).wait_with_output().expect("ends");
            let seen = String::from_utf8_lossy(&other.stdout).into_owned();
            assert!(seen.contains(&format!("seen: {text}")), "{seen}");
            send("KILL", dead.id());
            dead.wait_with_output().expect("ends");
        }
    }

    #[test]
    fn a_rank_that_has_begun_no_step_does_not_hang() {
        let patience =
            Patience { silence: Duration::from_millis(800), progress: Duration::from_millis(300), ..PATIENCE };
        let ranks = met(2, patience);
        thread::sleep(Duration::from_millis(1200));
        ranks.iter().for_each(|rank| rank.check().expect("nobody hangs"));
    }
}
