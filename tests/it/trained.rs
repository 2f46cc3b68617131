//! What a run has trained, as the library, the program and Python load it.

use std::fs;

use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::train::RunFolder;
use action_matching::{InputKind, Trained};

use crate::common::model;

/// A model without symmetry, and one that differs from it.
fn two_models() -> [Model; 2] {
    let first = model(2, &[5], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let mut second = first.clone();
    second.parameters[0] += 0.5;
    [first, second]
}

#[test]
fn a_file_is_one_model_and_a_folder_is_all_of_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = RunFolder::new(folder.path());
    let [first, second] = two_models();
    first.save(&run.model()).expect("saved");
    let alone = Trained::load(folder.path()).expect("loads");
    assert_eq!((alone.models.len(), &alone.file), (1, &run.model()));
    assert!(alone.config.is_none() && alone.unread.is_none() && alone.ensemble().expect("fits").is_none());

    fs::write(run.config(), "[data]\npath = \"cells.csv\"\n[training]\nseeds = 2\n").expect("written");
    let missing = Trained::load(folder.path()).expect_err("a member is missing").to_string();
    assert!(missing.contains("model-2.safetensors") && missing.contains("2 members"), "{missing}");
    second.save(&run.member(2).model()).expect("saved");
    let both = Trained::load(folder.path()).expect("loads");
    assert_eq!(both.models[1].parameters, second.parameters);
    assert_eq!(both.files(), [run.model(), run.member(2).model()]);
    assert_eq!(both.ensemble().expect("fits").map(|ensemble| ensemble.members().len()), Some(2));
    assert_eq!(both.config.map(|config| config.training.seeds), Some(2));
    // The file of a member is that model, with the configuration beside it.
    let one = Trained::load(&run.member(2).model()).expect("loads");
    assert_eq!((one.models.len(), &one.models[0].parameters), (1, &second.parameters));
    assert!(one.config.is_some() && one.files() == [run.member(2).model()]);
}

/// Models do not need their configuration: what is wrong with it is said, and they are there.
/// Without it, the files say how many there are.
#[test]
fn a_defect_of_the_configuration_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = RunFolder::new(folder.path());
    let [first, second] = two_models();
    first.save(&run.model()).expect("saved");
    second.save(&run.member(2).model()).expect("saved");
    fs::write(run.config(), "[data]\npath = 3\n").expect("written");
    let trained = Trained::load(folder.path()).expect("loads");
    assert_eq!((trained.models.len(), trained.config.is_none()), (2, true));
    let defect = trained.unread.expect("a defect");
    assert!(defect.contains("config.toml") && defect.contains("data.path"), "{defect}");
}

#[test]
fn components_must_lie_beside_a_model_that_was_trained_on_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = RunFolder::new(folder.path());
    two_models()[0].save(&run.model()).expect("saved");
    assert!(Trained::load(folder.path()).expect("loads").components().expect("none").is_none());
    fs::write(run.config(), "[data]\npath = \"cells.csv\"\ncomponents = 2\n").expect("written");
    let error = Trained::load(folder.path()).expect("loads").components().expect_err("are missing");
    assert!(matches!(error, action_matching::Error::Input { kind: InputKind::Missing, .. }), "{error}");
    assert!(error.to_string().contains("loadings.safetensors: path: does not exist"), "{error}");
}
