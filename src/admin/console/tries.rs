//! PURE. How many wrong tokens are looked at: a few at once, then one now and then.
//!
//! Nobody guesses 32 random bytes; a token that somebody chose may be worse than it looks. Everybody shares one allowance, as
//! everybody comes from this host: who floods the console with wrong tokens keeps others from signing in, not those who have.

use std::time::Duration;

/// Wrong tokens that are looked at in a row.
const BURST: u32 = 10;
/// One more after so long.
const REFILL: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    used: u32,
    /// Of `used`, how far the clock had come when it last became less.
    since: Duration,
}

impl Tries {
    /// Takes one try at `now`, a clock that never steps back; else how long to wait for one.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.since);
        let back = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        self.used = self.used.saturating_sub(back);
        self.since = if self.used == 0 { now } else { self.since + REFILL * back };
        if self.used >= BURST {
            return Err(REFILL.saturating_sub(now.saturating_sub(self.since)));
        }
        self.used += 1;
        Ok(())
    }

    /// The try that was taken was right: all are given back.
    pub(super) fn right(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tries_run_out_and_come_back_one_by_one() {
        let seconds = Duration::from_secs;
        let mut tries = Tries::default();
        for _ in 0..BURST {
            tries.take(seconds(100)).unwrap();
        }
        assert_eq!(tries.take(seconds(100)), Err(REFILL));
        assert_eq!(tries.take(seconds(102)), Err(seconds(1)));
        tries.take(seconds(103)).unwrap();
        assert_eq!(tries.take(seconds(103)), Err(REFILL));
        let mut taken = 0;
        while tries.take(seconds(1000)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, BURST);
        tries.right();
        tries.take(seconds(1000)).unwrap();
        tries.take(Duration::MAX).unwrap();
    }
}
