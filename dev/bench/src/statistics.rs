//! Medians and quantiles of a few runs.

/// The value below which `share` (0 to 1) of the values lie, by nearest rank;
/// not a number where there are none.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let below = |rank: usize| to_f64(rank) < share * to_f64(values.len());
    let rank = (1..values.len()).take_while(|rank| below(*rank)).count();
    values.get(rank).copied().unwrap_or(f64::NAN)
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// `median (lowest to highest)`, for a ratio of pairs.
pub(crate) fn spread(values: &[f64]) -> String {
    let of = |share| quantile(values.iter().copied(), share);
    format!("{:.2} ({:.2} to {:.2})", of(0.5), of(0.0), of(1.0))
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], share: f64, expected: f64) {
        let found = quantile(values.iter().copied(), share);
        assert!(
            (found - expected).abs() < 1e-9,
            "{share} of {values:?}: {found}"
        );
    }

    #[test]
    fn nearest_ranks() {
        let five = [5.0, 1.0, 4.0, 2.0, 3.0];
        check(&five, 0.0, 1.0);
        check(&five, 0.5, 3.0);
        check(&five, 0.99, 5.0);
        check(&five, 1.0, 5.0);
        check(&[1.0, 2.0, 3.0, 4.0], 0.5, 2.0);
        check(&[7.0], 0.99, 7.0);
        assert!(median([]).is_nan());
    }
}
