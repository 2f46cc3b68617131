//! The thread that holds the table, in the process that made the id. Ranks are connected to it by
//! Unix sockets without a file; a connection that ends tells that its rank is gone.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::table::{Reply, Table};
use crate::wire::{Request, receive_request, send_reply};
use crate::{Failure, limit};

const MOST_RANKS: u32 = 1024;

/// What a connection brings, by its number.
enum Event {
    Opened(UnixStream),
    Said(Request),
    Closed,
}

/// Starts a coordinator; returns the name at which ranks reach it.
pub fn start() -> io::Result<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    // The time tells this process from an earlier one with its number.
    let name = format!("vnccl-{}-{}-{now:x}", std::process::id(), COUNT.fetch_add(1, SeqCst));
    let listener = UnixListener::bind_addr(&address(&name)?)?;
    let (sender, events) = channel();
    let over = Arc::new(AtomicBool::new(false));
    let (end, own) = (over.clone(), name.clone());
    thread::spawn(move || accept(&listener, &sender, &over));
    thread::spawn(move || {
        serve(&events);
        end.store(true, SeqCst);
        // Wakes the thread that accepts.
        drop(connect(&own));
    });
    Ok(name)
}

/// Connects to the coordinator `name`.
pub fn connect(name: &str) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&address(name)?)
}

/// The number of the process in which coordinator `name` runs.
pub fn process_of(name: &str) -> &str {
    name.split('-').nth(1).unwrap_or("?")
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

fn accept(listener: &UnixListener, events: &Sender<(u64, Event)>, over: &AtomicBool) {
    let events = Arc::new(Mutex::new(events.clone()));
    let tell = |events: &Mutex<Sender<(u64, Event)>>, number: u64, event: Event| {
        let sender = events.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        sender.send((number, event)).is_ok()
    };
    for (number, connection) in (0..).zip(listener.incoming()) {
        let Ok(connection) = connection else { continue };
        let Ok(to) = connection.try_clone() else { continue };
        if over.load(SeqCst) || !tell(&events, number, Event::Opened(to)) {
            return;
        }
        let events = events.clone();
        thread::spawn(move || {
            while let Ok(request) = receive_request(&connection) {
                tell(&events, number, Event::Said(request));
            }
            tell(&events, number, Event::Closed);
        });
    }
}

/// Plays the table until all ranks have gone.
fn serve(events: &Receiver<(u64, Event)>) {
    let limit = limit();
    let pause = (limit / 20).clamp(Duration::from_millis(1), Duration::from_millis(100));
    let mut connections: HashMap<u64, UnixStream> = HashMap::new();
    // Connection of each rank, and the other way round.
    let mut connection_of: HashMap<u32, u64> = HashMap::new();
    let mut rank_of: HashMap<u64, u32> = HashMap::new();
    let mut table: Option<Table> = None;
    loop {
        match events.recv_timeout(pause) {
            Ok((number, Event::Opened(connection))) => {
                // A rank that is stopped must not stop the others.
                let _ = connection.set_write_timeout(Some(limit.max(pause)));
                connections.insert(number, connection);
            }
            Ok((number, Event::Closed)) => {
                if let (Some(rank), Some(table)) = (rank_of.remove(&number), &mut table) {
                    table.lost(rank);
                }
                connections.remove(&number);
            }
            Ok((number, Event::Said(Request::Join { rank, n, process, device }))) => {
                let joined = if rank >= n || n > MOST_RANKS {
                    Err(Failure::usage(format!("ncclCommInitRank: rank {rank} of {n}")))
                } else {
                    let table = table.get_or_insert_with(|| Table::new(n, limit));
                    table.join(rank, n, process, device, Instant::now())
                };
                match (joined, connections.get(&number)) {
                    (Ok(()), _) => {
                        connection_of.insert(rank, number);
                        rank_of.insert(number, rank);
                    }
                    // Whoever cannot be told is gone.
                    (Err(failure), Some(connection)) => drop(send_reply(connection, &Reply::Failed(failure))),
                    (Err(_), None) => {}
                }
            }
            Ok((number, Event::Said(request))) => {
                if let (Some(&rank), Some(table)) = (rank_of.get(&number), &mut table) {
                    match request {
                        Request::Begin(calls) => table.begin(rank, calls, Instant::now()),
                        Request::Leave { in_use } => table.leave(rank, in_use.as_deref()),
                        Request::Abort => table.abort(rank),
                        Request::Join { .. } => {}
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(table) = &mut table else { continue };
        table.tick(Instant::now());
        for (rank, reply) in table.take_replies() {
            if let Some(connection) = connection_of.get(&rank).and_then(|number| connections.get(number)) {
                // A rank that takes no reply is noticed by what it does not call.
                let _ = send_reply(connection, &reply);
            }
        }
        if table.is_over() {
            return;
        }
    }
}
