//! Messages between ranks: a line of JSON each, of limited length.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of the longest line.
const MOST: usize = 1 << 16;

/// What a rank says as it comes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Hello {
    /// Tells this program from others that may try the port.
    pub protocol: String,
    /// Its number and what it takes for the number of ranks.
    pub rank: usize,
    pub size: usize,
    /// Its number on its machine, whose name follows.
    pub local_rank: usize,
    pub host: String,
    /// What must be equal on all ranks: names and values.
    pub facts: Vec<(String, String)>,
}

/// What rank 0 answers once all have come.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Answer {
    /// With the message of rank 0 for all.
    Welcome(Vec<u8>),
    /// Why the training does not begin: ranks that have not come, or that differ.
    Missing(String),
    Differs(String),
}

/// What ranks say while they train.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Beat {
    /// The last step that the rank has begun; `None` while its progress does not matter.
    Alive(Option<u64>),
    /// The rank ends in good order.
    Leaves,
    /// Of rank 0: who is lost.
    Lost(String),
}

/// Sends a message.
pub fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Receives messages of one connection.
pub struct Receiver<R> {
    from: R,
    /// Bytes that have come and are no whole line yet: a wait that ends early loses none.
    come: Vec<u8>,
}

impl<R: Read> Receiver<R> {
    pub fn new(from: R) -> Self {
        Receiver { from, come: Vec::new() }
    }

    pub fn get_ref(&self) -> &R {
        &self.from
    }

    /// The next message.
    ///
    /// # Errors
    /// Those of the connection; `UnexpectedEof` if it has ended, `InvalidData` for what is no
    /// message.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some(end) = self.come.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.come.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(io::Error::from);
            }
            if self.come.len() > MOST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = [0; 4096];
            match self.from.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.come.extend(&bytes[..n]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, and time-outs in between.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match self.1 {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => self.0.read(&mut into[..1]),
            }
        }
    }

    #[test]
    fn messages_come_whole_however_slowly() {
        let mut sent = Vec::new();
        send(&mut sent, &Beat::Alive(Some(7))).expect("sent");
        send(&mut sent, &Beat::Lost("rank 1\nis gone".into())).expect("sent");
        let mut receiver = Receiver::new(Slow(&sent, false));
        let mut next = || loop {
            match receiver.next::<Beat>() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        };
        assert_eq!(next().expect("a message"), Beat::Alive(Some(7)));
        assert_eq!(next().expect("a message"), Beat::Lost("rank 1\nis gone".into()));
        assert_eq!(next().expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Receiver::new(&b"GET / HTTP/1.1\n"[..]).next::<Hello>().is_err());
        let long = vec![b'x'; 2 * MOST];
        assert_eq!(Receiver::new(&long[..]).next::<Hello>().expect_err("too long").kind(), io::ErrorKind::InvalidData);
    }
}
