//! Whether an endpoint can be reached.
//!
//! What cannot be dialled is not tried again by those who ask: they are told at once, and one
//! probe in the background goes on asking until the endpoint answers. So an endpoint that is away
//! costs each image nothing once that is known, and comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::Error;

/// Asks the endpoint itself, not anything it has: whether somebody answers, else why not.
pub(crate) type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// Whether an endpoint can be reached, as known by all who ask it.
pub(crate) struct Reach {
    /// Why not, where it cannot.
    away: watch::Sender<Option<Error>>,
    /// Whether it is being asked in the background.
    asking: AtomicBool,
    probe: Probe,
    /// How long between two probes; zero: nothing is held off.
    pause: Duration,
}

impl Reach {
    pub(crate) fn new(probe: Probe, pause: Duration) -> Arc<Self> {
        Arc::new(Self { away: watch::Sender::new(None), asking: AtomicBool::new(false), probe, pause })
    }

    /// Whether it is known to be away.
    pub(crate) fn is_away(&self) -> bool {
        self.away.borrow().is_some()
    }

    /// What they are told who ask while it is known to be away.
    pub(crate) fn held_off(&self) -> Option<Error> {
        self.away.borrow().as_ref().map(held_off)
    }

    /// Completes with that when it is known to be away.
    pub(crate) async fn away(&self) -> Error {
        let mut away = self.away.subscribe();
        let why = away.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.as_ref().map(held_off)).unwrap_or(Error::Timeout)
    }

    /// It could not be dialled, and this is why.
    pub(crate) fn lost(self: &Arc<Self>, why: &Error) {
        if !self.pause.is_zero() {
            self.away.send_replace(Some(why.clone()));
            self.ask(true);
        }
    }

    /// It answers.
    pub(crate) fn found(&self) {
        if self.is_away() {
            self.away.send_replace(None);
        }
    }

    /// It says nothing for long: is it there at all? A path that is slow is none of this.
    pub(crate) fn doubt(self: &Arc<Self>) {
        if !self.pause.is_zero() {
            self.ask(false);
        }
    }

    /// Asks in the background, at once or after a pause, until it answers or nobody uses it any more.
    fn ask(self: &Arc<Self>, pause_first: bool) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, probe, pause) = (Arc::downgrade(self), Arc::clone(&self.probe), self.pause);
        tokio::spawn(async move {
            let mut wait = pause_first;
            loop {
                if wait {
                    tokio::time::sleep(pause).await;
                }
                if this.strong_count() == 0 {
                    return;
                }
                let failed = probe().await.err();
                let Some(this) = this.upgrade() else { return };
                let there = failed.is_none();
                // Whoever loses it from here on asks anew.
                if there {
                    this.asking.store(false, Ordering::Release);
                }
                this.away.send_if_modified(|away| std::mem::replace(away, failed).is_none() != there);
                if there {
                    return;
                }
                wait = true;
            }
        });
    }
}

fn held_off(why: &Error) -> Error {
    Error::HeldOff(Box::new(why.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test(start_paused = true)]
    async fn it_comes_back_by_itself() {
        let (asked, there) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, answers) = (Arc::clone(&asked), Arc::clone(&there));
        let probe: Probe = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let there = answers.load(Ordering::SeqCst);
            async move { if there { Ok(()) } else { Err(Error::Tls("unknown CA".to_owned())) } }.boxed()
        });
        let reach = Reach::new(probe, Duration::from_secs(1));
        reach.doubt();
        let why = reach.away().await.to_string();
        assert_eq!(why, "could not be reached a moment ago: TLS failed: unknown CA");
        for _ in 0..10 {
            reach.lost(&Error::Timeout);
        }
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        assert!(reach.is_away() && asked.load(Ordering::SeqCst) == 4, "one asks for all: {asked:?}");
        there.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!reach.is_away());
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 5, "and nobody asks any more");
        // Again, from the beginning.
        there.store(false, Ordering::SeqCst);
        reach.lost(&Error::Timeout);
        assert!(reach.is_away());
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 7);
        drop(reach);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 7, "nobody uses it any more");
    }
}
