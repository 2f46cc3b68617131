//! Additions to a file of AnnData. They are made to a copy, which replaces nothing before it has
//! been opened again and found whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use hdf5_pure::{AttrValue, DatasetBuilder, EnumTypeBuilder, make_i8_type};
use sha2::{Digest, Sha256};

use super::hdf5::Hdf5;
use super::index_of;
use crate::destination::Destination;
use crate::error::{Error, InputKind, Result};

/// What is added at a place, as anndata encodes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// `array` of 32-bit numbers, `[n]` or `[n, columns]`.
    F32 { values: Vec<f32>, columns: Option<usize> },
    /// `array` of 64-bit numbers, `[n]`.
    F64(Vec<f64>),
    /// `array` of truth values, `[n]`.
    Bools(Vec<bool>),
    /// `string`.
    Text(String),
    /// `string-array`, `[n]`.
    Texts(Vec<String>),
    /// `numeric-scalar`.
    Count(u64),
    /// `dict` of named items.
    Dict(Vec<(String, Item)>),
    /// `dataframe`: names of its rows, and its columns.
    Frame { index: Vec<String>, columns: Vec<(String, Item)> },
}

/// Name of the index that a data frame of ours has.
const INDEX: &str = "_index";

/// Writes the file `cells` with `items` (a path each, such as `obs/action`) to `to`, which may be
/// `cells` itself. What is at one of the paths is replaced; columns of `obs` and `var` are entered
/// into the order of the columns. The file at `to` changes only once the new one is complete: it
/// has been opened again, holds the items, and every other data set of `cells` in the same shape.
///
/// # Errors
/// [`Error::Input`] for a file that cannot be extended, [`Error::Io`] if copying or writing fails;
/// what was at `to` is then unchanged.
pub(crate) fn write_extended(cells: &Path, to: &Destination, items: Vec<(String, Item)>) -> Result<()> {
    to.write_file(|mut copy, at| {
        let mut original = File::open(cells).map_err(Error::io(cells, "open"))?;
        io::copy(&mut original, &mut copy).map_err(Error::io(to.path(), "write"))?;
        drop(copy);
        let before = survey(&Hdf5::open(cells)?)?;
        let added = extend(cells, at, items)?;
        verify(cells, at, &before, &added)
    })
}

/// What a leaf must read back as: shape, and digest of its values.
type Leaves = Vec<(String, Content)>;

#[derive(PartialEq)]
enum Content {
    Numbers([u8; 32]),
    Texts(Vec<String>),
}

/// Adds `items` to the file `copy` of `cells`: the leaves that it holds then.
fn extend(cells: &Path, copy: &Path, items: Vec<(String, Item)>) -> Result<Leaves> {
    let refuse = |error: hdf5_pure::Error| match error {
        hdf5_pure::Error::Io(error) => Error::io(cells, "extend the copy of")(error),
        error => Error::input(cells, "file", format!("cannot be extended: {error}"), super::hdf5::SAVE_AGAIN)
            .of_kind(InputKind::Malformed),
    };
    let reader = Hdf5::open(copy)?;
    let mut orders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut replaced = Vec::new();
    let mut missing_groups = Vec::new();
    for (path, _) in &items {
        let Some((group, name)) = path.split_once('/') else { continue };
        if !reader.is_group(group) && !missing_groups.contains(&group.to_string()) {
            missing_groups.push(group.to_string());
        }
        if reader.is_group(path) || reader.is_dataset(path) {
            replaced.push(path.clone());
        }
        if let Some(frame) = ["obs", "var"].into_iter().find(|frame| *frame == group) {
            let order = match orders.remove(frame) {
                Some(order) => order,
                None => column_order(&reader, frame)?,
            };
            let mut order = order;
            if !order.iter().any(|known| known == name) {
                order.push(name.to_string());
            }
            orders.insert(frame, order);
        }
    }
    let orders: Vec<(String, Vec<String>)> =
        orders.into_iter().map(|(frame, order)| (frame.to_string(), order)).collect();
    drop(reader);
    let mut leaves = Leaves::new();
    let file = hdf5_pure::File::open_rw(copy).map_err(refuse)?;
    let edit = || -> std::result::Result<(), hdf5_pure::Error> {
        let root = file.root();
        for group in missing_groups {
            let group = root.create_group(&group)?;
            describe(|name, value| group.set_attr(name, value), "dict", "0.1.0")?;
        }
        for path in replaced {
            root.delete(&path)?;
        }
        for (path, item) in items {
            add(&root, &path, item, &mut leaves)?;
            // What is not committed is held beside the file, twice while it is written.
            file.commit()?;
        }
        for (frame, order) in orders {
            file.group(&frame)?.set_attr("column-order", AttrValue::VarLenStringArray(order))?;
        }
        file.commit()
    };
    edit().map_err(refuse)?;
    file.close().map_err(refuse)?;
    Ok(leaves)
}

/// The columns of `frame` in their order.
fn column_order(reader: &Hdf5, frame: &str) -> Result<Vec<String>> {
    let index = index_of(reader, frame);
    let order = reader.texts_attribute(frame, "column-order").unwrap_or_default();
    let names = reader.names(frame)?;
    // A column that is not in the order would be lost to anndata with the new one.
    match names.iter().find(|name| format!("{frame}/{name}") != index && !order.contains(name)) {
        Some(name) if order.is_empty() => {
            let problem = format!("has no order that can be read of its columns, such as {name}");
            Err(Error::input(reader.path(), frame, problem, super::hdf5::SAVE_AGAIN).of_kind(InputKind::Malformed))
        }
        _ => Ok(order),
    }
}

type Edited = std::result::Result<(), hdf5_pure::Error>;

/// Names the encoding of a group or data set.
fn describe(mut set: impl FnMut(&str, AttrValue) -> Edited, kind: &str, version: &str) -> Edited {
    set("encoding-type", AttrValue::VarLenString(kind.into()))?;
    set("encoding-version", AttrValue::VarLenString(version.into()))
}

/// Adds one item, and what it must read back as to `leaves`.
fn add(parent: &hdf5_pure::Group, path: &str, item: Item, leaves: &mut Leaves) -> Edited {
    let children = match item {
        Item::Dict(children) => {
            let group = parent.create_group(path)?;
            describe(|name, value| group.set_attr(name, value), "dict", "0.1.0")?;
            children
        }
        Item::Frame { index, columns } => {
            let group = parent.create_group(path)?;
            describe(|name, value| group.set_attr(name, value), "dataframe", "0.2.0")?;
            group.set_attr("_index", AttrValue::VarLenString(INDEX.into()))?;
            let order = columns.iter().map(|(name, _)| name.clone()).collect();
            group.set_attr("column-order", AttrValue::VarLenStringArray(order))?;
            columns.into_iter().chain([(INDEX.to_string(), Item::Texts(index))]).collect()
        }
        leaf => {
            leaves.push((path.to_string(), leaf.content()));
            let mut built = Ok(());
            parent.create_dataset(path, |dataset| built = leaf.build(dataset))?;
            return built;
        }
    };
    children.into_iter().try_for_each(|(name, item)| add(parent, &format!("{path}/{name}"), item, leaves))
}

impl Item {
    fn content(&self) -> Content {
        let mut digest = Sha256::new();
        match self {
            Item::F32 { values, .. } => values.iter().for_each(|x| digest.update(x.to_le_bytes())),
            Item::F64(values) => values.iter().for_each(|x| digest.update(x.to_le_bytes())),
            Item::Bools(values) => values.iter().for_each(|&x| digest.update([u8::from(x)])),
            Item::Count(value) => digest.update(value.to_le_bytes()),
            Item::Text(text) => return Content::Texts(vec![text.clone()]),
            Item::Texts(texts) => return Content::Texts(texts.clone()),
            Item::Dict(_) | Item::Frame { .. } => {} // have items of their own
        }
        Content::Numbers(digest.finalize().into())
    }

    /// Fills the data set of a leaf.
    fn build(&self, dataset: &mut DatasetBuilder) -> Edited {
        let (kind, version) = match self {
            Item::F32 { values, columns } => {
                let n = values.len() as u64;
                let shape = columns.map_or(vec![n], |columns| vec![n / columns.max(1) as u64, columns as u64]);
                dataset.with_f32_data(values).with_shape(&shape);
                ("array", "0.2.0")
            }
            Item::F64(values) => {
                dataset.with_f64_data(values);
                ("array", "0.2.0")
            }
            Item::Bools(values) => {
                let boolean = EnumTypeBuilder::with_base(make_i8_type()).value("FALSE", 0).value("TRUE", 1).build()?;
                let values: Vec<u8> = values.iter().map(|&x| u8::from(x)).collect();
                dataset.with_enum_u8_data(boolean, &values);
                ("array", "0.2.0")
            }
            Item::Count(value) => {
                dataset.with_u64_data(&[*value]).with_shape(&[]);
                ("numeric-scalar", "0.2.0")
            }
            Item::Text(text) => {
                dataset.with_vlen_strings(&[text]).with_shape(&[]);
                ("string", "0.2.0")
            }
            Item::Texts(texts) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                dataset.with_vlen_strings(&texts);
                ("string-array", "0.2.0")
            }
            Item::Dict(_) | Item::Frame { .. } => return Ok(()), // groups, made by `add`
        };
        let set = |name: &str, value| {
            dataset.set_attr(name, value);
            Ok(())
        };
        describe(set, kind, version)
    }
}

/// Shape and element type of every data set, by its path.
fn survey(file: &Hdf5) -> Result<BTreeMap<String, (Vec<u64>, String)>> {
    /// Groups within groups, at most: a damaged file may hold a circle of them.
    const DEEPEST: usize = 16;
    let mut found = BTreeMap::new();
    let mut groups = vec![(String::new(), 0)];
    while let Some((group, depth)) = groups.pop() {
        for name in file.names(&group)? {
            let at = if group.is_empty() { name } else { format!("{group}/{name}") };
            if file.is_group(&at) {
                if depth == DEEPEST {
                    let problem = format!("holds groups more than {DEEPEST} levels deep");
                    return Err(Error::input(file.path(), at, problem, super::hdf5::SAVE_AGAIN));
                }
                groups.push((at, depth + 1));
            } else {
                let described = file.shape_and_type(&at)?;
                found.insert(at, described);
            }
        }
    }
    Ok(found)
}

/// Opens `copy` again: it must hold what was added, and all else as `before`.
fn verify(cells: &Path, copy: &Path, before: &BTreeMap<String, (Vec<u64>, String)>, added: &Leaves) -> Result<()> {
    let lost = |at: &str| {
        let problem = "was not found whole in the extended copy, which was given up; the file is as it was";
        Error::input(cells, at, problem, super::hdf5::SAVE_AGAIN).of_kind(InputKind::Malformed)
    };
    let file = Hdf5::open(copy)?;
    for (at, content) in added {
        let found = match content {
            Content::Texts(_) => Content::Texts(file.texts(at)?),
            Content::Numbers(_) => Content::Numbers(file.values(at)?.digest().map_err(|_| lost(at))?),
        };
        if found != *content {
            return Err(lost(at));
        }
    }
    let after = survey(&file)?;
    let is_within =
        |at: &str, of: &str| at.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_replaced = |at: &str| {
        added.iter().any(|(new, _)| is_within(new, at) || is_within(at, new))
            || at.starts_with("uns/amatch/")
            || added.iter().any(|(new, _)| at.rsplit_once('/').is_some_and(|(group, _)| group == new))
    };
    match before.iter().find(|(at, described)| after.get(*at) != Some(described) && !is_replaced(at)) {
        Some((at, _)) => Err(lost(at)),
        None => Ok(()),
    }
}
