//! Messages between ranks and the table: a length in four bytes, a tag, and fields.

use std::io::{self, Read, Write};

use crate::call::{Call, Element, Kind, Reduction};
use crate::table::Reply;
use crate::{Code, Failure};

/// What a rank says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Join {
        rank: u32,
        n: u32,
        process: u32,
        device: i32,
    },
    /// Calls, and the bytes that each gives.
    Begin(Vec<(Call, Vec<u8>)>),
    /// With the call that is still in a stream.
    Leave {
        in_use: Option<String>,
    },
    Abort,
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let n = self.u64()? as usize;
        Some(self.take(n)?.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }
}

fn write_call(writer: Writer, call: &Call) -> Writer {
    let (tag, detail) = match call.kind {
        Kind::Send { to } => (0, to),
        Kind::Recv { from } => (1, from),
        Kind::AllGather => (2, 0),
        Kind::AllReduce(reduction) => (3, reduction as u32),
        Kind::Broadcast { root } => (4, root),
    };
    writer.u32(tag).u32(detail).u32(call.element as u32).bytes(&call.count.to_le_bytes())
}

fn read_call(reader: &mut Reader) -> Option<Call> {
    let (tag, detail) = (reader.u32()?, reader.u32()?);
    let kind = match tag {
        0 => Kind::Send { to: detail },
        1 => Kind::Recv { from: detail },
        2 => Kind::AllGather,
        3 => Kind::AllReduce(Reduction::from_number(detail)?),
        4 => Kind::Broadcast { root: detail },
        _ => return None,
    };
    let element = Element::from_number(reader.u32()?)?;
    let count = u64::from_le_bytes(reader.bytes()?.try_into().ok()?);
    Some(Call { kind, count, element })
}

impl Request {
    fn encode(&self) -> Vec<u8> {
        let writer = Writer::default();
        let writer = match self {
            Request::Join { rank, n, process, device } => {
                writer.u32(0).u32(*rank).u32(*n).u32(*process).u32(*device as u32)
            }
            Request::Begin(calls) => (calls.iter())
                .fold(writer.u32(1).u32(calls.len() as u32), |writer, (call, given)| {
                    write_call(writer, call).bytes(given)
                }),
            Request::Leave { in_use: None } => writer.u32(2),
            Request::Leave { in_use: Some(call) } => writer.u32(3).bytes(call.as_bytes()),
            Request::Abort => writer.u32(4),
        };
        writer.0
    }

    fn decode(reader: &mut Reader) -> Option<Request> {
        Some(match reader.u32()? {
            0 => Request::Join {
                rank: reader.u32()?,
                n: reader.u32()?,
                process: reader.u32()?,
                device: reader.u32()? as i32,
            },
            1 => {
                let n = reader.u32()?;
                Request::Begin((0..n).map(|_| Some((read_call(reader)?, reader.bytes()?))).collect::<Option<_>>()?)
            }
            2 => Request::Leave { in_use: None },
            3 => Request::Leave { in_use: Some(reader.text()?) },
            4 => Request::Abort,
            _ => return None,
        })
    }
}

impl Reply {
    fn encode(&self) -> Vec<u8> {
        let writer = Writer::default();
        let writer = match self {
            Reply::Joined => writer.u32(0),
            Reply::Done(received) => {
                received.iter().fold(writer.u32(1).u32(received.len() as u32), |writer, bytes| writer.bytes(bytes))
            }
            Reply::Failed(Failure { code, text }) => writer.u32(2).u32(*code as u32).bytes(text.as_bytes()),
            Reply::Left => writer.u32(3),
        };
        writer.0
    }

    fn decode(reader: &mut Reader) -> Option<Reply> {
        Some(match reader.u32()? {
            0 => Reply::Joined,
            1 => {
                let n = reader.u32()?;
                Reply::Done((0..n).map(|_| reader.bytes()).collect::<Option<_>>()?)
            }
            2 => {
                let codes = [Code::System, Code::InvalidArgument, Code::InvalidUsage, Code::Remote];
                let number = reader.u32()?;
                let code = codes.into_iter().find(|code| *code as u32 == number)?;
                Reply::Failed(Failure { code, text: reader.text()? })
            }
            3 => Reply::Left,
            _ => return None,
        })
    }
}

fn send(mut to: impl Write, message: &[u8]) -> io::Result<()> {
    to.write_all(&(message.len() as u64).to_le_bytes())?;
    to.write_all(message)
}

fn receive<T>(mut from: impl Read, decode: impl FnOnce(&mut Reader) -> Option<T>) -> io::Result<T> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    // Grows with what comes, whatever the length says.
    let mut message = Vec::new();
    let n = u64::from_le_bytes(length);
    if from.by_ref().take(n).read_to_end(&mut message)? as u64 != n {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut reader = Reader(&message);
    decode(&mut reader).filter(|_| reader.0.is_empty()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub fn send_request(to: impl Write, request: &Request) -> io::Result<()> {
    send(to, &request.encode())
}

pub fn receive_request(from: impl Read) -> io::Result<Request> {
    receive(from, Request::decode)
}

pub fn send_reply(to: impl Write, reply: &Reply) -> io::Result<()> {
    send(to, &reply.encode())
}

pub fn receive_reply(from: impl Read) -> io::Result<Reply> {
    receive(from, Reply::decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_sent() {
        let kinds = [
            Kind::Send { to: 3 },
            Kind::Recv { from: 4 },
            Kind::AllGather,
            Kind::AllReduce(Reduction::Min),
            Kind::Broadcast { root: 5 },
        ];
        let calls = kinds.map(|kind| (Call { kind, count: 1 << 40, element: Element::Bf16 }, vec![1, 2])).to_vec();
        let requests = [
            Request::Join { rank: 1, n: 2, process: 3, device: -4 },
            Request::Begin(calls),
            Request::Leave { in_use: None },
            Request::Leave { in_use: Some("call 1".into()) },
            Request::Abort,
        ];
        let mut sent = Vec::new();
        requests.iter().for_each(|request| send_request(&mut sent, request).expect("sent"));
        let mut from = &sent[..];
        requests.iter().for_each(|request| assert_eq!(receive_request(&mut from).expect("received"), *request));
        let failed = Reply::Failed(Failure::remote("gone"));
        let replies = [Reply::Joined, Reply::Done(vec![vec![], vec![7]]), failed, Reply::Left];
        let mut sent = Vec::new();
        replies.iter().for_each(|reply| send_reply(&mut sent, reply).expect("sent"));
        let mut from = &sent[..];
        replies.iter().for_each(|reply| assert_eq!(receive_reply(&mut from).expect("received"), *reply));
        assert!(receive_reply(&sent[..5]).is_err() && receive_request(&[1, 0, 0, 0, 0, 0, 0, 0, 9][..]).is_err());
    }
}
