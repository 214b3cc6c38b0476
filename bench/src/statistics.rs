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

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
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
    }
}
