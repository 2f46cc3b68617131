//! That all ranks are there and train the same; and a message of rank 0 for all of them.
//!
//! Rank 0 listens at the world's port. The others come to it and say what they train; rank 0
//! compares that with its own, and answers when all have come, or when one does not fit or not come
//! in time. The connections stay open, for [`Liveness`]. Whoever reaches the port can take part: a
//! cluster's own network is what protects it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as Events, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::environment::World;
use super::liveness::{Liveness, Peer};
use super::message::{Answer, Hello, Receiver, send};
use super::places::Place;
use crate::error::{Error, RankKind, Result};
use crate::stage::{Watch, check};

/// First words of a rank: a program of another version has others.
const PROTOCOL: &str = concat!("amatch ranks ", env!("CARGO_PKG_VERSION"));

/// Pause between two tries to reach rank 0, or two looks for a rank.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two looks at the watch, while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// How long ranks wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until all ranks have come.
    pub meeting: Duration,
    /// For a sign of life of another rank; a quarter of it is the time between two signs.
    pub silence: Duration,
    /// For progress of a rank that shows signs of life.
    pub progress: Duration,
}

impl Default for Patience {
    /// Two minutes until all have come, 10 s without a sign of life, 5 minutes without progress.
    fn default() -> Self {
        Patience {
            meeting: Duration::from_secs(120),
            silence: Duration::from_secs(10),
            progress: Duration::from_secs(300),
        }
    }
}

/// Meets the other ranks of `world`. `facts` are names and values that must be equal on all of
/// them, such as digests of configuration and data. All ranks receive what `message` of rank 0
/// returns, which is called once all have come and fit. `watch` counts the ranks that have come to
/// rank 0, and may end the wait of any.
///
/// ```
/// use action_matching::ranks::environment::{Launcher, World};
/// use action_matching::ranks::rendezvous::{Patience, meet};
///
/// let facts = [("configuration", "1f0c…".to_owned()), ("data", "77ab…".to_owned())];
/// let alone = World {
///     rank: 0,
///     size: 1,
///     local_rank: 0,
///     host: "127.0.0.1".into(),
///     port: 0,
///     launcher: Launcher::Torchrun,
/// };
/// let (message, liveness) = meet(&alone, &facts, Patience::default(), &(), || Ok(vec![1, 2, 3]))?;
/// assert_eq!(message, [1, 2, 3]);
/// liveness.check()?;
/// liveness.leave();
/// # Ok::<(), action_matching::Error>(())
/// ```
///
/// # Errors
/// [`Error::Rank`]: ranks that do not come in time, or that differ, with the difference; on every
/// rank that has come. Those of `message` on rank 0, and [`Error::Interrupted`]; the others see
/// that it is gone.
pub fn meet(
    world: &World,
    facts: &[(&str, String)],
    patience: Patience,
    watch: &dyn Watch,
    message: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<(Vec<u8>, Liveness)> {
    let hello = Hello {
        protocol: PROTOCOL.into(),
        rank: world.rank,
        size: world.size,
        local_rank: world.local_rank,
        host: host_name(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    match world.rank {
        0 => receive(world, &hello, patience, watch, message),
        _ => come(world, &hello, patience, watch),
    }
}

/// Rank 0: waits for all others.
fn receive(
    world: &World,
    own: &Hello,
    patience: Patience,
    watch: &dyn Watch,
    message: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<(Vec<u8>, Liveness)> {
    let mut deadline = Instant::now() + patience.meeting;
    let mut different = None;
    let mut peers: Vec<Peer> = Vec::new();
    let mut places = vec![Place::of(own)];
    if world.size > 1 {
        let arrivals = listen(world, patience)?;
        while peers.len() + 1 < world.size {
            check(watch)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((hello, receiver)) = arrivals.come.recv_timeout(left.min(LOOK)) else {
                if left > LOOK {
                    continue;
                }
                if different.is_some() {
                    break;
                }
                let come = |rank: usize| rank == 0 || peers.iter().any(|peer| peer.rank == rank);
                let missing: Vec<String> =
                    (0..world.size).filter(|&rank| !come(rank)).map(|rank| rank.to_string()).collect();
                let text = format!(
                    "of {} ranks these have not come to {}:{} within {} s: {}",
                    world.size,
                    world.host,
                    world.port,
                    patience.meeting.as_secs_f64(),
                    missing.join(", ")
                );
                tell(&peers, &Answer::Missing(text.clone()));
                return Err(missing_error(text));
            };
            let found = difference(own, &hello, &peers);
            places.push(Place::of(&hello));
            peers.push(Peer { rank: hello.rank, host: hello.host, receiver });
            if different.is_none() && found.is_some() {
                // Those that are on their way shall hear of it too.
                deadline = deadline.min(Instant::now() + patience.silence);
                different = found;
            }
            watch.advanced(places.len() as u64, world.size as u64);
        }
    }
    if let Some(text) = different {
        tell(&peers, &Answer::Differs(text.clone()));
        return Err(differs_error(text));
    }
    let message = message()?;
    tell(&peers, &Answer::Welcome(message.clone()));
    places.sort_by_key(|place| place.rank);
    Ok((message, Liveness::of_first(peers, places, patience)))
}

/// The ranks that come. No others do once it is dropped.
struct Arrivals {
    come: Events<(Hello, Receiver<TcpStream>)>,
    over: Arc<AtomicBool>,
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

/// Listens for ranks.
fn listen(world: &World, patience: Patience) -> Result<Arrivals> {
    let io = |cause| Error::io(format!("{}:{}", world.host, world.port), "listen for the other ranks at")(cause);
    // Whoever meets on this machine alone is reached from it alone.
    let addresses: &[IpAddr] = match world.host.as_str() {
        "localhost" | "127.0.0.1" => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        "::1" => &[IpAddr::V6(Ipv6Addr::LOCALHOST)],
        // The first takes connections of both kinds, where the system has both.
        _ => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let addresses: Vec<SocketAddr> = addresses.iter().map(|&address| SocketAddr::new(address, world.port)).collect();
    let listener = TcpListener::bind(&addresses[..]).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    let (sender, come) = channel();
    let arrivals = Arrivals { come, over: Arc::default() };
    let (over, end) = (arrivals.over.clone(), Instant::now() + patience.meeting);
    thread::spawn(move || {
        while !over.load(Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let sender = sender.clone();
                    thread::spawn(move || greet(stream, &sender, end));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    });
    Ok(arrivals)
}

/// Hears what a connection says first, until `end`: one that says nothing keeps no other from
/// coming.
fn greet(stream: TcpStream, arrivals: &Sender<(Hello, Receiver<TcpStream>)>, end: Instant) {
    let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
    let is_ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(left)));
    let mut receiver = Receiver::new(stream);
    // What says anything else is no rank.
    if is_ready.is_ok()
        && let Ok(hello) = receiver.next::<Hello>()
        && hello.protocol.starts_with("amatch ranks")
    {
        // Who comes too late finds the connection closed.
        let _ = arrivals.send((hello, receiver));
    }
}

/// What keeps `other` from training with `own` and the ranks that have come, in words.
fn difference(own: &Hello, other: &Hello, come: &[Peer]) -> Option<String> {
    let who = format!("rank {} on {}", other.rank, other.host);
    if other.protocol != own.protocol {
        return Some(format!("{who} runs {:?}, rank 0 {:?}", other.protocol, own.protocol));
    }
    if other.size != own.size {
        return Some(format!("{who} was started as one of {} ranks, rank 0 as one of {}", other.size, own.size));
    }
    if other.rank >= own.size {
        return Some(format!("{who}: there are {} ranks, counted from 0", own.size));
    }
    if other.rank == 0 {
        return Some(format!("two processes are rank 0, on {} and {}", own.host, other.host));
    }
    if let Some(twin) = come.iter().find(|peer| peer.rank == other.rank) {
        return Some(format!("two processes are rank {}, on {} and {}", other.rank, twin.host, other.host));
    }
    let value = |facts: &[(String, String)], name: &str| {
        facts.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()).unwrap_or("none".into())
    };
    let names = own.facts.iter().chain(&other.facts).map(|(name, _)| name.as_str());
    for name in names {
        let (theirs, ours) = (value(&other.facts, name), value(&own.facts, name));
        if theirs != ours {
            return Some(format!("{who} has another {name}: {theirs}, rank 0 {ours}"));
        }
    }
    None
}

/// Says the same to all; who cannot be told notices by itself.
fn tell(peers: &[Peer], answer: &Answer) {
    for peer in peers {
        let _ = send(peer.receiver.get_ref(), answer);
    }
}

/// Every other rank: comes to rank 0.
fn come(world: &World, own: &Hello, patience: Patience, watch: &dyn Watch) -> Result<(Vec<u8>, Liveness)> {
    let World { host, port, .. } = world;
    let deadline = Instant::now() + patience.meeting;
    let stream = loop {
        check(watch)?;
        let error = match connect(host, *port, patience) {
            Ok(stream) => break stream,
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(missing_error(format!(
                "rank {} has not reached rank 0 at {host}:{port} within {} s: {error}",
                world.rank,
                patience.meeting.as_secs_f64()
            )));
        }
        thread::sleep(PAUSE);
    };
    let gone = |error| missing_error(format!("rank 0 at {host}:{port} has ended before all ranks had come: {error}"));
    // Rank 0 waits no longer than its patience, which began before.
    let deadline = Instant::now() + patience.meeting + patience.silence;
    stream.set_read_timeout(Some(LOOK)).map_err(gone)?;
    send(&stream, own).map_err(gone)?;
    let mut receiver = Receiver::new(stream);
    let answer = loop {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        check(watch)?;
        match receiver.next::<Answer>() {
            Err(error) if matches!(error.kind(), TimedOut | WouldBlock) && Instant::now() < deadline => {}
            answer => break answer.map_err(gone)?,
        }
    };
    match answer {
        Answer::Welcome(message) => {
            let first = Peer { rank: 0, host: host.clone(), receiver };
            Ok((message, Liveness::of_other(world.rank, first, patience)))
        }
        Answer::Missing(text) => Err(missing_error(text)),
        Answer::Differs(text) => Err(differs_error(text)),
    }
}

fn connect(host: &str, port: u16, patience: Patience) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience.silence) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn missing_error(problem: String) -> Error {
    let fix = "see whether each process runs and reaches that address; MASTER_ADDR and MASTER_PORT set another";
    Error::Rank { kind: RankKind::Missing, problem, fix }
}

fn differs_error(problem: String) -> Error {
    let fix = "start all ranks with one command, the same program, and files that all machines see alike";
    Error::Rank { kind: RankKind::Differs, problem, fix }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or("an unnamed machine".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ranks::environment::Launcher;
    use std::io::Write as _;

    /// Quick enough for tests, slow enough for a busy machine.
    pub const PATIENCE: Patience = Patience {
        meeting: Duration::from_secs(20),
        silence: Duration::from_secs(2),
        progress: Duration::from_secs(60),
    };

    /// `size` places on this machine, at a port that is free.
    pub fn worlds(size: usize) -> Vec<World> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let world =
            |rank| World { rank, size, local_rank: rank, host: "127.0.0.1".into(), port, launcher: Launcher::Torchrun };
        (0..size).map(world).collect()
    }

    type Met = Result<(Vec<u8>, Liveness)>;

    /// What each of `worlds` meets with its facts.
    fn met(
        worlds: &[World],
        patience: Patience,
        facts: impl Fn(usize) -> Vec<(&'static str, String)> + Sync,
    ) -> Vec<Met> {
        let facts = &facts;
        thread::scope(|scope| {
            let threads: Vec<_> = worlds
                .iter()
                .map(|world| scope.spawn(move || meet(world, &facts(world.rank), patience, &(), || Ok(vec![42; 128]))))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("ends")).collect()
        })
    }

    fn same(_: usize) -> Vec<(&'static str, String)> {
        vec![("configuration", "a1".into()), ("data", "b2".into())]
    }

    #[test]
    fn all_ranks_receive_the_message_of_the_first() {
        for size in [1, 2, 8] {
            for met in met(&worlds(size), PATIENCE, same) {
                let (message, liveness) = met.expect("meets");
                assert_eq!(message, vec![42; 128]);
                liveness.check().expect("all live");
                liveness.leave();
            }
        }
    }

    #[test]
    fn a_difference_is_named_on_every_rank() {
        let facts = |rank: usize| {
            let mut facts = same(rank);
            if rank == 2 {
                facts[1].1 = "c3".into();
            }
            facts
        };
        for met in met(&worlds(3), PATIENCE, facts) {
            let Err(Error::Rank { kind: RankKind::Differs, problem, .. }) = met else { panic!("meets") };
            assert!(problem.starts_with("rank 2 on "), "{problem}");
            assert!(problem.ends_with("has another data: c3, rank 0 b2"), "{problem}");
        }
        // A fact that only one of them has.
        let facts = |rank: usize| if rank == 1 { same(rank) } else { same(rank)[..1].to_vec() };
        for met in met(&worlds(2), PATIENCE, facts) {
            assert!(met.err().expect("differs").to_string().contains("another data: b2, rank 0 none"));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        for (wrong, words) in [
            (World { size: 3, ..worlds(2).remove(1) }, "was started as one of 3 ranks, rank 0 as one of 2"),
            (World { rank: 2, ..worlds(2).remove(1) }, "there are 2 ranks, counted from 0"),
        ] {
            let mut worlds = worlds(2);
            worlds[1] = World { port: worlds[0].port, ..wrong };
            for met in met(&worlds, PATIENCE, same) {
                assert!(met.err().expect("does not fit").to_string().contains(words), "{words}");
            }
        }
        let mut twins = worlds(3);
        twins[2].rank = 1;
        for met in met(&twins, PATIENCE, same) {
            assert!(met.err().expect("does not fit").to_string().contains("two processes are rank 1"));
        }
    }

    #[test]
    fn ranks_that_do_not_come_are_named_in_time() {
        let patience = Patience { meeting: Duration::from_millis(500), ..PATIENCE };
        let start = Instant::now();
        let worlds: Vec<World> = worlds(4).into_iter().step_by(2).collect();
        for met in met(&worlds, patience, same) {
            let Err(Error::Rank { kind: RankKind::Missing, problem, .. }) = met else { panic!("meets") };
            assert!(problem.contains("of 4 ranks") && problem.ends_with("within 0.5 s: 1, 3"), "{problem}");
        }
        // Nobody listens.
        let alone = met(&super::tests::worlds(2)[1..], patience, same).remove(0).err().expect("nobody").to_string();
        assert!(alone.contains("rank 1 has not reached rank 0 at 127.0.0.1:"), "{alone}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    /// Others that try the port, or say nothing, do no harm.
    #[test]
    fn strangers_are_left_out() {
        let worlds = worlds(2);
        let address = format!("127.0.0.1:{}", worlds[0].port);
        let _strangers = thread::spawn(move || {
            let open = |said: &[u8]| loop {
                if let Ok(mut stream) = TcpStream::connect(&address) {
                    stream.write_all(said).expect("said");
                    return stream;
                }
                thread::sleep(PAUSE);
            };
            (open(b""), open(b"GET / HTTP/1.1\r\n\r\n"))
        });
        let come = |world: World, after: Duration| {
            thread::spawn(move || {
                thread::sleep(after);
                meet(&world, &[], PATIENCE, &(), || Ok(vec![1]))
            })
        };
        let threads = [come(worlds[0].clone(), Duration::ZERO), come(worlds[1].clone(), Duration::from_millis(300))];
        for thread in threads {
            assert_eq!(thread.join().expect("ends").expect("meets").0, [1]);
        }
    }

    /// Whoever waits can be ended, and sees who has come.
    #[test]
    fn a_watch_sees_the_ranks_and_ends_the_wait() {
        /// Ends the wait once two ranks are there; of a rank that comes, at once.
        struct Seen(AtomicBool);
        impl Watch for Seen {
            fn advanced(&self, done: u64, total: u64) {
                assert_eq!((done, total), (2, 3));
                self.0.store(true, Relaxed);
            }
            fn is_cancelled(&self) -> bool {
                self.0.load(Relaxed)
            }
        }
        let worlds = worlds(3);
        let start = Instant::now();
        let interrupted = |world: &World, seen: bool| {
            let outcome = meet(world, &[], PATIENCE, &Seen(AtomicBool::new(seen)), || Ok(Vec::new()));
            assert!(matches!(outcome, Err(Error::Interrupted)), "rank {}", world.rank);
        };
        thread::scope(|scope| {
            scope.spawn(|| interrupted(&worlds[0], false));
            let error = meet(&worlds[1], &[], PATIENCE, &(), || Ok(Vec::new())).err().expect("rank 0 ends").to_string();
            assert!(error.contains("has ended before all ranks had come"), "{error}");
        });
        interrupted(&worlds[2], true);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn the_first_rank_knows_where_all_are() {
        let worlds: Vec<World> =
            worlds(3).into_iter().map(|world| World { local_rank: 5 - world.rank, ..world }).collect();
        let liveness: Vec<Liveness> =
            met(&worlds, PATIENCE, same).into_iter().map(|met| met.expect("meets").1).collect();
        let place = |rank| Place { rank, host: host_name(), device: 5 - rank };
        assert_eq!(liveness[0].places(), [place(0), place(1), place(2)]);
        assert!(liveness[1].places().is_empty());
        liveness.into_iter().for_each(|rank| rank.leave());
    }
}
