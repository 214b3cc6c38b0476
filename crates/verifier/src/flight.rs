//! One flight at a time, and answers held for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// Answers that are held at a time.
const MOST_HELD: usize = 1024;

/// Work that is done once for everybody who asks for it at the same time.
///
/// A flight goes on when all who wait for it have given up: the answer is of use to the next.
pub struct Flights<K, V: Clone> {
    state: Arc<Mutex<State<K, V>>>,
}

struct State<K, V: Clone> {
    flying: HashMap<K, Shared<BoxFuture<'static, Option<V>>>>,
    held: HashMap<K, (V, Duration)>,
}

impl<K, V> Default for Flights<K, V>
where
    V: Clone,
{
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { flying: HashMap::new(), held: HashMap::new() })) }
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The answer that is held for this key at this moment.
    pub fn held(&self, key: &K, now: Duration) -> Option<V> {
        lock(&self.state).held.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// The answer held, that of the flight under way, or that of a new one.
    ///
    /// `hold` says until when an answer is held, if at all. `None` if the work panicked.
    pub async fn run<F>(
        &self,
        key: K,
        now: Duration,
        work: F,
        hold: impl FnOnce(&V) -> Option<Duration> + Send + 'static,
    ) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = {
            let mut state = lock(&self.state);
            if let Some((value, _)) = state.held.get(&key).filter(|(_, until)| now < *until) {
                return Some(value.clone());
            }
            if let Some(flight) = state.flying.get(&key) {
                flight.clone()
            } else {
                let (shared, landed) = (Arc::clone(&self.state), key.clone());
                let task = tokio::spawn(work);
                let flight = async move {
                    let value = task.await.ok();
                    let mut state = lock(&shared);
                    state.flying.remove(&landed);
                    if let Some(value) = &value
                        && let Some(until) = hold(value)
                    {
                        if state.held.len() >= MOST_HELD {
                            state.held.retain(|_, (_, until)| now < *until);
                        }
                        if state.held.len() < MOST_HELD {
                            state.held.insert(landed, (value.clone(), until));
                        }
                    }
                    value
                };
                let flight = flight.boxed().shared();
                state.flying.insert(key, flight.clone());
                // Polled to its end even if nobody waits any more.
                tokio::spawn(flight.clone());
                flight
            }
        };
        flight.await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_hundred_who_ask_are_one_flight() {
        let (flights, count) = (Flights::<&str, usize>::default(), Arc::new(AtomicUsize::new(0)));
        let ask = |hold: Option<Duration>| {
            let count = Arc::clone(&count);
            let work = async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                count.fetch_add(1, Ordering::SeqCst) + 1
            };
            flights.run("key", Duration::ZERO, work, move |_| hold)
        };
        let answers = futures_util::future::join_all((0..100).map(|_| ask(None))).await;
        assert!(answers.iter().all(|answer| *answer == Some(1)));
        assert_eq!(ask(Some(Duration::from_secs(10))).await, Some(2), "not held");
        assert_eq!(ask(None).await, Some(2), "held");
        assert_eq!(flights.held(&"key", Duration::from_secs(10)), None);
    }

    #[tokio::test]
    async fn a_flight_lands_without_its_passengers() {
        let flights = Flights::<(), u8>::default();
        let work = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            7
        };
        let impatient = flights.run((), Duration::ZERO, work, |_| Some(Duration::MAX));
        assert!(tokio::time::timeout(Duration::from_millis(1), impatient).await.is_err());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(flights.held(&(), Duration::ZERO), Some(7));
    }

    #[tokio::test]
    async fn a_panic_is_no_answer() {
        let flights = Flights::<(), u8>::default();
        let work = async { if true { panic!("on purpose") } else { 1 } };
        assert_eq!(flights.run((), Duration::ZERO, work, |_| None).await, None);
    }
}
