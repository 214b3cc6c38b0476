//! The time and the randomness of one request.

use jiff::Timestamp;

use crate::random::Numbers;
use crate::time::Time;

/// When a request is judged, and what its random texts are drawn from.
///
/// Both are frozen for a request: a rule that is evaluated again, because a fact was missing or
/// because the other webhook asks, comes to the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What `time_now` and its kind say.
    pub now: Timestamp,
    /// What `random` draws from: the same for a request, another for the next one, and nothing
    /// that the one who asks can choose.
    pub seed: u64,
}

impl Moment {
    /// The moment as it is for one expression: another one draws other texts.
    pub(crate) fn of_text(self, text: &str) -> Self {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { seed: self.seed ^ text.bytes().fold(0xcbf2_9ce4_8422_2325, mix), ..self }
    }

    /// Numbers for one call; the next call gets others.
    pub(crate) fn numbers(&mut self) -> Numbers {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Numbers(self.seed)
    }

    pub(crate) fn time(self) -> Time {
        Time::unix(self.now.as_nanosecond())
    }
}
