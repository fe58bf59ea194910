//! The pace of an integration, which all its lanes keep together: upstream's limit is one for the account.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// See the module. A clone is the same pace.
#[derive(Clone, Debug)]
pub struct SharedPace {
    pushes_per_second_max: f64,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    pace: Pace,
    /// When the last push began, in whatever lane.
    last: Option<Instant>,
}

impl SharedPace {
    /// A pace of at most `pushes_per_second_max`; 0 sets no limit.
    #[must_use]
    pub fn new(pushes_per_second_max: f64) -> SharedPace {
        let kept = Kept { pace: Pace::new(pushes_per_second_max), last: None };
        SharedPace { pushes_per_second_max, kept: Arc::new(Mutex::new(kept)) }
    }

    /// As it was made.
    #[must_use]
    pub fn pushes_per_second_max(&self) -> f64 {
        self.pushes_per_second_max
    }

    /// The least time between two pushes as it stands.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.lock().pace.interval()
    }

    /// Takes the turn of the next push, which must begin now; or says how long to wait before asking again.
    pub(super) fn turn(&self) -> Result<(), Duration> {
        let mut kept = self.lock();
        let interval = kept.pace.interval();
        let delay =
            kept.last.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()));
        if !delay.is_zero() {
            return Err(delay);
        }
        kept.last = Some(Instant::now());
        Ok(())
    }

    /// Changes the pace after an answer.
    pub(super) fn change(&self, change: impl FnOnce(&mut Pace)) {
        change(&mut self.lock().pace);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four lanes that push as fast as they may are together no faster than one; a 429 in one slows them all.
    #[tokio::test(start_paused = true)]
    async fn lanes_keep_one_pace_together() {
        let pace = SharedPace::new(4.0);
        let begun = Instant::now();
        let lanes = (0..4).map(|_| {
            let pace = pace.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    while let Err(delay) = pace.turn() {
                        tokio::time::sleep(delay).await;
                    }
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        let spent = begun.elapsed();
        let fair = Duration::from_millis(250) * 39;
        assert!(spent >= fair && spent < fair + Duration::from_millis(200), "{spent:?}");
        pace.change(Pace::slow_down);
        assert!(pace.turn().unwrap_err() > Duration::from_millis(490));
        assert_eq!(pace.interval(), Duration::from_millis(500));
        assert!(SharedPace::new(0.0).turn().is_ok());
    }
}
