//! Every reader of the library on random changes of valid files. See [`crate::common_fuzz`] for
//! more inputs than by default.

mod config;
mod data;
mod training;

use std::path::{Path, PathBuf};

use crate::common_fuzz::{Bytes, Random};

/// A folder for inputs, in memory if possible. It stays behind if the process ends abruptly.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(target: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("amatch-fuzz-{}", std::process::id())).join(target);
        std::fs::create_dir_all(&folder).expect("a folder for the inputs");
        Folder(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // The last target also removes the folder of the process.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

/// A `.safetensors` file; in most cases its length field fits the header, and its values fill the
/// file.
fn seal_safetensors(random: &mut Random, header: &[u8], mut data: Vec<u8>, n_bytes: usize) -> Vec<u8> {
    if random.percent(90) {
        data.resize(n_bytes, 0);
    }
    let mut length = (header.len() as u64).to_le_bytes();
    if random.percent(3) {
        Bytes::extreme(random, &mut length, 0);
    }
    [&length[..], header, &data].concat()
}

/// Header and values of a `.safetensors` file.
fn open_safetensors(file: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = file.split_first_chunk().expect("a valid file to begin with");
    rest.split_at(u64::from_le_bytes(*length) as usize)
}
