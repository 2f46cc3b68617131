//! `--devices`: several GPUs for one command.

use std::fmt;

use action_matching::engine::Engine;
use action_matching::engine::cuda::{CudaEngine, n_devices};
use action_matching::engine::divided::Divided;
use action_matching::precision::Precision;
use action_matching::ranks::environment::World;
use action_matching::{DeviceKind, Error};

use super::device::{DeviceArguments, DeviceEngine};

#[derive(clap::Args)]
pub struct DevicesArguments {
    #[command(flatten)]
    one: DeviceArguments,
    /// Several GPUs of this machine instead of one, by their numbers in `amatch devices`: 0-3, 0,2
    /// or all. They must be of one kind; how many there are does not change results
    #[arg(long, value_name = "LIST", value_parser = DeviceList::parse, conflicts_with = "device")]
    devices: Option<DeviceList>,
}

impl DevicesArguments {
    /// The numbers of the GPUs, if several were asked for by name: one at least.
    pub fn ordinals(&self) -> action_matching::Result<Option<Vec<usize>>> {
        self.devices.as_ref().map(|list| list.among(n_devices()?)).transpose()
    }

    /// An engine that divides particles among the GPUs; without `--devices` that of `--device`.
    pub fn engine(&self) -> action_matching::Result<Box<dyn Engine>> {
        let Some(ordinals) = self.ordinals()? else { return self.one.engine() };
        let precision = self.one.precision().unwrap_or_default();
        let engines = ordinals.into_iter().map(|ordinal| CudaEngine::new(ordinal, precision));
        let mut engines = engines.collect::<action_matching::Result<Vec<_>>>()?;
        Ok(if engines.len() == 1 { Box::new(engines.remove(0)) } else { Box::new(Divided::new(engines)?) })
    }

    /// The engine of this process of a training: on the first of `--devices`, of a rank of `world`
    /// on its own GPU, else of `--device`.
    pub fn open(&self, world: Option<&World>, precision: Precision) -> action_matching::Result<DeviceEngine> {
        match (self.ordinals()?.as_deref(), world) {
            (Some([first, ..]), _) => self.one.on(*first).open(precision),
            (_, Some(world)) if self.one.is_any_gpu() => self.one.on(world.device(n_devices()?)?).open(precision),
            _ => self.one.open(precision),
        }
    }

    /// [`DeviceArguments::again`] of all devices.
    pub fn again(&self) -> String {
        let devices = self.devices.as_ref().map_or_else(String::new, |list| format!(" --devices {list}"));
        devices + &self.one.again()
    }

    /// [`DeviceArguments::threads`].
    pub fn threads(&self) -> usize {
        self.one.threads()
    }
}

/// GPUs as a command line names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceList {
    /// All that there are.
    All,
    /// Those with these numbers, in this order, each once.
    Numbers(Vec<usize>),
}

impl DeviceList {
    /// Numbers below this are those of GPUs: no machine has as many.
    const MOST: usize = 1024;

    /// The list that `text` is, as in `0-3`, `0,2,5-7` or `all`.
    pub fn parse(text: &str) -> Result<DeviceList, String> {
        const FORM: &str = "write 0-3, 0,2,5 or all";
        if text.trim() == "all" {
            return Ok(DeviceList::All);
        }
        let mut numbers = Vec::new();
        for item in text.split(',').map(str::trim) {
            let number = |text: &str| match text.trim().parse::<usize>() {
                Ok(number) if number < DeviceList::MOST => Ok(number),
                Ok(number) => Err(format!("no machine has a GPU {number}")),
                Err(_) if item.is_empty() => Err(format!("a number is missing ({FORM})")),
                Err(_) => Err(format!("{item:?} is no number of a GPU ({FORM})")),
            };
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(item)?, number(item)?),
            };
            if last < first {
                return Err(format!("{item} counts down (write {last}-{first})"));
            }
            numbers.extend(first..=last);
        }
        let again = |(k, number): (usize, &usize)| numbers[..k].contains(number).then_some(*number);
        match numbers.iter().enumerate().find_map(again) {
            Some(twice) => Err(format!("names GPU {twice} twice")),
            None => Ok(DeviceList::Numbers(numbers)),
        }
    }

    /// The GPUs of the list, of `n_devices` that there are.
    fn among(&self, n_devices: usize) -> action_matching::Result<Vec<usize>> {
        let numbers = match self {
            DeviceList::All => (0..n_devices).collect(),
            DeviceList::Numbers(numbers) => numbers.clone(),
        };
        let absent: Vec<String> = numbers.iter().filter(|&&number| number >= n_devices).map(usize::to_string).collect();
        let there_are = match n_devices {
            0 => "the NVIDIA driver sees none".to_owned(),
            1 => "there is one, 0".to_owned(),
            _ => format!("there are {n_devices}, 0 to {}", n_devices - 1),
        };
        if absent.is_empty() && !numbers.is_empty() {
            return Ok(numbers);
        }
        Err(Error::Device {
            kind: DeviceKind::Unavailable,
            device: format!("--devices {self}"),
            problem: match &absent[..] {
                [] => format!("there are no GPUs: {there_are}"),
                absent => format!("GPU {} is not there: {there_are}", absent.join(", ")),
            },
            fix: "`amatch devices` lists them".into(),
        })
    }
}

impl fmt::Display for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceList::All => f.write_str("all"),
            DeviceList::Numbers(numbers) => {
                f.write_str(&numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<usize> {
        DeviceList::parse(text).and_then(|list| list.among(8).map_err(|error| error.to_string())).expect(text)
    }

    #[test]
    fn lists_name_gpus_in_every_form() {
        for (text, expected) in [
            ("0", vec![0]),
            ("0-3", vec![0, 1, 2, 3]),
            ("0,2,5", vec![0, 2, 5]),
            ("6-7,0", vec![6, 7, 0]),
            (" 1 - 2 , 4 ", vec![1, 2, 4]),
            ("3-3", vec![3]),
            ("all", (0..8).collect()),
        ] {
            assert_eq!(numbers(text), expected, "{text}");
        }
        for text in ["all", "0,2,5"] {
            assert_eq!(DeviceList::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_form() {
        for (text, words) in [
            ("", "a number is missing (write 0-3, 0,2,5 or all)"),
            ("0,,1", "a number is missing"),
            ("0,", "a number is missing"),
            ("cuda:1", "\"cuda:1\" is no number of a GPU (write 0-3"),
            ("-1", "\"-1\" is no number"),
            ("1-", "\"1-\" is no number"),
            ("0-1-2", "\"0-1-2\" is no number"),
            ("ALL", "\"ALL\" is no number"),
            ("3-1", "3-1 counts down (write 1-3)"),
            ("0-3,2", "names GPU 2 twice"),
            ("1,1", "names GPU 1 twice"),
            ("0-99999999999", "no machine has a GPU 99999999999"),
            ("0-99999999999999999999999", "is no number"),
        ] {
            let message = DeviceList::parse(text).expect_err(text);
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn gpus_that_are_not_there_are_named_with_those_that_are() {
        for (text, n_devices, words) in [
            ("0-3", 2, "--devices 0,1,2,3: GPU 2, 3 is not there: there are 2, 0 to 1 (`amatch devices` lists them)"),
            ("1", 1, "GPU 1 is not there: there is one, 0"),
            ("0", 0, "GPU 0 is not there: the NVIDIA driver sees none"),
            ("all", 0, "--devices all: there are no GPUs: the NVIDIA driver sees none"),
        ] {
            let list = DeviceList::parse(text).expect(text);
            let message = list.among(n_devices).expect_err(text).to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
