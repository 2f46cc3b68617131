//! The test of an ensemble: each property as its worst member has it.

use super::{Check, SelfTest, Verdict};

impl SelfTest {
    /// The test of an ensemble whose members have the tests `members`; their seeds count up from
    /// `seed`. Each check is that of the worst member, and its message says how many members do not
    /// pass and names their seeds. The test of a single member is its own; `None` without members.
    pub(in crate::train) fn of_members(mut members: Vec<SelfTest>, seed: u64) -> Option<SelfTest> {
        if members.len() < 2 {
            return members.pop();
        }
        let of_members =
            |name: &str| -> Vec<Check> { members.iter().filter_map(|test| test.check(name)).cloned().collect() };
        let checks: Vec<Check> =
            members[0].checks.iter().filter_map(|check| worst(&of_members(&check.name), seed)).collect();
        let rank = |test: &&SelfTest| rank(test.verdict);
        let worst = members.iter().rev().max_by_key(rank)?;
        let (steps, verdict, motions) = (worst.steps, worst.verdict, worst.motions.clone());
        Some(SelfTest { steps, verdict, checks, motions, unexplained: None, members })
    }
}

/// How bad a verdict is.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::NotApplicable => 0,
        Verdict::Passed => 1,
        Verdict::Noticed => 2,
        Verdict::Failed => 3,
    }
}

/// The worst of the same check of all members.
fn worst(checks: &[Check], seed: u64) -> Option<Check> {
    // A check that is not passed without a number was not finite.
    let badness = |check: &Check| (rank(check.verdict), check.value.unwrap_or(f64::INFINITY));
    let mut worst = checks.first()?;
    for check in &checks[1..] {
        let (found, so_far) = (badness(check), badness(worst));
        if found.0 > so_far.0 || found.0 == so_far.0 && found.1 > so_far.1 {
            worst = check;
        }
    }
    let mut worst = worst.clone();
    if let (Verdict::Noticed | Verdict::Failed, Some(message)) = (worst.verdict, &mut worst.message) {
        let with = checks.iter().enumerate().filter(|(_, check)| check.verdict == worst.verdict);
        let seeds: Vec<String> = with.map(|(k, _)| seed.wrapping_add(k as u64).to_string()).collect();
        let (n, all) = (seeds.len(), checks.len());
        *message = match n == all {
            true => format!("all {all} members (the worst is described): {message}"),
            false => format!(
                "{n} of {all} members (training.seed = {}; the worst is described): {message}",
                seeds.join(", ")
            ),
        };
    }
    Some(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(values: [(Verdict, Option<f64>); 2]) -> SelfTest {
        let check = |name: &'static str, (verdict, value): (Verdict, Option<f64>)| Check {
            name: name.into(),
            verdict,
            value,
            threshold: 1.0,
            meaning: "".into(),
            message: (verdict != Verdict::Passed).then(|| format!("{name} is {value:?}")),
        };
        let checks = vec![check("motion", values[0]), check("range", values[1])];
        let verdict = values.iter().map(|(verdict, _)| *verdict).max_by_key(|verdict| rank(*verdict));
        let verdict = verdict.expect("two of them");
        SelfTest { steps: 10, verdict, checks, motions: Vec::new(), unexplained: None, members: Vec::new() }
    }

    #[test]
    fn an_ensemble_is_as_good_as_its_worst_member_which_is_named() {
        use Verdict::{Failed, NotApplicable, Passed};
        let good = test([(Passed, Some(0.5)), (NotApplicable, None)]);
        let bad = test([(Failed, Some(2.0)), (NotApplicable, None)]);
        let lost = test([(Failed, None), (NotApplicable, None)]);
        let one = SelfTest::of_members(vec![bad.clone()], 7).expect("one");
        assert_eq!(one, bad);
        let all = SelfTest::of_members(vec![good.clone(), bad.clone(), good.clone(), lost.clone()], 7).expect("four");
        assert_eq!((all.verdict, all.members.len()), (Failed, 4));
        let motion = all.check("motion").expect("a check");
        assert_eq!((motion.verdict, motion.value), (Failed, None));
        let message = motion.message.as_deref().unwrap_or_default();
        assert!(message.starts_with("2 of 4 members (training.seed = 8, 10;"), "{message}");
        assert!(message.ends_with("motion is None"), "{message}");
        assert_eq!(all.check("range").and_then(|check| check.message.clone()), Some("range is None".into()));
        let passed = SelfTest::of_members(vec![good.clone(), good], 7).expect("two");
        assert_eq!((passed.verdict, passed.warnings().count()), (Passed, 0));
        let failed = SelfTest::of_members(vec![lost, bad], 7).expect("two");
        assert!(failed.warnings().all(|message| message.starts_with("all 2 members")), "{failed:?}");
    }
}
