//! The tests of library and program that need no GPU: one test program, so that linking happens
//! once.

#[path = "../common/mod.rs"]
mod common;
#[path = "../data_support/mod.rs"]
mod data_support;

mod analytic;
mod anndata;
mod annotate;
mod architecture;
mod build_script;
#[cfg(unix)]
mod card;
mod check;
mod cli;
mod components;
mod conditions;
mod data_bad_input;
mod data_formats;
mod data_precision;
mod data_tables;
mod derivatives;
mod divided;
mod early_stopping;
mod engines;
#[cfg(unix)]
mod ensemble;
mod estimators;
mod evaluate;
mod events;
mod examples;
mod flags;
mod front_door;
mod generative;
mod growing;
mod growth_head;
mod hold_out;
mod ids;
mod integrate;
mod interop;
#[cfg(unix)]
mod interrupt;
#[cfg(unix)]
mod kill;
mod known_fields;
#[cfg(unix)]
mod launchers;
mod learned_path;
#[cfg(unix)]
mod messages;
mod model_file;
mod onnx;
#[cfg(unix)]
mod outputs;
#[cfg(feature = "parquet")]
mod parquet;
mod query;
mod report;
#[cfg(unix)]
mod resume;
mod rounded;
#[cfg(unix)]
mod run_folder;
mod selftest;
#[cfg(unix)]
mod shell;
mod snapshots;
mod stochastic;
#[cfg(unix)]
mod streams;
mod trained;
mod training;
mod validate;
mod weights;
