//! What may be spent on one image, whoever serves it.
//!
//! Whoever looks at an image does so within a [`Budget`]: every request and every byte that is
//! received on its behalf is taken from it, over all endpoints and retries. Work outside of any,
//! such as that of a command which copies layers, is bounded by each request's own limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Limits};

tokio::task_local! {
    static CURRENT: Arc<Budget>;
}

/// How many requests and bytes one image may still take.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    /// The budget of one image.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: AtomicUsize::new(limits.image_requests),
            bytes: AtomicUsize::new(limits.image_bytes),
        })
    }

    /// Does this work within the budget.
    pub async fn within<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Notes that a request is about to be sent.
    pub(crate) fn request() -> Result<(), Error> {
        let most =
            |budget: &Self| format!("more than {} requests for one image", budget.limits.image_requests);
        Self::take(|budget| &budget.requests, 1, most)
    }

    /// Notes that content was received.
    pub(crate) fn received(bytes: usize) -> Result<(), Error> {
        let most = |budget: &Self| format!("more than {} bytes for one image", budget.limits.image_bytes);
        Self::take(|budget| &budget.bytes, bytes, most)
    }

    fn take(
        of: impl Fn(&Self) -> &AtomicUsize,
        much: usize,
        over: impl Fn(&Self) -> String,
    ) -> Result<(), Error> {
        let taken = CURRENT.try_with(|budget| {
            let less = |left: usize| left.checked_sub(much);
            let left = of(budget).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            left.map(|_| ()).map_err(|_| Error::Limit(over(budget)))
        });
        // Outside of any, there is none to keep to.
        taken.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spent_is_spent_whoever_asks() {
        let limits = Limits { image_requests: 2, image_bytes: 10, ..Limits::DEFAULT };
        let budget = Budget::new(limits);
        let first = Arc::clone(&budget).within(async { (Budget::request(), Budget::received(9)) }).await;
        assert_eq!(first, (Ok(()), Ok(())));
        let second =
            budget.within(async { (Budget::request(), Budget::request(), Budget::received(2)) }).await;
        let over = |what: &str| Err(Error::Limit(format!("more than {what} for one image")));
        assert_eq!(second, (Ok(()), over("2 requests"), over("10 bytes")));
        assert_eq!(Budget::request(), Ok(()), "outside of any");
    }
}
