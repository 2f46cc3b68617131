//! Writing of messages in the wire format of Protocol Buffers, as far as ONNX models and event
//! files of TensorBoard need it: a field is a key and a number or bytes
//! (<https://protobuf.dev/programming-guides/encoding/>). The crate prost would add a compiler of
//! `.proto` files to the build, and `onnx-protobuf` a copyleft licence, for what is forty lines.

/// A message that is being written; each function adds a field, in the order of the calls.
#[derive(Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// An integer that is not negative, or an enumerator.
    pub fn integer(self, field: u32, value: u64) -> Self {
        self.key(field, 0).varint(value)
    }

    /// An f32.
    #[cfg(feature = "files")]
    pub fn float(self, field: u32, value: f32) -> Self {
        self.key(field, 5).raw(&value.to_le_bytes())
    }

    /// An f64.
    #[cfg(feature = "files")]
    pub fn double(self, field: u32, value: f64) -> Self {
        self.key(field, 1).raw(&value.to_le_bytes())
    }

    /// Bytes, or text in UTF-8.
    pub fn bytes(self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(field, 2).varint(value.len() as u64).raw(value)
    }

    /// A message.
    pub fn message(self, field: u32, message: Message) -> Self {
        self.bytes(field, message.0)
    }

    /// Each of `messages`, as a repeated field.
    pub fn messages(self, field: u32, messages: impl IntoIterator<Item = Message>) -> Self {
        messages.into_iter().fold(self, |whole, message| whole.message(field, message))
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(self, field: u32, wire_type: u64) -> Self {
        self.varint(u64::from(field) << 3 | wire_type)
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification.
    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(Message::default().integer(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::default().bytes(2, "testing").into_bytes();
        assert_eq!(text, [&[0x12, 0x07][..], b"testing"].concat());
        let inner = Message::default().integer(1, 150);
        assert_eq!(Message::default().message(3, inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }
}
