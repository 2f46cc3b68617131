//! Messages of the library name settings as the library has them; users of the program have flags.

/// Names of settings in the library's messages, each with the flag that sets it.
const FLAGS: [(&str, &str); 23] = [
    ("`Model::under`", "--condition"),
    ("`Plan::t0, Plan::save_at`", "--t0/--t1/--save-at"),
    ("`Plan::t0`", "--t0/--t1"),
    ("`Plan::save_at`", "--save-at"),
    ("`Plan::method`", "--method"),
    ("`Plan::noise`", "noise"),
    ("`Method::Rk4`", "--method rk4"),
    ("`Method::Dopri5`", "--method dopri5"),
    ("`StepControl::Fixed`", "--steps"),
    ("`StepControl::Adaptive`", "--rtol/--atol"),
    ("`Trajectories::log_density`", "log-density"),
    ("`EvaluateOptions::max_comparisons`", "--all"),
    ("`EvaluateOptions::max_points`", "--points"),
    ("`evaluate::held_out`", "--held-out"),
    ("`StartFrom::Noise`", "--start noise"),
    ("`Replace::Files`", "--force"),
    ("`AnnotateOptions::replace`", "--force"),
    ("`AnnotateOptions::labels`", "--fates"),
    ("`Existing::Replace`", "--force"),
    ("`Existing::Resume`", "--resume"),
    ("the `CpuEngine`", "--device cpu"),
    ("`output.folder`", "--out"),
    ("`overrides`", "--set"),
];

/// `message` of the library with the flags of the program.
pub fn named(message: String) -> String {
    if !message.contains('`') {
        return message;
    }
    FLAGS.iter().fold(message, |message, (setting, flag)| message.replace(setting, flag))
}
