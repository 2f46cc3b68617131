//! The report of a run as a page: pictures of data, particles and flow, curves of the training,
//! scores, the run's own test, settings and where all of it comes from.
//!
//! One file that works without a network and without scripts, in light and dark. Points are
//! thinned evenly, so that its size is bounded: less than a megabyte, without conditions. Pictures
//! cost what some dozens of steps of training do, whatever the data.

mod colored;
mod figure;
mod flow;
mod motion;
mod moved;
mod page;
mod population;
mod provenance;
mod tables;

pub use figure::Figure;
pub use population::Population;
pub use provenance::{name_of, provenance};

use self::population::Plane;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::evaluate::Report;
use crate::evenly::evenly;
use crate::model::Model;
use crate::stage::Watch;
use crate::train::{Metrics, Part, SelfTest, Written, curves, read_metrics};

/// Models with the data to show them on: all of a run, or those under one condition.
#[derive(Clone, Debug)]
pub struct View {
    /// The condition in words; empty without.
    pub name: String,
    /// The model, or the members of an ensemble; none of a run that has not saved one yet. Under a
    /// condition, if they depend on one.
    pub members: Vec<Model>,
    /// The data, if there are any.
    pub population: Option<Population>,
}

/// What a report is about. What is missing is left out of the page, and belongs into `notes`.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Name of the run.
    pub title: String,
    /// Steps taken, and steps that were asked for.
    pub steps: [u64; 2],
    /// One, or one for each condition that is shown.
    pub views: Vec<View>,
    /// The two dimensions that are drawn, counted from 0; the first two if `None`.
    pub axes: Option<[usize; 2]>,
    /// Loss and other metrics over the steps.
    pub metrics: Vec<Metrics>,
    /// The test that the run ended with.
    pub test: Option<SelfTest>,
    /// Scores, each with the condition in words.
    pub scores: Vec<(String, Report)>,
    /// The configuration, TOML.
    pub configuration: Option<String>,
    /// Names and values: files, versions, digests.
    pub provenance: Vec<(String, String)>,
    /// What is missing, and why, one sentence each.
    pub notes: Vec<String>,
}

/// How much is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Three times of each figure: what a run draws when it ends.
    Quick,
    /// Six.
    Full,
}

/// A report, drawn.
#[derive(Clone, Debug)]
pub struct Page {
    /// The page.
    pub html: String,
    /// Its figures, each once more for papers.
    pub figures: Vec<Figure>,
}

/// Draws a figure of a view, with so many panels at most.
type Draw = fn(&dyn Engine, &View, &Plane, usize) -> Result<Option<Figure>>;

impl Page {
    /// Draws `subject`. A figure that cannot be drawn, as when the model loses its particles, is a
    /// sentence on the page.
    ///
    /// # Errors
    /// [`Error::Setting`] for axes that the models do not have; [`Error::Interrupted`] if the watch
    /// cancels; errors of the device.
    pub fn draw(engine: &dyn Engine, subject: &Subject, detail: Detail, watch: &dyn Watch) -> Result<Page> {
        let most = match detail {
            Detail::Quick => 3,
            Detail::Full => 6,
        };
        let (mut drawn, mut problems) = (Vec::new(), Vec::new());
        for view in &subject.views {
            let plane = plane(view, subject.axes)?;
            // Panels stand in rows of three, after two of data and ways, or that of the mass.
            let figures: [(&str, Draw, usize); 4] = [
                ("data and particles", motion::figure, most - 2),
                ("the flow", flow::figure, most),
                ("growth", colored::growth, most - 1),
                ("the disagreement of members", colored::spread, 3),
            ];
            let mut of_view = Vec::new();
            for (name, draw, most) in figures {
                if watch.is_cancelled() {
                    return Err(Error::Interrupted);
                }
                match draw(engine, view, &plane, most) {
                    Ok(figure) => of_view.extend(figure),
                    Err(error @ Error::Device { .. }) => return Err(error),
                    Err(error) => problems.push(format!("There is no picture of {name}: {error}")),
                }
            }
            drawn.push((view.name.clone(), of_view));
        }
        let html = page::html(subject, &drawn, &problems);
        let is_single = drawn.len() == 1;
        let mut figures = Vec::new();
        for (number, (name, of_view)) in (1..).zip(drawn) {
            for figure in of_view {
                let own = if is_single { figure.name.clone() } else { format!("{}-{number}", figure.name) };
                let title = if is_single { figure.title.clone() } else { format!("{} under {name}", figure.title) };
                figures.push(Figure { name: own, title, ..figure });
            }
        }
        figures.extend(subject.curves());
        Ok(Page { html, figures })
    }
}

impl Subject {
    /// Conditions that the report at the end of a run shows, at most.
    const SHOWN: usize = 3;

    /// The subject of the report that a run ends with: what it was trained on, without scores.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Input`] if the files of the run cannot be read.
    pub fn of_run(written: &Written<'_>) -> Result<Subject> {
        let Written { folder, config, steps, parts, test, .. } = written;
        let view = |k: usize| {
            let Part { condition, models, snapshots } = &parts[k];
            let of = |model: &Model| Population::of_network(snapshots, &model.coordinates);
            View { name: (*condition).into(), members: models.clone(), population: models.first().map(of) }
        };
        let (shown, note) = shown_conditions(parts.len(), Self::SHOWN);
        let mut notes = vec![
            "This is the short report that a training ends with. `amatch report` adds scores with their floors, and \
             draws more times."
                .to_string(),
        ];
        notes.extend(note);
        let mut provenance = provenance(folder, &folder.model(), Some(config))?;
        provenance.push(("arithmetic".into(), written.arithmetic.into()));
        Ok(Subject {
            title: name_of(folder.path()),
            steps: [*steps, config.training.steps],
            views: shown.into_iter().map(view).collect(),
            axes: None,
            metrics: read_metrics(&folder.metrics(), |_| ())?,
            test: test.cloned(),
            scores: Vec::new(),
            configuration: Some(config.to_toml()?),
            provenance,
            notes,
        })
    }

    /// The line below the title.
    fn lead(&self) -> String {
        let Some(view) = self.views.first() else { return "A run without a model yet".into() };
        let mut parts = Vec::new();
        if let Some(model) = view.members.first() {
            let dim = model.architecture.dim;
            parts.push(format!("{dim} dimension{}", if dim == 1 { "" } else { "s" }));
            let objective = &model.objective;
            if objective.sigma > 0.0 {
                parts.push(format!("diffusion {}", objective.sigma));
            }
            if objective.growth > 0.0 {
                let head = if model.growth_head.is_some() { " by a network of its own" } else { "" };
                parts.push(format!("growth {}{head}", objective.growth));
            }
            let conditions: Vec<&str> = model.coordinates.conditions.iter().map(|condition| condition.name()).collect();
            if !conditions.is_empty() {
                parts.push(format!("conditions {}", conditions.join(", ")));
            }
        } else {
            parts.push("no model yet".into());
        }
        if view.members.len() > 1 {
            parts.push(format!("an ensemble of {} members", view.members.len()));
        }
        let rows: usize = self.views.iter().filter_map(|view| view.population.as_ref()).map(Population::count).sum();
        if let Some(population) = &view.population {
            let [first, last] = population.span();
            let n = population.n_snapshots;
            parts.push(match n {
                1 => format!("1 snapshot of {rows} rows"),
                n => format!("{n} snapshots of {rows} rows in all, from time {first} to {last}"),
            });
        }
        parts.join(" · ")
    }

    /// The curves of the training.
    fn curves(&self) -> Option<Figure> {
        let unexplained = self.test.as_ref().and_then(|test| test.unexplained);
        let panels = curves(&self.metrics, unexplained);
        let mut caption = String::from(
            "Gray: means of a few steps; blue: a mean over a twentieth of the run. The loss lacks a constant, so it is usually \
             negative and zero means nothing: it is good when it has stopped falling. ",
        );
        if unexplained.is_some() {
            caption += "What is left of the path's kinetic energy can be judged: 0 % is a model that moves every particle as \
                        the path does; where paths cross, no model can. ";
        }
        if self.views.first().is_some_and(|view| view.members.len() > 1) {
            caption += "The curves are those of the first member, the share that of the worst. ";
        }
        caption += "The axes leave out the most extreme 2 % of the points.";
        (!panels.is_empty()).then(|| Figure::new("training", "Training", panels, caption))
    }
}

/// Which of `n` conditions are shown if there may be `most`, and a sentence if that is not all.
#[must_use]
pub fn shown_conditions(n: usize, most: usize) -> (Vec<usize>, Option<String>) {
    let shown = evenly(n, most);
    let note = (shown.len() < n).then(|| format!("{} of {n} conditions are shown, evenly chosen.", shown.len()));
    (shown, note)
}

/// What the axes of a view are.
fn plane(view: &View, axes: Option<[usize; 2]>) -> Result<Plane> {
    let basis = view.population.as_ref().and_then(|population| population.basis.clone());
    let dim = view.members.first().map_or(usize::MAX, |model| model.architecture.dim);
    match (basis, dim, axes) {
        (Some(basis), ..) => Ok(Plane::Basis(basis)),
        (None, 1, None) => Ok(Plane::Time),
        (None, _, axes) => {
            let [i, j] = axes.unwrap_or([0, 1]);
            if i == j || i >= dim || j >= dim {
                let problem =
                    format!("are {i} and {j}, but the model has {dim} dimension{}", if dim == 1 { "" } else { "s" });
                let fix = match dim {
                    1 => "leave them out: one dimension is drawn against time".to_string(),
                    dim => format!("name two different ones from 0 to {}", dim - 1),
                };
                return Err(Error::setting("report", "axes", problem, fix));
            }
            Ok(Plane::Axes([i, j]))
        }
    }
}
