//! The lines of `metrics.jsonl` as an event file of TensorBoard, so that `tensorboard --logdir
//! runs` shows a run while it trains.
//!
//! The file is a function of the metrics: each start of a run writes it anew from the lines that
//! are kept, under a later name, and removes the older one. So a crash loses nothing, no step is
//! there twice, and a TensorBoard that reads meanwhile goes over to the new file. A record is its
//! length, the checksum of the length, an `Event` of `event.proto`, and the checksum of that
//! (TFRecord).

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::folder::look_at;
use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::protobuf::Message;

/// Start of the names; the time of the start in seconds since 1970 follows, in 10 digits, since
/// TensorBoard reads the files of a folder in the order of their names.
const NAME: &str = "events.out.tfevents.";

/// Appends to an event file.
pub(super) struct EventWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventWriter {
    /// A new file in `folder` with the lines `kept`. Earlier ones are removed.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed or written to.
    pub fn open(folder: &Path, kept: &[Metrics]) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
        let earlier = list_events(folder)?;
        let last = earlier.iter().filter_map(|path| number(path)).max();
        let now = unix_time();
        let path = folder.join(format!("{NAME}{:010}", last.map_or(now as u64, |last| (last + 1).max(now as u64))));
        let version = event(kept.first().map_or(now, |line| line.unix_time)).bytes(3, "brain.Event:2");
        write_atomically(&path, |out| {
            out.write_all(&record(version))?;
            out.write_all(&record(restart(now)))?;
            kept.iter().try_for_each(|line| out.write_all(&record(scalars(line))))
        })?;
        for file in earlier {
            fs::remove_file(&file).map_err(Error::io(&file, "remove"))?;
        }
        let out = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path, "open"))?;
        Ok(EventWriter { path, out: BufWriter::new(out) })
    }

    /// Adds the numbers of a line.
    pub fn write(&mut self, line: &Metrics) -> Result<()> {
        self.out.write_all(&record(scalars(line))).map_err(Error::io(&self.path, "write"))
    }

    /// Passes everything written to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io(&self.path, "write"))
    }
}

/// The event files in `folder`; none if there is no such folder.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed.
pub(super) fn list_events(folder: &Path) -> Result<Vec<PathBuf>> {
    if look_at(folder)?.is_none_or(|found| !found.is_dir()) {
        return Ok(Vec::new());
    }
    let list = || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut files = list().map_err(Error::io(folder, "list"))?;
    files.retain(|path| number(path).is_some());
    Ok(files)
}

/// The number in the name of an event file of this program.
fn number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(NAME)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Seconds since 1970.
pub(super) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An event at a time, to which its content is added.
fn event(unix_time: f64) -> Message {
    Message::default().double(1, unix_time)
}

/// The start of a session at step 0: what a reader has of an earlier file is void.
fn restart(unix_time: f64) -> Message {
    const START: u64 = 1;
    event(unix_time).integer(2, 0).message(7, Message::default().integer(1, START))
}

/// The numbers of `line`, under the names that they have there.
fn scalars(line: &Metrics) -> Message {
    let Metrics { loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate, rows_per_s, .. } = *line;
    let numbers = [
        ("loss", Some(loss)),
        ("kinetic", Some(kinetic)),
        ("held_out", line.held_out),
        ("gradient_norm", Some(gradient_norm)),
        ("learning_rate", Some(learning_rate)),
        ("rows_per_s", Some(rows_per_s)),
        ("terms/boundary0", Some(boundary0)),
        ("terms/boundary1", Some(boundary1)),
        ("terms/interior", Some(interior)),
    ];
    let values = numbers
        .iter()
        .filter_map(|(tag, value)| value.map(|value| Message::default().bytes(1, tag).float(2, value as f32)));
    event(line.unix_time).integer(2, line.step).message(5, Message::default().messages(1, values))
}

/// `event` as a record of the file.
fn record(event: Message) -> Vec<u8> {
    let event = event.into_bytes();
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), &event, &masked_crc(&event).to_le_bytes()].concat()
}

/// The masked CRC-32C of a TFRecord. A record has a few hundred bytes, which need no table and no
/// crate.
fn masked_crc(bytes: &[u8]) -> u32 {
    /// Castagnoli's polynomial, the lowest power in the highest bit.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let crc = !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C, and the masked one of the eight bytes 24, 0, … that TensorFlow
    /// writes for a first record of 24 bytes.
    #[test]
    fn checksums_are_those_of_castagnoli() {
        let unmasked = masked_crc(b"123456789").wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked, 0xe306_9283);
        assert_eq!(masked_crc(&24u64.to_le_bytes()), 0x224b_7fa3);
    }

    #[test]
    fn a_later_start_replaces_the_file_under_a_later_name() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("tensorboard");
        assert!(list_events(&folder).expect("lists").is_empty());
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        let mut names = Vec::new();
        for _ in 0..3 {
            let mut writer = EventWriter::open(&folder, &[]).expect("opens");
            writer.flush().expect("written");
            let [file] = &list_events(&folder).expect("lists")[..] else { panic!("more than one") };
            names.push(name(file));
        }
        assert!(names.is_sorted() && names[0] != names[1] && names[1] != names[2], "{names:?}");
        // Files of other writers stay.
        fs::write(folder.join("events.out.tfevents.1.host"), "").expect("written");
        EventWriter::open(&folder, &[]).expect("opens");
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), 2);
    }
}
