//! A rank's end of a communicator: what it asks of the others, and how far that is.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::coordinator::{connect, process_of};
use crate::table::Reply;
use crate::wire::{Request, receive_reply, send_request};
use crate::{Failure, limit};

/// What the table has told this rank.
#[derive(Default)]
struct Mail {
    joined: bool,
    left: bool,
    /// The connection has ended.
    ended: bool,
    done: VecDeque<Vec<Vec<u8>>>,
    failed: Option<Failure>,
}

#[derive(Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How far calls are.
pub enum Outcome {
    Pending,
    /// The bytes that each call received.
    Done(Vec<Vec<u8>>),
    /// The communicator was aborted: no call of it ends.
    Aborted,
}

/// See the head of this file.
pub struct Communicator {
    pub rank: u32,
    pub n: u32,
    /// Number of the GPU on which it was made.
    pub device: i32,
    id: String,
    to: Mutex<UnixStream>,
    mailbox: Arc<Mailbox>,
    /// Calls, in words, that are in a stream and have not passed it.
    queued: Mutex<VecDeque<String>>,
    /// The calls that are under way.
    under_way: Mutex<Option<String>>,
    closed: AtomicBool,
    aborted: AtomicBool,
}

impl Communicator {
    /// Joins the communicator `id`; returns when all ranks have.
    ///
    /// # Errors
    /// Ranks that do not join in time, or do not fit together.
    pub fn join(id: &str, rank: u32, n: u32, device: i32) -> Result<Communicator, Failure> {
        let process = process_of(id);
        let gone = |error| Failure::remote(format!("process {process}, which made the id, cannot be reached: {error}"));
        let stream = connect(id).map_err(gone)?;
        let from = stream.try_clone().map_err(gone)?;
        let mailbox = Arc::new(Mailbox::default());
        let reader = mailbox.clone();
        // Ends when the connection does.
        thread::spawn(move || listen(&from, &reader));
        send_request(&stream, &Request::Join { rank, n, process: std::process::id(), device }).map_err(gone)?;
        let deadline = Instant::now() + patience();
        let mut mail = mailbox.lock();
        while !mail.joined && mail.failed.is_none() {
            if mail.ended {
                return Err(gone_process(id));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::remote(format!("process {process}, which made the id, does not answer")));
            }
            mail = mailbox.arrived.wait_timeout(mail, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        // What failed after all had joined is said by the next call.
        if let Some(failure) = mail.failed.clone().filter(|_| !mail.joined) {
            return Err(failure);
        }
        drop(mail);
        Ok(Communicator {
            rank,
            n,
            device,
            id: id.to_owned(),
            to: Mutex::new(stream),
            mailbox,
            queued: Mutex::default(),
            under_way: Mutex::default(),
            closed: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
        })
    }

    /// Why the communicator can no longer be used, as far as this rank has been told.
    pub fn failure(&self) -> Option<Failure> {
        let waits = lock(&self.under_way).is_some();
        let mail = self.mailbox.lock();
        // Whoever waits for nothing does not need the process that made the id.
        let gone = waits && mail.ended && mail.done.is_empty();
        mail.failed.clone().or_else(|| gone.then(|| gone_process(&self.id)))
    }

    /// A call has been put into a stream.
    pub fn queue(&self, words: &str) {
        lock(&self.queued).push_back(words.to_owned());
    }

    /// It has passed.
    pub fn passed(&self) {
        lock(&self.queued).pop_front();
    }

    /// Whether calls may be made: not after a failure or the end of the communicator.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Failure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        match self.closed.load(SeqCst) {
            true => Err(Failure::usage(format!("rank {} has finalized or destroyed its communicator", self.rank))),
            false => Ok(()),
        }
    }

    /// A stream has reached `words`.
    ///
    /// # Errors
    /// Calls in another stream are under way, or no call can be.
    pub fn enter(&self, words: &str) -> Result<(), Failure> {
        self.check().map_err(|failure| Failure { text: format!("{words}: {}", failure.text), ..failure })?;
        let mut under_way = lock(&self.under_way);
        if let Some(other) = &*under_way {
            return Err(Failure::usage(format!(
                "rank {}: a stream has reached {words} while {other} is under way in another stream, and nothing orders the two",
                self.rank
            )));
        }
        *under_way = Some(words.to_owned());
        Ok(())
    }

    /// Begins calls with the bytes that each gives.
    ///
    /// # Errors
    /// The table is gone.
    pub fn begin(&self, calls: Vec<(Call, Vec<u8>)>) -> Result<(), Failure> {
        self.say(&Request::Begin(calls))
    }

    /// How far the calls are that began at `since`.
    ///
    /// # Errors
    /// The failure of the communicator.
    pub fn poll(&self, since: Instant) -> Result<Outcome, Failure> {
        if self.is_aborted() {
            return Ok(Outcome::Aborted);
        }
        let mut mail = self.mailbox.lock();
        if let Some(received) = mail.done.pop_front() {
            return Ok(Outcome::Done(received));
        }
        if let Some(failure) = mail.failed.clone() {
            return Err(failure);
        }
        if mail.ended {
            return Err(gone_process(&self.id));
        }
        if since.elapsed() > patience() {
            let process = process_of(&self.id);
            return Err(Failure::remote(format!("process {process}, which made the id, does not answer")));
        }
        Ok(Outcome::Pending)
    }

    /// The calls under way have ended.
    pub fn exit(&self) {
        *lock(&self.under_way) = None;
    }

    /// Ends the communicator. Afterwards no call can be made.
    ///
    /// # Errors
    /// A call has not passed its stream.
    pub fn leave(&self) -> Result<(), Failure> {
        if self.closed.swap(true, SeqCst) {
            return Ok(());
        }
        let in_use = lock(&self.queued).front().cloned();
        let failed = self.failure().is_some();
        self.take_leave(&Request::Leave { in_use: in_use.clone() });
        match in_use.filter(|_| !failed) {
            Some(call) => Err(Failure::usage(format!(
                "rank {}: the communicator is destroyed while {call} is in a stream; wait for the stream first",
                self.rank
            ))),
            None => Ok(()),
        }
    }

    /// Ends the communicator, and with it what is under way.
    pub fn abort(&self) {
        self.aborted.store(true, SeqCst);
        if !self.closed.swap(true, SeqCst) {
            self.take_leave(&Request::Abort);
        }
    }

    /// Whether it was aborted: then no call of it begins or ends.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(SeqCst)
    }

    /// Tells the table, and waits until it knows: if the table is in this process, which may end
    /// now, the others have been told what they wait for.
    fn take_leave(&self, request: &Request) {
        // The others may have left too, and the table with them.
        if self.say(request).is_err() {
            return;
        }
        let deadline = Instant::now() + patience();
        let mut mail = self.mailbox.lock();
        while !mail.left && !mail.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            mail = self.mailbox.arrived.wait_timeout(mail, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn say(&self, request: &Request) -> Result<(), Failure> {
        send_request(&*lock(&self.to), request).map_err(|_| self.failure().unwrap_or_else(|| gone_process(&self.id)))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Ends the thread that listens.
        let _ = lock(&self.to).shutdown(Shutdown::Both);
    }
}

fn listen(from: &UnixStream, mailbox: &Mailbox) {
    loop {
        let reply = receive_reply(from);
        let mut mail = mailbox.lock();
        match reply {
            Ok(Reply::Joined) => mail.joined = true,
            Ok(Reply::Left) => mail.left = true,
            Ok(Reply::Done(received)) => mail.done.push_back(received),
            Ok(Reply::Failed(failure)) => drop(mail.failed.get_or_insert(failure)),
            Err(_) => mail.ended = true,
        }
        let is_end = mail.ended;
        mailbox.arrived.notify_all();
        if is_end {
            return;
        }
    }
}

fn gone_process(id: &str) -> Failure {
    Failure::remote(format!("process {}, which made the id, is gone", process_of(id)))
}

/// Longer than the table waits: then it is the table that does not answer.
fn patience() -> Duration {
    2 * limit() + Duration::from_secs(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
