//! What a run has trained, loaded from its folder or from the file of one model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::data::{Components, Reduction};
use crate::ensemble::Ensemble;
use crate::error::{Error, InputKind, Result};
use crate::model::Model;
use crate::run_folder::RunFolder;

/// The models of a run, and what lies beside them.
///
/// ```no_run
/// use action_matching::Trained;
/// use action_matching::prelude::*;
///
/// let trained = Trained::load("runs/cells".as_ref())?;
/// let velocity = trained.models[0].velocity(&CpuEngine::new(0), &[0.5, -1.0], 0.5)?;
/// if let Some(ensemble) = trained.ensemble()? {
///     println!("{} members", ensemble.members().len());
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trained {
    /// The file of the first model.
    pub file: PathBuf,
    /// The model, or the members of an ensemble; at least one.
    pub models: Vec<Model>,
    /// The configuration beside the model, which says where its data are, if it can be read.
    pub config: Option<Config>,
    /// Why a configuration that is there cannot be read: a model does not need it.
    pub unread: Option<String>,
}

impl Trained {
    /// The model in the file `path`, or the model or all members of the run in the folder `path`.
    ///
    /// # Errors
    /// Errors of [`Model::load`] and, of an ensemble, of [`Ensemble::load`].
    pub fn load(path: &Path) -> Result<Trained> {
        let is_folder = path.is_dir();
        let run = RunFolder::new(if is_folder { path } else { path.parent().unwrap_or(Path::new("")) });
        let file = if is_folder { run.model() } else { path.to_owned() };
        let read = run.config().exists().then(|| Config::read(&run.config(), &[]).map_err(|error| error.to_string()));
        let (config, unread) = match read {
            Some(Ok(config)) => (Some(config), None),
            Some(Err(defect)) => (None, Some(defect)),
            None => (None, None),
        };
        let has_seeds = config.as_ref().is_some_and(|config| config.training.seeds > 1);
        let models = match is_folder && (has_seeds || run.member(2).model().exists()) {
            true => Ensemble::load(path)?.members().to_vec(),
            false => vec![Model::load(&file)?],
        };
        Ok(Trained { file, models, config, unread })
    }

    /// The models together, if there are several.
    ///
    /// # Errors
    /// As [`Ensemble::new`].
    pub fn ensemble(&self) -> Result<Option<Ensemble>> {
        (self.models.len() > 1).then(|| Ensemble::new(self.models.clone())).transpose()
    }

    /// The components that the models were trained on, which lie beside them; `None` if they were
    /// trained on columns of the data. Without a configuration those that are there are taken, if
    /// the dimensions of the models are called as theirs.
    ///
    /// # Errors
    /// [`Error::Input`] if they are missing, damaged, or not those of the models.
    pub fn components(&self) -> Result<Option<Arc<Components>>> {
        let (model, path) = (&self.models[0], self.run().loadings());
        let asked_for = self.config.as_ref().map(|config| config.data.components);
        let is_first = |config: &Config| matches!(config.source().components, Some(Reduction::First(_)));
        match asked_for {
            Some(None) => return Ok(None),
            _ if self.config.as_ref().is_some_and(is_first) => return Ok(None), // columns of the data
            None if !path.exists() => return Ok(None),
            Some(Some(count)) if !path.exists() => {
                let problem = format!("does not exist, but the model was trained on {count} components");
                let fix = "copy it from the run folder to the folder of the model";
                return Err(Error::input(&path, "path", problem, fix).of_kind(InputKind::Missing));
            }
            _ => {}
        }
        let components = Components::load(&path)?;
        if model.coordinates.columns == Some(components.names()) {
            return Ok(Some(Arc::new(components)));
        }
        if asked_for.is_none() {
            return Ok(None); // of another model
        }
        let (count, dim) = (components.count(), model.architecture.dim);
        let problem = format!("has {count} components, and the model {dim} dimensions");
        let fix = "restore the files of the run: both are written by one training";
        Err(Error::input(&path, "loadings", problem, fix))
    }

    /// The files that say what was trained: those of the models, and of components if there are
    /// any.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let run = self.run();
        let later = (2..=self.models.len()).map(|number| run.member(number).model());
        let loadings = Some(run.loadings()).filter(|path| path.exists());
        std::iter::once(self.file.clone()).chain(later).chain(loadings).collect()
    }

    /// The folder of the models.
    fn run(&self) -> RunFolder {
        RunFolder::new(self.file.parent().unwrap_or(Path::new("")))
    }
}
