//! Reading of safetensors files, tensor by tensor, with errors that name file, tensor and fix.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::DeserializeOwned;

use crate::element::{Element, ElementType, Refusal};
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// Key of a model's metadata in the header.
pub(crate) const MODEL_KEY: &str = "action_matching";
/// Key of the metadata of components in the header.
pub(crate) const COMPONENTS_KEY: &str = "components";
/// Key of a checkpoint's format version in the header.
pub(crate) const CHECKPOINT_KEY: &str = "checkpoint";

/// Maximum length of the header, as in the format's reference implementation.
const MAX_HEADER: u64 = 100_000_000;

/// Bytes of the number that gives the header's length.
const LENGTH_BYTES: u64 = 8;

/// What the text `json` holds, or the field that is wrong (empty for the whole) and its problem.
pub(crate) fn parsed<T: DeserializeOwned>(json: &str) -> std::result::Result<T, (String, String)> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let mut field = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            return (String::new(), "is no JSON: the file is damaged".into());
        }
        let text = error.to_string();
        // The position is that in the metadata, which nobody sees.
        let text = text.rsplit_once(" at line ").map_or(&text[..], |(text, _)| text);
        let mut quoted = text.split('`').skip(1).step_by(2);
        let (what, wanted) = text.split_once(", expected ").unwrap_or((text, ""));
        let problem = match (what.split(' ').next(), quoted.next()) {
            (Some("missing"), Some(name)) => {
                field = if field == "." || field.is_empty() { name.into() } else { format!("{field}.{name}") };
                "is missing".into()
            }
            (Some("unknown"), Some(name)) => match quoted.collect::<Vec<_>>()[..] {
                [] => format!("is {name}, which this program does not know"),
                ref known => format!("is {name}, none of {}", known.join(", ")),
            },
            _ => format!("is {}, not {}", found(what), in_words(wanted)),
        };
        (if field == "." { String::new() } else { field }, problem)
    })
}

/// The value that the parser found, from "invalid type: string \"a\"" and the like.
fn found(what: &str) -> &str {
    let value = what.split_once(": ").map_or(what, |(_, value)| value);
    let value = value.strip_prefix("invalid ").unwrap_or(value);
    match value {
        "map" => "an object",
        "sequence" => "a list",
        _ => {
            let kinds = ["string ", "integer ", "floating point ", "boolean "];
            kinds.iter().find_map(|kind| value.strip_prefix(kind)).unwrap_or(value).trim_matches('`')
        }
    }
}

/// What the parser wanted, in words.
fn in_words(wanted: &str) -> String {
    match wanted {
        "f32" | "f64" => "a number".into(),
        "u32" | "u64" | "usize" => "a whole number from 0".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        _ => wanted.strip_prefix("struct ").map_or_else(|| wanted.to_string(), |_| "an object".into()),
    }
}

/// Kind of a safetensors file, by the metadata of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorFileKind {
    /// A checkpoint of a run.
    Checkpoint,
    /// A model.
    Model,
    /// Loadings of the components of a model's data.
    Components,
    /// None of these: plain tensors.
    Data,
}

impl TensorFileKind {
    /// Reads the header of `path`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a safetensors file.
    pub fn of(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        Ok(if file.metadata(CHECKPOINT_KEY).is_some() {
            TensorFileKind::Checkpoint
        } else if file.metadata(MODEL_KEY).is_some() {
            TensorFileKind::Model
        } else if file.metadata(COMPONENTS_KEY).is_some() {
            TensorFileKind::Components
        } else {
            TensorFileKind::Data
        })
    }
}

/// An open safetensors file whose header accounts for every byte. Tensors are read on request.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Offset of the values.
    data_start: u64,
}

impl TensorFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// [`Error::Input`] if the header is invalid, or does not account for every byte of the file.
    pub fn open(path: &Path) -> Result<Self> {
        const FIELD: &str = "header";
        let refuse =
            |problem: String, fix: &str| Err(Error::input(path, FIELD, problem, fix).of_kind(InputKind::Malformed));
        const CUT_SHORT: &str = "the file is cut short: copy or save it again";
        let (mut file, size) = open_file(path)?;
        let mut length = [0; LENGTH_BYTES as usize];
        if size < LENGTH_BYTES {
            return refuse(format!("the file has {size} bytes, too few for any header"), CUT_SHORT);
        }
        file.read_exact(&mut length).map_err(Error::io(path, "read"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size - LENGTH_BYTES {
            let problem = format!("claims {length} bytes of a file of {size}");
            return refuse(problem, "it is damaged, cut short or no .safetensors file: save it again");
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(Error::io(path, "read"))?;
        let metadata: Metadata = match serde_json::from_slice(&text) {
            Ok(metadata) => metadata,
            Err(error) => return refuse(format!("is damaged: {error}"), "save it again with the safetensors library"),
        };
        let (claimed, data_start) = (metadata.data_len() as u64, LENGTH_BYTES + length);
        let available = size - data_start;
        if claimed > available {
            return refuse(format!("names {claimed} bytes of values, only {available} are there"), CUT_SHORT);
        } else if claimed < available {
            let problem = format!("{} bytes follow the last value", available - claimed);
            return refuse(problem, "save it again with the safetensors library");
        }
        Ok(TensorFile { path: path.into(), file, metadata, data_start })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Value of `key` in the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The JSON of one of `versions` under `key`. `missing` is the error if there is none: the
    /// problem and the fix.
    ///
    /// # Errors
    /// [`Error::Input`] also for another version, and for JSON that is no `T`, with its field.
    pub fn described<T: DeserializeOwned>(&self, key: &str, versions: &[u32], missing: [&str; 2]) -> Result<T> {
        let path = self.path();
        let fail =
            |field: &str, problem: String, fix: &str| Error::input(path, format!("{key}: {field}"), problem, fix);
        let Some(json) = self.metadata(key) else {
            let [problem, fix] = missing;
            return Err(Error::input(path, key, problem, fix).of_kind(InputKind::Missing));
        };
        // The version first, so that a later format is told apart from a broken one.
        let found = serde_json::from_str::<serde_json::Value>(json).ok().and_then(|json| json.get("version")?.as_u64());
        if let Some(found) = found.filter(|&found| versions.iter().all(|&version| u64::from(version) != found)) {
            let read: Vec<String> = versions.iter().map(u32::to_string).collect();
            let plural = if read.len() > 1 { "s" } else { "" };
            let fix = format!("this program reads version{plural} {}: update it", read.join(" and "));
            return Err(fail("version", format!("is {found}"), &fix));
        }
        parsed(json).map_err(|(field, problem)| {
            let field = if field.is_empty() { key.to_string() } else { format!("{key}: {field}") };
            let fix = "write it as docs/model-file.md says, or save the file again";
            Error::input(path, field, problem, fix).of_kind(InputKind::Malformed)
        })
    }

    /// Names of the tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape and stored type of `name`, if there is such a tensor.
    pub fn find(&self, name: &str) -> Option<(&[usize], Dtype)> {
        self.metadata.info(name).map(|info| (&info.shape[..], info.dtype))
    }

    /// Shape of `name`.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.info(name)?.shape.clone())
    }

    /// The bytes of tensor `name`.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not exist.
    pub fn bytes(&self, name: &str) -> Result<std::io::Take<BufReader<&File>>> {
        let (start, end) = self.info(name)?.data_offsets;
        let start = self.data_start + start as u64;
        (&self.file).seek(SeekFrom::Start(start)).map_err(Error::io(&self.path, "read"))?;
        let n_bytes = self.data_start + end as u64 - start;
        Ok(BufReader::with_capacity(1 << 18, &self.file).take(n_bytes))
    }

    /// Elements of `name`, which must have `shape`, as f64.
    pub fn f64s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(Error::input(
                &self.path,
                name,
                format!("has shape {found:?}"),
                format!("store it with shape {shape:?}"),
            ));
        }
        let (_, dtype) = self.find(name).unwrap_or((&[], Dtype::F32));
        let element =
            element(dtype).map_err(|Refusal { problem, fix }| Error::input(&self.path, name, problem, fix))?;
        let mut bytes = Vec::new();
        let mut reader = self.bytes(name)?;
        reader.read_to_end(&mut bytes).map_err(Error::io(&self.path, "read"))?;
        let mut values = vec![0.0; bytes.len() / element.size()];
        element.decode_f64(&bytes, &mut values);
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::input(
                &self.path,
                name,
                format!("holds {} at element {index}", values[index]),
                "store finite numbers",
            ));
        }
        Ok(values)
    }

    /// Elements of `name`, which must have `shape`, as f32.
    pub fn f32s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.f64s(name, shape)?.into_iter().map(|value| value as f32).collect())
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| {
            const SHOWN: usize = 12;
            let names = self.names();
            let mut shown =
                if names.is_empty() { "none".to_string() } else { names[..SHOWN.min(names.len())].join(", ") };
            if names.len() > SHOWN {
                shown += &format!(", … ({} in all)", names.len());
            }
            Error::input(&self.path, name, "there is no such tensor", format!("the file holds: {shown}"))
                .of_kind(InputKind::Missing)
        })
    }
}

/// The element type that `dtype` names, or the reason why it cannot be read.
pub(crate) fn element(dtype: Dtype) -> std::result::Result<Element, Refusal> {
    let number = match dtype {
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::Bf16,
        Dtype::F32 => ElementType::F32,
        Dtype::F64 => ElementType::F64,
        Dtype::I8 => ElementType::I8,
        Dtype::I16 => ElementType::I16,
        Dtype::I32 => ElementType::I32,
        Dtype::I64 => ElementType::I64,
        Dtype::U8 => ElementType::U8,
        Dtype::U16 => ElementType::U16,
        Dtype::U32 => ElementType::U32,
        Dtype::U64 => ElementType::U64,
        Dtype::BOOL => {
            return Err(Refusal { problem: "holds booleans (dtype BOOL)".into(), fix: "convert it to F32 first" });
        }
        other => {
            return Err(Refusal { problem: format!("has dtype {other}"), fix: "convert it to F32 first" });
        }
    };
    Ok(Element { number, big_endian: false })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        One,
        TwoThree,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code, reason = "only read by the derive")]
        widths: Vec<usize>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read by the derive")]
    struct Described {
        number: f64,
        range: [f64; 2],
        kind: Kind,
        inner: Inner,
    }

    /// Every way to be wrong is said with the field, in words of this program.
    #[test]
    fn what_is_wrong_with_metadata_is_said_in_words() {
        let good = r#"{"number":1.5,"range":[0,1],"kind":"one","inner":{"widths":[3]}}"#;
        parsed::<Described>(good).expect("is right");
        for (from, to, field, problem) in [
            ("1.5", "\"a\"", "number", "is \"a\", not a number"),
            ("1.5", "null", "number", "is null, not a number"),
            ("\"number\":1.5,", "", "number", "is missing"),
            ("\"widths\":[3]", "", "inner.widths", "is missing"),
            ("[0,1]", "[0]", "range", "is length 1, not an array of length 2"),
            ("\"one\"", "\"four\"", "kind", "is four, none of one, two-three"),
            ("[3]", "[3,-2]", "inner.widths[1]", "is -2, not a whole number from 0"),
            ("[3]", "7", "inner.widths", "is 7, not a list"),
            ("1.5", "{}", "number", "is an object, not a number"),
            ("{\"widths\":[3]}", "true", "inner", "is true, not an object"),
            ("}}", "}", "", "is no JSON: the file is damaged"),
        ] {
            let (at, said) = parsed::<Described>(&good.replace(from, to)).expect_err("is wrong");
            assert_eq!((at.as_str(), said.as_str()), (field, problem), "{from} as {to}");
        }
    }
}
