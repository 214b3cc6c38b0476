//! What is printed of many times.

use std::time::Duration;

/// Times in ascending order.
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many a second, if all of them were within this time.
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    pub fn rate(&self, within: Duration) -> f64 {
        self.0.len() as f64 / within.as_secs_f64()
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        Self::of(self.0)
    }

    /// The time that this share (per mille) of all are not above, in milliseconds.
    pub fn percentile(&self, per_mille: usize) -> f64 {
        let index = (self.0.len() * per_mille / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::of((1..=1000).rev().map(Duration::from_millis).collect());
        assert!((times.percentile(500) - 501.0).abs() < 1e-9);
        assert!((times.percentile(990) - 991.0).abs() < 1e-9);
        assert!((times.percentile(1000) - 1000.0).abs() < 1e-9);
        assert!(Times::of(vec![]).percentile(500).is_nan());
        assert!((times.rate(Duration::from_secs(2)) - 500.0).abs() < 1e-9);
        let more = times.and(Times::of(vec![Duration::ZERO]));
        assert!((more.percentile(0)).abs() < 1e-9 && (more.percentile(1000) - 1000.0).abs() < 1e-9);
    }
}
