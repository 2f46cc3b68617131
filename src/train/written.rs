//! A run whose models are written, for whoever makes a report of it.

use super::SelfTest;
use crate::config::Config;
use crate::data::Snapshots;
use crate::model::Model;
use crate::run_folder::RunFolder;

/// A run that is over: what [`Observer::report`](super::Observer::report) gets.
#[derive(Debug)]
pub struct Written<'a> {
    /// Its folder, which still belongs to the run.
    pub folder: &'a RunFolder,
    /// Its settings.
    pub config: &'a Config,
    /// The arithmetic of its engine ([`Engine::arithmetic`](crate::engine::Engine::arithmetic)).
    pub arithmetic: &'a str,
    /// Steps taken; of an ensemble, the mean over its members.
    pub steps: u64,
    /// One, or one for each condition.
    pub parts: Vec<Part<'a>>,
    /// The test that it ended with, if there is one.
    pub test: Option<&'a SelfTest>,
}

/// Models and what they were trained on.
#[derive(Debug)]
pub struct Part<'a> {
    /// The condition in words; empty without.
    pub condition: &'a str,
    /// The model, or the members of an ensemble, under the condition.
    pub models: Vec<Model>,
    /// The snapshots, in network coordinates.
    pub snapshots: &'a Snapshots,
}
